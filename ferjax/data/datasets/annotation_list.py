"""The annotation list of the YOLOX family: one image per line (spec: datasets, Detection sources).

    images/a.jpg 108,92,212,231,0 250.5,80,330,190,3
    images/no face here.jpg

The path is relative to the data folder or to the folder of the list, or absolute, and may contain
spaces. A box is x1,y1,x2,y2,class: corners in pixels of the original image and a 0-based class, or
-1 for a face whose expression nobody labelled.
"""

import functools
import os
import pathlib
import re
from collections.abc import Iterator

from ferjax.data.datasets.base import SPLITS, DataSet, Options, Reading, Release
from ferjax.data.datasets.entries import Entry, RecordError
from ferjax.data.datasets.parsing import (
  check_box,
  find_image,
  parse_optional_index,
  read_lines,
  relative_key,
)
from ferjax.data.datasets.splits import expect_splits, find_splits
from ferjax.expressions import UNKNOWN, UNLABELLED

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_BOX = re.compile(rf"{_NUMBER}(?:,{_NUMBER}){{4}}")
_FORMAT = "expected `path x1,y1,x2,y2,class x1,y1,x2,y2,class ...`"
_MAX_LINES_CHECKED = 20  # to distinguish an annotation list from other text


def _lists(root: pathlib.Path) -> Iterator[str]:
  """The annotation lists in a folder, which may also contain other text files."""
  for path in sorted(root.iterdir()):
    if path.suffix != ".txt" or not path.is_file():
      continue
    if path.stem in SPLITS or _is_list(path, root):
      yield path.name


def _is_list(path: pathlib.Path, root: pathlib.Path) -> bool:
  """Whether one of the first lines names an existing image."""
  try:
    lines = read_lines(path)[:_MAX_LINES_CHECKED]
  except RecordError:
    return False
  images = (_split(line)[0] for _, line in lines)
  return any(image and (root / image).is_file() for image in images)


def _files(root: pathlib.Path, options: Options) -> dict[str, str]:
  return find_splits(_lists(root), options, root=root, what="the annotation list", default="{}.txt")


def _read(root: pathlib.Path, options: Options) -> Reading:
  reading = Reading(wanted=options.splits)
  for split, file in reading.choose(_files(root, options)):
    parse = functools.partial(_entry, root=root, file=file, split=split, options=options)
    expected = f"{_FORMAT}, one image per line"
    lines = read_lines(root / file)
    reading.add_all(lines, parse, split=split, where=root / file, expected=expected)
  return reading


def _entry(
  line: tuple[int, str], *, root: pathlib.Path, file: str, split: str, options: Options
) -> Entry:
  number, text = line
  path, fields = _split(text)
  if not path:
    raise RecordError(f"{file}:{number}: no image path before {text!r}; {_FORMAT}")
  origin = f"{file}:{number} ({path})"
  candidates = [os.path.join(root, path), os.path.join(os.path.dirname(root / file), path)]
  field = path.split()[-1]
  if "," in field and not any(map(os.path.isfile, candidates)):
    raise RecordError(f"{origin}: malformed field {field!r}; {_FORMAT}")
  image = find_image(candidates, origin, root=None if os.path.isabs(path) else root)
  boxes, label = [], []
  for field in fields:
    *corners, class_id = field.split(",")
    x1, y1, x2, y2 = map(float, corners)
    check_box((x1, y1, x2, y2), origin)
    boxes.append((x1, y1, x2, y2))
    label.append(_class_index(class_id, options.class_names, f"{origin}: box {field}"))
  key = relative_key(image, root)
  return Entry(origin, key, image, split, tuple(label), boxes=tuple(boxes))


def _split(line: str) -> tuple[str, list[str]]:
  """The path, which may contain spaces, and the boxes, which are parsed from the right."""
  fields = []
  while _BOX.fullmatch(last := line.rpartition(" ")[2].rpartition("\t")[2]):
    fields.append(last)
    line = line.removesuffix(last).rstrip()
  return line, fields[::-1]


def _class_index(text: str, class_names: tuple[str, ...], origin: str) -> int:
  number = parse_optional_index(text, len(class_names))
  if number is None:
    known = {UNLABELLED: UNKNOWN, **dict(enumerate(class_names))}
    names = ", ".join(f"{i} {name}" for i, name in known.items())
    raise RecordError(
      f"{origin}: class {text} is not one of {names} (data.class_names, or --class-names of "
      "`ferjax data`)"
    )
  return number


ANNOTATION_LIST = DataSet(
  name="annotation_list",
  title="annotation list",
  terms="your own data",
  request="Write one image per line, `path x1,y1,x2,y2,class ...`, to train.txt, val.txt, test.txt",
  releases=(
    Release(
      "txt",
      lambda root, options: expect_splits(_files(root, options), "annotation list of the {} split"),
      _read,
    ),
  ),
  tasks=("detection",),
  takes=("files",),
)

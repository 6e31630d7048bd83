"""The annotation list of the YOLOX family: one image a line (spec: datasets, Detection sources).

    images/a.jpg 108,92,212,231,0 250.5,80,330,190,3
    images/no face here.jpg

The path is relative to the data folder, or absolute, and may hold spaces; a box is
x1,y1,x2,y2,class with corners in pixels of the original image and a 0-based class.
"""

import functools
import os
import pathlib
import re

from ferjax.data.datasets.layout import (
  DataSet,
  Entry,
  LayoutError,
  Options,
  Reading,
  Release,
  relative_key,
)
from ferjax.data.datasets.records import (
  Record,
  RecordError,
  RecordSource,
  check_box,
  check_image_file,
  read_lines,
  read_records,
)

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_BOX = re.compile(rf"{_NUMBER}(?:,{_NUMBER}){{4}}")
_FORMAT = "expected `path x1,y1,x2,y2,class x1,y1,x2,y2,class ...`"


class AnnotationList(RecordSource):
  """Random access to the images of an annotation list.

  Args:
    dir: folder that relative paths start from.
    file: the list, below `dir` or absolute.
    class_names: in the order of the classes of the list.
    on_bad_record: "error", or "skip" to leave bad lines out.

  Raises:
    ValueError: naming file and line: a malformed line, a box without area, a class beyond
      `class_names`, a missing image, or an empty list.
  """

  def __init__(
    self,
    dir: str | os.PathLike,
    file: str,
    class_names: tuple[str, ...],
    on_bad_record: str = "error",
  ):
    path = os.path.join(dir, file)
    if not os.path.isfile(path):
      raise ValueError(f"annotation list not found: {path}; {_FORMAT}, one image a line")
    entries = read_lines(pathlib.Path(path))
    parse = functools.partial(_parse, dir=dir, file=file, class_names=class_names)
    records, skipped = read_records(entries, parse, origin=path, on_bad_record=on_bad_record)
    super().__init__(records, class_names, skipped)


def _parse(
  entry: tuple[int, str], *, dir: str | os.PathLike, file: str, class_names: tuple[str, ...]
) -> Record:
  number, line = entry
  path, fields = _split(line)
  if not path:
    raise RecordError(f"{file}:{number}: no image path before {line!r}; {_FORMAT}")
  origin = f"{file}:{number} ({path})"
  full_path = os.path.join(dir, path)
  field = path.split()[-1]
  if "," in field and not os.path.isfile(full_path):
    raise RecordError(f"{origin}: malformed field {field!r}; {_FORMAT}")
  check_image_file(full_path, origin)
  boxes, label = [], []
  for field in fields:
    *box, class_id = field.split(",")
    box = tuple(float(number) for number in box)
    check_box(box, origin)
    boxes.append(box)
    label.append(_class_index(class_id, class_names, f"{origin}: box {field}"))
  return Record(origin, full_path, tuple(boxes), tuple(label))


def _split(line: str) -> tuple[str, list[str]]:
  """The path, which may hold spaces, and the boxes: from the right, what looks like one."""
  fields = []
  while _BOX.fullmatch(last := line.rpartition(" ")[2].rpartition("\t")[2]):
    fields.append(last)
    line = line.removesuffix(last).rstrip()
  return line, fields[::-1]


def _class_index(text: str, class_names: tuple[str, ...], origin: str) -> int:
  if not text.isdecimal() or int(text) >= len(class_names):
    names = ", ".join(f"{i} {name}" for i, name in enumerate(class_names))
    raise RecordError(
      f"{origin}: class {text} is not one of {names} (data.class_names, or --class-names of "
      "`ferjax data`)"
    )
  return int(text)


def _files(root: pathlib.Path, options: Options) -> dict[str, str]:
  """Split -> list: as chosen, else <split>.txt where there is one; train is always expected."""
  if options.files:
    return dict(options.files)
  there = {s: f"{s}.txt" for s in ("train", "val", "test") if (root / f"{s}.txt").is_file()}
  return {"train": "train.txt", **there}


def _read(root: pathlib.Path, options: Options) -> Reading:
  reading = Reading()
  for split, file in _files(root, options).items():
    lines = read_lines(root / file)
    if not lines:
      raise LayoutError(f"{root / file}: empty; {_FORMAT}, one image a line")
    parse = functools.partial(_entry, root=root, file=file, split=split, options=options)
    reading.add_all(lines, parse)
  return reading


def _entry(
  line: tuple[int, str], *, root: pathlib.Path, file: str, split: str, options: Options
) -> Entry:
  record = _parse(line, dir=root, file=file, class_names=options.class_names)
  key = relative_key(record.path, root)
  return Entry(record.origin, key, record.path, split, record.label, boxes=record.boxes)


ANNOTATION_LIST = DataSet(
  name="annotation_list",
  title="annotation list",
  terms="your own data",
  request="Write one image a line, `path x1,y1,x2,y2,class ...`, into train.txt, val.txt, test.txt",
  releases=(
    Release(
      "txt",
      lambda root, options: {
        file: f"annotation list of the {split} split"
        for split, file in _files(root, options).items()
      },
      _read,
    ),
  ),
  tasks=("detection",),
  takes=("files",),
)

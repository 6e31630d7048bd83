"""RAF-DB, single-label ("basic") part: photographs with one face box each, and aligned faces.

Li, Deng, Du, "Reliable Crowdsourcing and Deep Locality-Preserving Learning for Expression
Recognition in the Wild", CVPR 2017. Layout and counts: spec: datasets. The data set has no
validation split, and models are never selected on the test split, so validation is taken from
train.

The manual annotation names gender, race and age of each face, as the experimenters perceived them.
They become attributes if its folder exists. A file has five lines of landmarks, then one code each
for gender, race and age (the readme of the data set).
"""

import functools
import math
import pathlib
from collections.abc import Mapping

from ferjax.data.datasets.base import TASKS, DataSet, Options, Reading, Release
from ferjax.data.datasets.entries import Box, Entry, RecordError
from ferjax.data.datasets.parsing import (
  check_box,
  check_image_file,
  decode_text,
  read_file,
  read_lines,
  split_lines,
  whole_number,
)
from ferjax.expressions import RAF_DB_CODES, index_of

OFFICIAL_COUNTS = {"train": 12271, "test": 3068}
_BY_CODE = {
  "train": (1290, 281, 717, 4772, 1982, 705, 2524),
  "test": (329, 74, 160, 1185, 478, 162, 680),
}
_LIST = "basic/EmoLabel/list_patition_label.txt"  # the misspelling is official
_ALIGNED = "basic/Image/aligned"
_ORIGINALS = "basic/Image/original"
_BOXES = "basic/Annotation/boundingbox"
_MANUAL = "basic/Annotation/manual"
_LANDMARKS = 5  # lines before the attributes
_ATTRIBUTES = {
  "gender": ("male", "female", "unsure"),
  "race": ("Caucasian", "African-American", "Asian"),
  "age": ("0-3", "4-19", "20-39", "40-69", "70+"),
}


_Line = tuple[int, list[str]]  # line number, fields


def _read(root: pathlib.Path, options: Options) -> Reading:
  reading = Reading(wanted=options.splits)
  lines = [(i, line.split()) for i, line in read_lines(root / _LIST)]
  has_attributes = (root / _MANUAL).is_dir()
  parse = functools.partial(_entry, root=root, options=options, has_attributes=has_attributes)
  expected = "expected lines `train_00001.jpg 5`"
  reading.add_all(lines, parse, split=_split, where=root / _LIST, expected=expected)
  return reading


def _origin(line: _Line) -> str:
  return f"{_LIST}:{line[0]} ({line[1][0]})"


def _split(line: _Line) -> str:
  name = line[1][0]
  split = next((split for split in OFFICIAL_COUNTS if name.startswith(split)), "")
  if not split:
    raise RecordError(f"{_origin(line)}: expected a file name that starts with train or test")
  return split


def _entry(line: _Line, *, root: pathlib.Path, options: Options, has_attributes: bool) -> Entry:
  name, origin, split = line[1][0], _origin(line), _split(line)
  # A bad record still counts for the validation split; an unknown code is a class of its own.
  known = Entry(origin, name, "", split, len(options.class_names))
  try:
    label = _label(line, options.class_names)
    known = Entry(origin, name, "", split, label)
    stem = pathlib.PurePath(name).stem
    attributes = _attributes(root / _MANUAL / f"{stem}_manu_attri.txt") if has_attributes else ()
    if options.task == "classification":
      path = root / _ALIGNED / f"{stem}_aligned.jpg"
      check_image_file(path, origin, root=root)
      return Entry(origin, name, str(path), split, label, attributes=attributes)
    path = root / _ORIGINALS / name
    check_image_file(path, origin, root=root)
    box = _box(root / _BOXES / f"{stem}_boundingbox.txt", origin)
    boxes = (box,)
    return Entry(origin, name, str(path), split, (label,), boxes=boxes, attributes=attributes)
  except RecordError as error:
    raise RecordError(error, example=known) from error.__cause__


def _label(line: _Line, class_names: tuple[str, ...]) -> int:
  fields = line[1]
  code = whole_number(fields[-1])
  if len(fields) != 2 or code not in RAF_DB_CODES:
    codes = ", ".join(f"{code} {name}" for code, name in RAF_DB_CODES.items())
    raise RecordError(
      f"{_origin(line)}: {' '.join(fields)!r}; expected a file name and a code: {codes}"
    )
  return index_of(RAF_DB_CODES[code], class_names)


def _attributes(path: pathlib.Path) -> tuple[tuple[str, str], ...]:
  """Gender, race and age; unknown for a face without the file."""
  if not path.is_file():
    return tuple((name, "") for name in _ATTRIBUTES)
  codes = [text for _, text in split_lines(decode_text(read_file(path, path), path))][_LANDMARKS:]
  found = []
  for i, (name, values) in enumerate(_ATTRIBUTES.items()):
    code = whole_number(codes[i]) if i < len(codes) else None
    if code is None or code >= len(values):
      known = ", ".join(f"{number} {value}" for number, value in enumerate(values))
      raise RecordError(
        f"{path}: line {_LANDMARKS + i + 1} is {''.join(codes[i : i + 1])!r}; expected the code of "
        f"{name}: {known}"
      )
    found.append((name, values[code]))
  return tuple(found)


def _box(path: pathlib.Path, origin: str) -> Box:
  text = " ".join(decode_text(read_file(path, origin), path).split())
  try:
    x1, y1, x2, y2 = (float(number) for number in text.split())
  except ValueError:
    raise RecordError(f"{path}: {text!r}; expected four numbers x1 y1 x2 y2") from None
  check_box((x1, y1, x2, y2), str(path))
  return (x1, y1, x2, y2)


def _expected(root: pathlib.Path, options: Options) -> dict[str, str]:
  files = {_LIST: "the list of images and codes"}
  if options.task == "detection":
    return {**files, _ORIGINALS: "original photographs", _BOXES: "a file for each face box"}
  return {**files, _ALIGNED: "aligned faces, 100x100 pixels"}


def _official(options: Options) -> Mapping[str, Mapping[str, int]]:
  return {
    split: {
      "total": OFFICIAL_COUNTS[split],
      **{RAF_DB_CODES[code]: count for code, count in enumerate(counts, start=1)},
    }
    for split, counts in _BY_CODE.items()
  }


RAF_DB = DataSet(
  name="raf_db",
  title="RAF-DB",
  terms="for research only, after an agreement with its authors; text not verified",
  request="Request it from its authors, from a university address: "
  f"http://www.whdeng.cn/RAF/model1.html; unpack it so that DIR/{_LIST} exists, and "
  f"DIR/{_ALIGNED}/ for faces, or DIR/{_ORIGINALS}/ and DIR/{_BOXES}/ for detection",
  releases=(Release("basic", _expected, _read, _official),),
  tasks=TASKS,
  class_counts=(7,),
  overhang=math.inf,  # the detector's boxes extend beyond the photographs
)

"""ExpW: photographs from a web search, with faces found by a detector.

Zhang, Luo, Loy, Tang, "From Facial Expression Recognition to Interpersonal Relation Prediction",
IJCV 2018. One list, no splits. Layout and counts: spec: datasets.
"""

import functools
import pathlib

from ferjax.data.datasets.base import TASKS, DataSet, Options, Reading, Release
from ferjax.data.datasets.entries import Box, Entry, RecordError
from ferjax.data.datasets.parsing import (
  check_box,
  check_image_file,
  code_index,
  parse_number,
  read_lines,
  relative_key,
)
from ferjax.expressions import EXPW_CODES

_LIST = "label/label.lst"
_IMAGES = "image/origin"
_COLUMNS = ("image", "face id", "top", "left", "right", "bottom", "confidence", "label")
_Line = tuple[int, list[str]]


def _read(root: pathlib.Path, options: Options) -> Reading:
  reading = Reading(wanted=options.splits)
  lines = [(i, line.split()) for i, line in read_lines(root / _LIST)]
  parse = functools.partial(_face, root=root, options=options)
  expected = f"expected lines `{' '.join(_COLUMNS)}`"
  reading.add_all(lines, parse, split="train", where=root / _LIST, expected=expected)
  if options.task == "detection":
    reading.entries = _photographs(reading.entries)
  return reading


def _face(line: _Line, *, root: pathlib.Path, options: Options) -> Entry:
  number, fields = line
  origin = f"{_LIST}:{number} ({fields[0]})"
  if len(fields) != len(_COLUMNS):
    raise RecordError(f"{origin}: {len(fields)} fields; expected `{' '.join(_COLUMNS)}`")
  label = code_index(fields[-1], EXPW_CODES, options.class_names, origin)
  top, left, right, bottom = (
    parse_number(text, what, origin) for text, what in zip(fields[2:6], _COLUMNS[2:6], strict=True)
  )
  box: Box = (left, top, right, bottom)
  check_box(box, origin)
  path = root / _IMAGES / fields[0]
  check_image_file(path, origin, root=root)
  key = f"{relative_key(path, root)}#{number}"
  return Entry(origin, key, str(path), "train", label, crop=box, group=fields[0])


def _photographs(faces: list[Entry]) -> list[Entry]:
  """One entry for each photograph, with all its faces."""
  by_image: dict[str, list[Entry]] = {}
  for face in faces:
    by_image.setdefault(face.group, []).append(face)
  entries = []
  for name, members in by_image.items():
    first = members[0]
    boxes = tuple(face.crop for face in members if face.crop is not None)
    labels = tuple(c for face in members for c in face.classes)
    entries.append(Entry(first.origin, name, first.image, "train", labels, boxes=boxes))
  return entries


def _official(options: Options) -> dict[str, dict[str, int]]:
  return {} if options.task == "detection" else {"train": {"total": 91793}}


EXPW = DataSet(
  name="expw",
  title="ExpW",
  terms="for research only, according to its web page; not verified",
  request="Download it from http://mmlab.ie.cuhk.edu.hk/projects/socialrelation/; unpack it so "
  "that DIR/image/origin/ and DIR/label/label.lst exist",
  releases=(
    Release(
      "list",
      lambda root, options: {_LIST: "the list of faces", _IMAGES: "the photographs"},
      _read,
      _official,
    ),
  ),
  tasks=TASKS,
  class_counts=(7,),
)

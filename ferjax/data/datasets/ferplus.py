"""FERPlus: the images of FER2013 with the votes of ten annotators each.

Barsoum, Zhang, Canton Ferrer, Zhang, "Training Deep Networks for Facial Expression Recognition
with Crowd-Sourced Label Distribution", ICMI 2016. Votes become labels by the rules of the authors'
program (spec: datasets, FERPlus rules). As in that program, the chosen rule applies to training;
validation and test always use the majority class, so results are comparable.

There are two releases, whose votes differ for 1,601 images:

  table    fer2013new.csv has a row of votes for each row of FER2013's table.
  folders  data/FER2013{Train,Valid,Test}/label.csv, which the authors train on, next to the images
           that their program writes from the tables. Published counts refer to these.

Rows are identified by their number: three names of the table occur in two rows each.
"""

import csv
import functools
import itertools
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from ferjax.data.datasets.base import DataSet, Options, Reading, Release
from ferjax.data.datasets.entries import Box, Entry, LayoutError, RecordError
from ferjax.data.datasets.fer2013 import COLUMNS, SIDE, TABLE, parse_pixels, parse_usage
from ferjax.data.datasets.parsing import (
  TableRow,
  check_box,
  check_image_file,
  read_lines,
  read_rows,
)
from ferjax.expressions import FERPLUS_COLUMNS, FERPLUS_NO_EXPRESSION

Rows = tuple[TableRow | None, TableRow | None]  # row of pixels, row of votes
VOTES_TABLE = "fer2013new.csv"
LABELS = "label.csv"
FOLDERS = {"train": "FER2013Train", "val": "FER2013Valid", "test": "FER2013Test"}
_WHOLE = (0.0, 0.0, float(SIDE), float(SIDE))  # the box of every image as released
_EXPRESSIONS = len(FERPLUS_COLUMNS) - len(FERPLUS_NO_EXPRESSION)  # the other columns come last
# Counted on the data: train by rule, val and test by majority.
_TABLE_COUNTS = {"majority": 25060, "probability": 27956, "val": 3199, "test": 3153}
_FOLDERS_COUNTS = {"majority": 25045, "probability": 27947, "val": 3191, "test": 3137}


def majority(votes: Sequence[int]) -> tuple[float, ...] | None:
  """One-hot over the expression columns; None if no expression has more than half the votes."""
  counted = np.where(np.array(votes) > 1, votes, 0)
  winner = int(counted.argmax())
  if counted[winner] <= 0.5 * counted.sum() or winner >= _EXPRESSIONS:
    return None
  return tuple(float(i == winner) for i in range(_EXPRESSIONS))


def probability(votes: Sequence[int]) -> tuple[float, ...] | None:
  """A distribution over the expression columns; None if the votes are too scattered.

  The columns with the most votes are taken, ties together, until they have three quarters of the
  votes, or are three, or one of them is not an expression. A column that is not an expression
  counts only if it comes first.
  """
  counted = np.where(np.array(votes) > 1, votes, 0).astype(float)
  taken = np.zeros(len(counted))
  total, number, is_expression = counted.sum(), 0, True
  while taken.sum() < 0.75 * total and number < 3 and is_expression:
    most = counted.max()
    for column in np.flatnonzero(counted == most):
      taken[column], counted[column] = most, 0
      number += 1
      if column >= _EXPRESSIONS:
        is_expression = False
        if taken.sum() > most:
          taken[column] = 0
          number -= 1
        break
  if taken.sum() <= 0.5 * total or number > 3 or taken.argmax() >= _EXPRESSIONS:
    return None
  kept = taken[:_EXPRESSIONS]
  return tuple((kept / kept.sum()).tolist())


_RULES = {"majority": majority, "probability": probability}


def _read_table(root: pathlib.Path, options: Options) -> Reading:
  reading = Reading(wanted=options.splits)
  columns = ("Usage", "Image name", *FERPLUS_COLUMNS)
  pairs = itertools.zip_longest(
    read_rows(root / TABLE, COLUMNS), read_rows(root / VOTES_TABLE, columns)
  )
  parse = functools.partial(_parse_rows, options=options)
  reading.add_all(pairs, parse, split=_split, where=root / VOTES_TABLE)
  return reading


def _split(rows: Rows) -> str:
  """The split in the table of votes; "" beyond the end of either table (see `_parse_rows`)."""
  image_row, votes_row = rows
  if image_row is None or votes_row is None:
    return ""
  line, cells = votes_row
  return parse_usage(cells["Usage"], f"{VOTES_TABLE}:{line} ({cells['Image name']})")


def _parse_rows(rows: Rows, *, options: Options) -> Entry | str:
  image_row, votes_row = rows
  if image_row is None or votes_row is None:
    longer, shorter = (TABLE, VOTES_TABLE) if votes_row is None else (VOTES_TABLE, TABLE)
    line = (image_row or votes_row or (0, {}))[0]
    raise LayoutError(
      f"{longer}:{line}: {shorter} has no such row; the tables must have the same rows"
    )
  line, cells = votes_row
  name = cells["Image name"]
  origin = f"{VOTES_TABLE}:{line} ({name})"
  if cells["Usage"] != image_row[1]["Usage"]:
    raise RecordError(
      f"{origin}: Usage is {cells['Usage']!r}, but {image_row[1]['Usage']!r} in "
      f"{TABLE}:{image_row[0]}; the tables must have the same rows in the same order"
    )
  if not name:
    return "removed face (empty name)"
  votes = _votes([cells[column] for column in FERPLUS_COLUMNS], origin)
  split = _split(rows)
  label = _label(votes, split, options)
  if isinstance(label, str):
    return label
  pixels = parse_pixels(image_row[1]["pixels"], f"{TABLE}:{image_row[0]}")
  return Entry(origin, f"{line}", pixels, split, label, votes=votes)


def _expected_folders(root: pathlib.Path, options: Options) -> dict[str, str]:
  expected = {}
  for split, folder in FOLDERS.items():
    place = _base(root) / folder
    expected[f"{place / LABELS}"] = f"name and ten votes of each image of {split}"
    image = min((path.name for path in (root / place).glob("*.png")), default="*.png")
    expected[f"{place / image}"] = "images; generate_training_data.py of FER+ writes them"
  return expected


def _base(root: pathlib.Path) -> pathlib.PurePath:
  """Location of the split folders: `root` itself, or its subfolder `data`, as in a clone."""
  is_data = any((root / folder).is_dir() for folder in FOLDERS.values())
  return pathlib.PurePath("." if is_data else "data")


def _read_folders(root: pathlib.Path, options: Options) -> Reading:
  reading = Reading(wanted=options.splits)
  for split, folder in reading.choose(FOLDERS):
    place = _base(root) / folder
    parse = functools.partial(_parse_line, root=root, place=place, split=split, options=options)
    where = root / place / LABELS
    expected = "expected a line for each image"
    reading.add_all(read_lines(where), parse, split=split, where=where, expected=expected)
  return reading


def _parse_line(
  line: tuple[int, str],
  *,
  root: pathlib.Path,
  place: pathlib.PurePath,
  split: str,
  options: Options,
) -> Entry | str:
  number, text = line
  origin = f"{place / LABELS}:{number}"
  try:
    name, *cells = (cell.strip() for cell in next(csv.reader([text])))
  except csv.Error as error:
    raise RecordError(f"{origin}: malformed: {error}") from error
  origin = f"{origin} ({name})"
  # Later versions of the authors' program rewrite these files without the box.
  has_box = bool(cells) and cells[0].startswith("(")
  box = _box(cells.pop(0), origin) if has_box else None
  if len(cells) != len(FERPLUS_COLUMNS) or not name:
    raise RecordError(f"{origin}: expected a name, optionally a quoted box, and ten votes")
  votes = _votes(cells, origin)
  label = _label(votes, split, options)
  if isinstance(label, str):
    return label
  path = root / place / name
  check_image_file(path, origin, root=root)
  key = f"{FOLDERS[split]}:{number}"
  return Entry(origin, key, str(path), split, label, crop=box, votes=votes)


def _box(text: str, origin: str) -> Box | None:
  """The face box, xyxy pixels; None for the whole image."""
  numbers = re.fullmatch(r"\((-?\d+), *(-?\d+), *(-?\d+), *(-?\d+)\)", text)
  if numbers is None:
    raise RecordError(f"{origin}: box {text!r}; expected (left, top, right, bottom) in pixels")
  x1, y1, x2, y2 = map(float, numbers.groups())
  check_box((x1, y1, x2, y2), origin)
  return None if (x1, y1, x2, y2) == _WHOLE else (x1, y1, x2, y2)


def _label(votes: Sequence[int], split: str, options: Options) -> tuple[float, ...] | str:
  """A distribution over the classes, or why the image is left out."""
  rule = options.rule if split == "train" else "majority"
  distribution = _RULES[rule](votes)
  if distribution is None:
    return f"{split}: no label by the rule {rule!r}"
  return tuple(distribution[FERPLUS_COLUMNS.index(name)] for name in options.class_names)


def _votes(cells: Sequence[str], origin: str) -> tuple[int, ...]:
  for column, text in zip(FERPLUS_COLUMNS, cells, strict=True):
    if not text.isdecimal():
      raise RecordError(f"{origin}: {column} has {text!r} votes; expected a whole number")
  return tuple(map(int, cells))


def _official(counts: Mapping[str, int], options: Options) -> Mapping[str, Mapping[str, int]]:
  by_split = {"train": counts[options.rule], "val": counts["val"], "test": counts["test"]}
  return {split: {"total": count} for split, count in by_split.items()}


FERPLUS = DataSet(
  name="ferplus",
  title="FERPlus",
  terms="labels: MIT licence, according to its repository; images: those of FER2013; not verified",
  request="Download https://github.com/microsoft/FERPlus; put fer2013.csv of FER2013 next to its "
  "fer2013new.csv, or let its program generate_training_data.py write the images below data/",
  releases=(
    Release(
      "table",
      lambda root, options: {
        TABLE: "the images of FER2013",
        VOTES_TABLE: "the votes, row by row",
      },
      _read_table,
      functools.partial(_official, _TABLE_COUNTS),
    ),
    Release(
      "folders",
      _expected_folders,
      _read_folders,
      functools.partial(_official, _FOLDERS_COUNTS),
    ),
  ),
  class_counts=(8,),
  takes=("rule",),
  votes=FERPLUS_COLUMNS,
)

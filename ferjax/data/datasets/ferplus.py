"""FERPlus: FER2013's pictures with the votes of ten people each.

Barsoum, Zhang, Canton Ferrer, Zhang, "Training Deep Networks for Facial Expression Recognition
with Crowd-Sourced Label Distribution", ICMI 2016. Votes become labels by the rules of the authors'
program (spec: datasets, FERPlus rules). As there, the rule that is chosen is for training;
validation and test always take the majority's, so that figures are comparable.
"""

import functools
import itertools
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from ferjax.data.datasets.base import DataSet, Options, Reading, Release
from ferjax.data.datasets.entries import Entry, LayoutError, RecordError
from ferjax.data.datasets.fer2013 import COLUMNS, TABLE, parse_pixels, parse_usage
from ferjax.data.datasets.parsing import TableRow, read_rows
from ferjax.expressions import FERPLUS_COLUMNS, FERPLUS_NO_EXPRESSION

VOTES_TABLE = "fer2013new.csv"
_EXPRESSIONS = len(FERPLUS_COLUMNS) - len(FERPLUS_NO_EXPRESSION)  # the others come last
_OFFICIAL_TRAIN = {"majority": 25045, "probability": 27947}
_OFFICIAL = {"val": 3191, "test": 3137}


def majority(votes: Sequence[int]) -> tuple[float, ...] | None:
  """One-hot over the expression columns, or None: no expression has more than half the votes."""
  counted = np.where(np.array(votes) > 1, votes, 0)
  winner = int(counted.argmax())
  if counted[winner] <= 0.5 * counted.sum() or winner >= _EXPRESSIONS:
    return None
  return tuple(float(i == winner) for i in range(_EXPRESSIONS))


def probability(votes: Sequence[int]) -> tuple[float, ...] | None:
  """A distribution over the expression columns, or None: the votes are too scattered.

  The columns with the most votes are taken, those with equally many together, until they hold
  three quarters of the votes, or are three, or one of them is no expression. That one counts only
  where it comes first.
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


def _read(root: pathlib.Path, options: Options) -> Reading:
  reading = Reading()
  columns = ("Usage", "Image name", *FERPLUS_COLUMNS)
  pairs = itertools.zip_longest(
    read_rows(root / TABLE, COLUMNS), read_rows(root / VOTES_TABLE, columns)
  )
  reading.add_all(pairs, functools.partial(_parse, options=options))
  return reading


def _parse(rows: tuple[TableRow | None, TableRow | None], *, options: Options) -> Entry | str:
  picture, votes_row = rows
  if picture is None or votes_row is None:
    longer, shorter = (TABLE, VOTES_TABLE) if votes_row is None else (VOTES_TABLE, TABLE)
    line = (picture or votes_row or (0, {}))[0]
    raise LayoutError(f"{longer}:{line}: {shorter} has no such row; the tables go row by row")
  line, cells = votes_row
  name = cells["Image name"]
  origin = f"{VOTES_TABLE}:{line} ({name})"
  if cells["Usage"] != picture[1]["Usage"]:
    raise RecordError(
      f"{origin}: Usage is {cells['Usage']!r}, but {picture[1]['Usage']!r} in "
      f"{TABLE}:{picture[0]}; the tables must have the same rows in the same order"
    )
  if not name:
    return "removed face (empty name)"
  votes = tuple(_votes(cells[column], column, origin) for column in FERPLUS_COLUMNS)
  split = parse_usage(cells["Usage"], origin)
  rule = options.rule if split == "train" else "majority"
  distribution = _RULES[rule](votes)
  if distribution is None:
    return f"{split}: no label by the rule {rule!r}"
  label = tuple(distribution[FERPLUS_COLUMNS.index(name)] for name in options.class_names)
  pixels = parse_pixels(picture[1]["pixels"], f"{TABLE}:{picture[0]}")
  return Entry(origin, name, pixels, split, label, votes=votes)


def _votes(text: str, column: str, origin: str) -> int:
  if not text.isdecimal():
    raise RecordError(f"{origin}: {column} has {text!r} votes; expected a whole number")
  return int(text)


def _official(options: Options) -> Mapping[str, Mapping[str, int]]:
  counts = {"train": _OFFICIAL_TRAIN[options.rule], **_OFFICIAL}
  return {split: {"total": count} for split, count in counts.items()}


FERPLUS = DataSet(
  name="ferplus",
  title="FERPlus",
  terms="labels: MIT licence, by its repository; pictures: those of FER2013; not verified",
  request="Download fer2013new.csv from https://github.com/microsoft/FERPlus, and put it beside "
  "fer2013.csv of FER2013",
  releases=(
    Release(
      "csv",
      lambda root, options: {
        TABLE: "the pictures of FER2013",
        VOTES_TABLE: "the votes, row by row",
      },
      _read,
      _official,
    ),
  ),
  class_counts=(8,),
  takes=("rule",),
  votes=FERPLUS_COLUMNS,
)

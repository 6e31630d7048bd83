"""A table of images with the columns image, label and split; other columns are ignored.

    image,label,split
    images/a.jpg,happiness,train
    images/b.jpg,Angry,val

The path is relative to the data folder or to the folder of the table, or absolute. The label is a
class name, in any case, or a synonym that `ferjax.expressions` knows.
"""

import functools
import os
import pathlib

from ferjax.data.datasets.base import DataSet, Options, Reading, Release
from ferjax.data.datasets.entries import Entry, RecordError
from ferjax.data.datasets.parsing import (
  TableRow,
  find_image,
  parse_class,
  read_rows,
  relative_key,
)
from ferjax.data.datasets.splits import find_splits

COLUMNS = ("image", "label", "split")
# Columns that identify the subject or clip; the first that is present and not empty is the group.
GROUPS = ("person", "subject", "clip", "group")


def _read(root: pathlib.Path, options: Options) -> Reading:
  reading = Reading(wanted=options.splits)
  table = root / options.table
  rows: dict[str, list[TableRow]] = {}  # by the value of the column split
  for row in read_rows(table, COLUMNS, optional=GROUPS):
    rows.setdefault(row[1]["split"], []).append(row)
  known = ", ".join(f"{value!r} ({len(members)} rows)" for value, members in sorted(rows.items()))
  first = ", ".join(f"{value!r} from line {members[0][0]} on" for value, members in rows.items())
  names = find_splits(
    filter(None, rows), options, root=f"{table} ({first})", what="the value of the column split"
  )
  for split, value in reading.choose(names):
    parse = functools.partial(_entry, root=root, split=split, options=options)
    reading.add_all(
      rows.get(value, ()),
      parse,
      split=split,
      where=f"{table}, split {value!r}",
      expected=f"existing splits: {known or 'none'}",
    )
  if not options.splits:
    reading.add_all(rows.get("", ()), functools.partial(_without_split, table=options.table))
  return reading


def _without_split(row: TableRow, *, table: str) -> None:
  raise RecordError(
    f"{table}:{row[0]} ({row[1]['image']}): the column split is empty; expected train, val or test"
  )


def _entry(row: TableRow, *, root: pathlib.Path, split: str, options: Options) -> Entry:
  line, cells = row
  image = cells["image"]
  if not image:
    raise RecordError(f"{options.table}:{line}: the column image is empty")
  origin = f"{options.table}:{line} ({image})"
  label = parse_class(cells["label"], options.class_names, origin)
  folders = (root, os.path.dirname(root / options.table))
  path = find_image([os.path.join(folder, image) for folder in folders], origin)
  group = next((cells[name] for name in GROUPS if cells.get(name)), "")
  return Entry(origin, relative_key(path, root), path, split, label, group=group)


CSV = DataSet(
  name="csv",
  title="CSV table",
  terms="your own data",
  request="Write a table with the columns image, label and split, and one of "
  f"{', '.join(GROUPS)} if known",
  releases=(
    Release(
      "csv",
      lambda root, options: {options.table: "a table: image, label, split"},
      _read,
    ),
  ),
  takes=("table", "files"),
)

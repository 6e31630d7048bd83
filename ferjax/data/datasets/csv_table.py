"""A table of images with the columns image, label and split; others are ignored unless named.

    image,label,split
    images/a.jpg,happiness,train
    images/b.jpg,Angry,val

For a detector, each row is a box with the columns x1, y1, x2 and y2, corners in pixels of the
upright image. Rows of one image and split belong together; a row with neither box nor label is an
image without faces.

    image,label,split,x1,y1,x2,y2
    images/c.jpg,happiness,train,108,92,212,231
    images/c.jpg,unknown,train,250.5,80,330,190
    images/d.jpg,,train,,,,

The path is relative to the data folder or to the folder of the table, or absolute. The label is a
class name, in any case, or a synonym that `ferjax.expressions` knows. The label "unknown" is a face
whose expression nobody labelled: a box for a detector, and left out for a classifier.
"""

import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence

from ferjax.data.datasets.base import DataSet, Options, Reading, Release
from ferjax.data.datasets.entries import Box, Entry, RecordError
from ferjax.data.datasets.parsing import (
  TableRow,
  check_box,
  find_image,
  parse_number,
  parse_optional_class,
  read_rows,
  relative_key,
)
from ferjax.data.datasets.splits import find_splits
from ferjax.expressions import UNKNOWN, UNLABELLED

COLUMNS = ("image", "label", "split")
CORNERS = ("x1", "y1", "x2", "y2")  # further columns for a detector
# Columns that identify the subject or clip; the first that is present and not empty is the group.
GROUPS = ("person", "subject", "clip", "group")
SEVERAL = "several"  # value of an attribute of a photograph whose faces have different ones


def _read(root: pathlib.Path, options: Options) -> Reading:
  reading = Reading(wanted=options.splits)
  table = root / options.table
  rows: dict[str, list[TableRow]] = {}  # by the value of the column split
  for row in read_rows(table, (*_columns(options), *options.columns), optional=GROUPS):
    rows.setdefault(row[1]["split"], []).append(row)
  known = ", ".join(f"{value!r} ({len(members)} rows)" for value, members in sorted(rows.items()))
  first = ", ".join(f"{value!r} from line {members[0][0]} on" for value, members in rows.items())
  names = find_splits(
    filter(None, rows), options, root=f"{table} ({first})", what="the value of the column split"
  )
  is_detection = options.task == "detection"
  make: Callable[..., Entry | str] = _photograph if is_detection else _face
  for split, value in reading.choose(names):
    of_split = rows.get(value, ())
    reading.add_all(
      _by_image(of_split) if is_detection else of_split,
      functools.partial(make, root=root, split=split, options=options),
      split=split,
      where=f"{table}, split {value!r}",
      expected=f"existing splits: {known or 'none'}",
    )
  if not options.splits:
    reading.add_all(rows.get("", ()), functools.partial(_without_split, table=options.table))
  return reading


def read_cells(root: pathlib.Path, options: Options) -> dict[int, dict[str, str]]:
  """The rows of the table by line, with the cells of all columns."""
  return dict(read_rows(root / options.table, _columns(options), optional=None))


def _without_split(row: TableRow, *, table: str) -> None:
  raise RecordError(
    f"{table}:{row[0]} ({row[1]['image']}): the column split is empty; expected train, val or test"
  )


def _columns(options: Options) -> tuple[str, ...]:
  return (*COLUMNS, *CORNERS) if options.task == "detection" else COLUMNS


def _by_image(rows: Iterable[TableRow]) -> list[list[TableRow]]:
  """The rows of each image, in the order of the first ones."""
  images: dict[str, list[TableRow]] = {}
  for row in rows:
    images.setdefault(row[1]["image"], []).append(row)
  return list(images.values())


def _face(row: TableRow, *, root: pathlib.Path, split: str, options: Options) -> Entry | str:
  origin = _origin(row, options)
  label = parse_optional_class(row[1]["label"], options.class_names, origin)
  path = _image(row, root, options)
  if label == UNLABELLED:
    return f"the label is {UNKNOWN}"
  return Entry(
    origin,
    relative_key(path, root),
    path,
    split,
    label,
    group=_group([row]),
    attributes=_attributes([row], options),
  )


def _photograph(
  rows: Sequence[TableRow], *, root: pathlib.Path, split: str, options: Options
) -> Entry:
  path = _image(rows[0], root, options)
  boxes, label, lines = [], [], []
  for row in rows:
    origin, (line, cells) = _origin(row, options), row
    if any(cells[name] for name in (*CORNERS, "label")):
      boxes.append(_box(cells, origin))
      label.append(parse_optional_class(cells["label"], options.class_names, origin))
      lines.append(line)
  return Entry(
    _origin(rows[0], options),
    relative_key(path, root),
    path,
    split,
    tuple(label),
    boxes=tuple(boxes),
    group=_group(rows),
    lines=tuple(lines or [rows[0][0]]),
    attributes=_attributes(rows, options),
  )


def _origin(row: TableRow, options: Options) -> str:
  line, cells = row
  if not cells["image"]:
    raise RecordError(f"{options.table}:{line}: the column image is empty")
  return f"{options.table}:{line} ({cells['image']})"


def _image(row: TableRow, root: pathlib.Path, options: Options) -> str:
  name, folders = row[1]["image"], (root, os.path.dirname(root / options.table))
  candidates = [os.path.join(folder, name) for folder in folders]
  limit = None if os.path.isabs(name) else root
  return find_image(candidates, _origin(row, options), root=limit)


def _box(cells: dict[str, str], origin: str) -> Box:
  x1, y1, x2, y2 = (parse_number(cells[name], f"the column {name}", origin) for name in CORNERS)
  check_box((x1, y1, x2, y2), origin)
  return x1, y1, x2, y2


def _attributes(rows: Sequence[TableRow], options: Options) -> tuple[tuple[str, str], ...]:
  """The values of the further columns; `SEVERAL` if the faces of a photograph differ."""
  values = {name: {cells[name] for _, cells in rows} - {""} for name in options.columns}
  return tuple((name, SEVERAL if len(x) > 1 else "".join(x)) for name, x in values.items())


def _group(rows: Iterable[TableRow]) -> str:
  return next((cells[name] for _, cells in rows for name in GROUPS if cells.get(name)), "")


CSV = DataSet(
  name="csv",
  title="CSV table",
  terms="your own data",
  request="Write a table with the columns image, label and split (for a detector also "
  f"{', '.join(CORNERS)}), and one of {', '.join(GROUPS)} if known",
  releases=(
    Release(
      "csv",
      lambda root, options: {options.table: f"a table: {', '.join(_columns(options))}"},
      _read,
    ),
  ),
  tasks=("classification", "detection"),
  takes=("table", "files", "columns"),
)

"""A table of pictures with the columns image, label and split; others are not looked at.

    image,label,split
    images/a.jpg,happiness,train
    images/b.jpg,Angry,val

The path is relative to the data folder, or absolute; the label is a class name, in any case, or
another spelling that `ferjax.expressions` knows.
"""

import collections
import csv
import functools
import os
import pathlib

from ferjax.data.datasets import tables
from ferjax.data.datasets.face_records import FaceRecord, FaceSource
from ferjax.data.datasets.layout import (
  DataSet,
  Entry,
  Options,
  Reading,
  Release,
  relative_key,
)
from ferjax.data.datasets.records import (
  RecordError,
  check_image_file,
  check_on_bad_record,
  parse_class,
  read_records,
)

COLUMNS = ("image", "label", "split")
SPLITS = ("train", "val", "test")
_FORMAT = "expected comma-separated UTF-8 text whose first line names image, label and split"
_Row = tuple[int, dict[str, str | None]]  # line number, cells by column


class CsvTable(FaceSource):
  """Random access to the pictures of a split.

  Args:
    dir: folder that relative paths start from.
    file: the table, below `dir` or absolute.
    split: rows whose `split` is another are not read.
    class_names: labels are mapped to these.
    on_bad_record: "error", or "skip" to leave bad rows out.

  Raises:
    ValueError: naming file and line: a missing table or column, a label that is not one of
      `class_names`, a missing image, or a split without rows.
  """

  def __init__(
    self,
    dir: str | os.PathLike,
    file: str,
    split: str,
    class_names: tuple[str, ...],
    on_bad_record: str = "error",
  ):
    check_on_bad_record(on_bad_record)
    path = os.path.join(dir, file)
    rows = _read(path)
    chosen = [row for row in rows if _cell(row, "split") == split]
    if not chosen:
      counts = collections.Counter(_cell(row, "split") for row in rows)
      known = ", ".join(f"{name!r} ({count} rows)" for name, count in sorted(counts.items()))
      raise ValueError(f"{path}: no row of split {split!r}; splits there: {known or 'none'}")
    parse = functools.partial(_parse, dir=dir, file=file, class_names=class_names)
    origin = f"{path} ({split})"
    records, skipped = read_records(chosen, parse, origin=origin, on_bad_record=on_bad_record)
    super().__init__(records, class_names, skipped, origin=origin)


def _read(path: str) -> list[_Row]:
  if not os.path.isfile(path):
    raise ValueError(f"table not found: {path} (data.dir and data.csv); {_FORMAT}")
  try:
    with open(path, encoding="utf-8-sig", newline="") as lines:
      reader = csv.DictReader(lines, skipinitialspace=True)
      found = [name.strip() for name in reader.fieldnames or ()]
      for column in COLUMNS:
        if column not in found:
          names = ", ".join(found) or "none"
          raise ValueError(f"{path}: no column {column!r}; columns found: {names}; {_FORMAT}")
      reader.fieldnames = found
      return [(reader.line_num, row) for row in reader]
  except UnicodeDecodeError as error:
    raise ValueError(f"{path}: not UTF-8 text: {error}; {_FORMAT}") from error
  except csv.Error as error:
    raise ValueError(f"{path}: malformed: {error}; {_FORMAT}") from error


def _cell(row: _Row, column: str) -> str:
  """Empty where the line is too short."""
  text = row[1][column]
  return "" if text is None else text.strip()


def _parse(
  row: _Row, *, dir: str | os.PathLike, file: str, class_names: tuple[str, ...]
) -> FaceRecord:
  image, label = _cell(row, "image"), _cell(row, "label")
  if not image:
    raise RecordError(f"{file}:{row[0]}: the column image is empty")
  origin = f"{file}:{row[0]} ({image})"
  index = parse_class(label, class_names, origin)
  path = os.path.join(dir, image)
  check_image_file(path, origin)
  return FaceRecord(origin, path, index)


GROUPS = ("person", "subject", "clip", "group")  # columns that tell who or what is shown


def _read_all(root: pathlib.Path, options: Options) -> Reading:
  """All splits; the first of the columns `GROUPS` that there is gives the groups."""
  reading = Reading()
  parse = functools.partial(_entry, root=root, options=options)
  rows = tables.read_rows(root / options.table, COLUMNS, optional=GROUPS)
  reading.add_all(rows, parse)
  return reading


def _entry(row: tables.Row, *, root: pathlib.Path, options: Options) -> Entry:
  line, cells = row
  chosen: _Row = (line, {**cells})
  record = _parse(chosen, dir=root, file=options.table, class_names=options.class_names)
  if cells["split"] not in SPLITS:
    raise RecordError(
      f"{record.origin}: split {cells['split']!r}; expected one of {', '.join(SPLITS)}"
    )
  group = next((cells[name] for name in GROUPS if cells.get(name)), "")
  key = relative_key(record.path, root)
  return Entry(record.origin, key, record.path, cells["split"], record.label, group=group)


CSV = DataSet(
  name="csv",
  title="csv table",
  terms="your own data",
  request="Write a table with the columns image, label and split, and one of "
  f"{', '.join(GROUPS)} where it is known",
  releases=(
    Release(
      "csv",
      lambda root, options: {options.table: "a table: image, label, split"},
      _read_all,
    ),
  ),
  takes=("table",),
)

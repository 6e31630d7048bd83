"""Comma-separated tables, read row by row."""

import csv
import pathlib
from collections.abc import Iterator, Sequence

from ferjax.data.datasets.layout import LayoutError
from ferjax.data.datasets.records import read_lines

Row = tuple[int, dict[str, str]]  # line number, cells by column


def read_rows(
  path: pathlib.Path, columns: Sequence[str], *, optional: Sequence[str] = ()
) -> Iterator[Row]:
  """The rows of a table whose first line names its columns; short lines end in empty cells.

  Args:
    path: UTF-8 text.
    columns: that must be there, in any order, with others between.
    optional: columns that are read where they are there.

  Raises:
    LayoutError: a missing table or column, or text that is no table.
    RecordError: naming the first line that is not UTF-8.
  """
  if not path.is_file():
    raise LayoutError(f"table not found: {path}; expected the columns {', '.join(columns)}")
  try:
    with open(path, encoding="utf-8-sig", newline="") as lines:
      reader = csv.DictReader(lines, restval="", skipinitialspace=True)
      found = [name.strip() for name in reader.fieldnames or ()]
      missing = [column for column in columns if column not in found]
      if missing:
        raise LayoutError(
          f"{path}:1: no column {', '.join(map(repr, missing))}; columns found: "
          f"{', '.join(found) or 'none'}; expected {', '.join(columns)}"
        )
      reader.fieldnames = found
      read = [*columns, *(name for name in optional if name in found)]
      for row in reader:
        yield reader.line_num, {name: (row[name] or "").strip() for name in read}
  except UnicodeDecodeError as error:
    read_lines(path)  # names the line, which a reader of pieces does not know
    raise LayoutError(f"{path}: not UTF-8 text: {error}") from error
  except csv.Error as error:
    raise LayoutError(f"{path}: malformed: {error}") from error

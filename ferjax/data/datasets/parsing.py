"""Parsers of files, numbers and names for data set readers. Every error names its origin."""

import csv
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ferjax.data.datasets.entries import LayoutError, RecordError
from ferjax.expressions import UNKNOWN, UNLABELLED, index_of, index_of_spelling

TableRow = tuple[int, dict[str, str]]  # line number, cells by column
_MAX_DIGITS = 9  # of an index
# Byte order marks, the longer ones first.
_BYTE_ORDER_MARKS = {
  b"\xef\xbb\xbf": "utf-8-sig",
  b"\xff\xfe\x00\x00": "utf-32",
  b"\x00\x00\xfe\xff": "utf-32",
  b"\xff\xfe": "utf-16",
  b"\xfe\xff": "utf-16",
}


def read_file(path: str | os.PathLike, origin: object, *, hint: str = "") -> bytes:
  """The content of a file that belongs to one record.

  Raises:
    RecordError: it is missing, with `hint`, or cannot be read.
  """
  try:
    return pathlib.Path(path).read_bytes()
  except FileNotFoundError:
    raise RecordError(f"{origin}: file not found: {os.fspath(path)}{hint}") from None
  except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
    raise RecordError(f"{origin}: cannot be read: {error}") from error


def decode_text(content: bytes, path: object) -> str:
  """Decodes UTF-8, or the encoding that a byte order mark indicates.

  Raises:
    RecordError: it cannot be decoded; the message names the first bad line.
  """
  encoding = _encoding(content)
  try:
    return content.decode(encoding)
  except UnicodeDecodeError as error:
    line = 1 + content[: error.start].count(b"\n")
    name = encoding.removesuffix("-sig").upper()
    raise RecordError(f"{path}:{line}: not {name} text; save the file as UTF-8") from error


def _encoding(content: bytes) -> str:
  marks = _BYTE_ORDER_MARKS.items()
  return next((name for mark, name in marks if content.startswith(mark)), "utf-8")


def split_lines(text: str) -> list[tuple[int, str]]:
  """The line numbers and stripped text of non-blank lines."""
  lines = enumerate(text.splitlines(), start=1)
  return [(number, line.strip()) for number, line in lines if line.strip()]


def read_lines(path: pathlib.Path) -> list[tuple[int, str]]:
  """The line numbers and stripped text of non-blank lines of a file.

  Raises:
    RecordError: it cannot be decoded; the message names the first bad line.
  """
  return split_lines(decode_text(path.read_bytes(), path))


def read_rows(
  path: pathlib.Path, columns: Sequence[str], *, optional: Sequence[str] | None = ()
) -> Iterator[TableRow]:
  """The rows of a table whose first line names its columns; missing cells are empty.

  Args:
    path: comma-separated text, in the encodings of `decode_text`.
    columns: required columns, in any order; others may exist.
    optional: columns that are read if they exist; None for all, in the order of the table.

  Raises:
    LayoutError: a missing table or column, or text that is not a table.
    RecordError: it cannot be decoded; the message names the first bad line.
  """
  if not path.is_file():
    raise LayoutError(f"table not found: {path}; expected the columns {', '.join(columns)}")
  with open(path, "rb") as file:
    encoding = _encoding(file.read(4))
  try:
    with open(path, encoding=encoding, newline="") as lines:
      reader = csv.DictReader(lines, restval="", skipinitialspace=True)
      reader.fieldnames = found = [name.strip() for name in reader.fieldnames or ()]
      missing = [column for column in columns if column not in found]
      if missing:
        raise LayoutError(
          f"{path}:1: no column {', '.join(map(repr, missing))}; columns found: "
          f"{', '.join(found) or 'none'}; expected comma-separated text whose first line names "
          f"{', '.join(columns)}"
        )
      read = found if optional is None else [*columns, *(c for c in optional if c in found)]
      for row in reader:
        yield reader.line_num, {name: (row[name] or "").strip() for name in read}
  except UnicodeDecodeError as error:
    decode_text(path.read_bytes(), path)  # raises the error that names the line
    raise LayoutError(f"{path}: not {encoding} text: {error}") from error
  except csv.Error as error:
    raise LayoutError(f"{path}: malformed: {error}") from error


def parse_class(text: str, class_names: tuple[str, ...], origin: str) -> int:
  """The index of a class name; a RecordError names its origin and the known names."""
  try:
    return index_of_spelling(text, class_names)
  except ValueError:
    raise RecordError(
      f"{origin}: class {text!r} is not one of {', '.join(class_names)} (data.class_names, or "
      "--class-names of `ferjax data`)"
    ) from None


def parse_optional_class(text: str, class_names: tuple[str, ...], origin: str) -> int:
  """As `parse_class`; `UNLABELLED` for "unknown" in any case, unless it is one of the classes."""
  if any(name.casefold() == UNKNOWN for name in class_names):
    return parse_class(text, class_names, origin)
  index = parse_class(text, (*class_names, UNKNOWN), origin)
  return UNLABELLED if index == len(class_names) else index


def parse_optional_index(text: str, count: int) -> int | None:
  """The class index below `count`, or `UNLABELLED`, that digits denote; None for other text."""
  if text == str(UNLABELLED):
    return UNLABELLED
  number = whole_number(text)
  return None if number is None or number >= count else number


def code_index(
  code: str | int, codes: Mapping[int, str], class_names: tuple[str, ...], origin: str
) -> int:
  """The class index of a data set's code.

  Raises:
    RecordError: the code is unknown.
  """
  number = whole_number(str(code))
  if number is None or number not in codes:
    known = ", ".join(f"{number} {name}" for number, name in codes.items())
    raise RecordError(f"{origin}: code {str(code)!r} is not an expression; expected one of {known}")
  return index_of(codes[number], class_names)


def whole_number(text: str) -> int | None:
  """A non-negative integer written in digits, such as a class index; None for other text."""
  text = text.strip()
  return int(text) if text.isdecimal() and len(text) <= _MAX_DIGITS else None


def parse_number(text: str | None, what: str, origin: str) -> float:
  """Parses a finite number.

  Raises:
    RecordError: it is not a finite number.
  """
  try:
    number = float("" if text is None else text)
  except ValueError:
    number = float("nan")
  if not np.isfinite(number):
    raise RecordError(f"{origin}: {what} is {text!r}; expected a number")
  return number


def check_box(box: Sequence[float], origin: str) -> None:
  """Raises a RecordError for a box without area."""
  x1, y1, x2, y2 = box
  if not (x1 < x2 and y1 < y2):
    raise RecordError(
      f"{origin}: box {show_box(box)} has no area; expected x1 < x2 and y1 < y2 "
      "(corners in pixels, not centre and size)"
    )


def show_box(box: Sequence[float]) -> str:
  """A box as text for messages."""
  return "(" + ", ".join(f"{number:g}" for number in box) + ")"


def find_image(
  candidates: Sequence[str | os.PathLike],
  origin: str,
  *,
  expected: str | os.PathLike = "",
  root: str | os.PathLike | None = None,
) -> str:
  """The first of the paths that is a file.

  Args:
    candidates: the possible paths.
    origin: of the record, for messages.
    expected: the path in the message if none is a file; the first if empty.
    root: the folder that the path must not leave, except through a link; None for any path.

  Raises:
    RecordError: none is a file, or it is outside the folder.
  """
  for path in candidates:
    if os.path.isfile(path):
      if root is not None:
        check_inside(path, root, origin)
      return os.fspath(path)
  raise RecordError(f"{origin}: image file not found: {os.fspath(expected or candidates[0])}")


def check_image_file(
  path: str | os.PathLike, origin: str, *, root: str | os.PathLike | None = None
) -> None:
  """Raises a RecordError for a path that is not a file, or outside `root` if it is given."""
  find_image([path], origin, root=root)


def check_inside(path: str | os.PathLike, root: str | os.PathLike, origin: str) -> None:
  """Raises a RecordError for a path that leaves the folder of the set, except through a link.

  Otherwise, an annotation of unknown origin could name any file of the user.
  """
  if not pathlib.PurePath(os.path.abspath(path)).is_relative_to(os.path.abspath(root)):
    raise RecordError(
      f"{origin}: {os.fspath(path)} is outside the folder of the data set; move or link the file "
      f"into {os.fspath(root)}"
    )


def relative_key(path: str | os.PathLike, root: pathlib.Path) -> str:
  """A path relative to the folder of the set, for `Entry.key`."""
  return os.path.relpath(path, root).replace(os.sep, "/")

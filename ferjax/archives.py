"""Zip archives that anyone can have written."""

import lzma
import os
import struct
import tokenize
import zipfile
import zlib

# A small archive can contain terabytes. Weights and programs hardly shrink when compressed.
_LARGEST_RATIO = 100
_SMALL = 2**26  # bytes of content that are never too much

# Raised by `zipfile`, and by NumPy for the arrays in an archive, if it is damaged.
DAMAGED_ARCHIVE = (
  zipfile.BadZipFile,
  zlib.error,
  lzma.LZMAError,
  struct.error,
  tokenize.TokenError,
  OSError,
  EOFError,
  SyntaxError,
  ValueError,
  TypeError,
  LookupError,
  ArithmeticError,
  AttributeError,
  AssertionError,
  RuntimeError,
  MemoryError,
)


def check_archive(path: str | os.PathLike) -> None:
  """Checks that a file is a zip archive, and that its content fits its size.

  Raises:
    ValueError: it is not; the message does not name the file.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      content = sum(member.file_size for member in archive.infolist())
  except DAMAGED_ARCHIVE as error:
    raise ValueError(f"it is no complete zip archive ({error})") from error
  size = os.path.getsize(path)
  if content > _SMALL + _LARGEST_RATIO * size:
    raise ValueError(
      f"it has {content:,} bytes of content in {size:,} bytes; weights and programs do not shrink "
      "as much"
    )

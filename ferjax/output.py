"""Output of the programs: text on the terminal, and files in an output folder."""

import contextlib
import io
import os
import pathlib
import sys
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from typing import BinaryIO, TextIO


def escape_unencodable_output() -> None:
  r"""Makes stdout and stderr escape what they cannot encode as `\xe9`, `\u4e2d` or `\udce9`.

  The last form is byte 0xE9 of a file name that is not UTF-8, as in all written files. Call this
  once, before anything is printed.
  """
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):  # tests and notebooks replace the streams
      stream.reconfigure(errors="backslashreplace")


def escaped(text: str) -> str:
  r"""Escapes bytes of file names that are not UTF-8: `\udce9` stands for byte 0xE9."""
  return text.encode("utf-8", "backslashreplace").decode("utf-8")


def one_line(text: str) -> str:
  r"""Escapes line breaks and control characters, which file names and file contents may have."""
  if text.isprintable():
    return text
  return "".join(
    x.encode("unicode_escape").decode() if unicodedata.category(x) in _CONTROLS else x for x in text
  )


_CONTROLS = ("Cc", "Zl", "Zp")  # Unicode's control characters, and its separators of lines


def check_writable(folder: str | os.PathLike, files: Iterable[str] = ()) -> None:
  """Checks that results can be written, before they are computed; leaves nothing behind.

  Args:
    folder: need not exist; nor need its parents.
    files: names of the files to be written or replaced in it.

  Raises:
    ValueError: the name of the folder is empty.
    NotADirectoryError: the folder is a file.
    OSError: it cannot be created or written, or a file's name is taken by a folder.
  """
  if not os.fspath(folder):
    raise ValueError("the folder for the results is ''; expected a name, or . for this folder")
  folder = pathlib.Path(folder)
  made: list[pathlib.Path] = []
  try:
    if folder.exists() and not folder.is_dir():
      raise NotADirectoryError(f"{folder}: is a file; expected a folder for the results")
    made += [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
    for name in files:
      if (folder / name).is_dir():
        raise IsADirectoryError(f"{folder / name}: is a folder; expected to write a file there")
  except OSError as error:
    if error.errno is None:  # raised above
      raise
    raise OSError(
      f"{folder}: results cannot be written there ({error.strerror}); name another folder"
    ) from error
  finally:
    for path in made:
      with contextlib.suppress(OSError):
        path.rmdir()


def results_folder(folder: str | os.PathLike) -> pathlib.Path:
  """Creates a folder for results; errors as for `check_writable`."""
  check_writable(folder)
  path = pathlib.Path(folder)
  path.mkdir(parents=True, exist_ok=True)
  return path


@contextlib.contextmanager
def atomic_writer(path: pathlib.Path) -> Iterator[TextIO]:
  """Opens a UTF-8 text file that replaces `path` only after it is written completely.

  Names that are not UTF-8 are `escaped`. `json` escapes them itself, and Python's `json` restores
  them when it reads the file.
  """
  with (
    _replacing(path) as partial,
    partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
  ):
    yield file


@contextlib.contextmanager
def atomic_binary_writer(path: pathlib.Path) -> Iterator[BinaryIO]:
  """Opens a file of bytes that replaces `path` only after it is written completely."""
  with _replacing(path) as partial, partial.open("wb") as file:
    yield file


@contextlib.contextmanager
def _replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A temporary name, always the same, so that a killed program leaves one file at most."""
  partial = path.with_name(f".{path.name}.partial")
  try:
    yield partial
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_path(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A path with the same name, whose file becomes `path` if the block ends without an error.

  After an error, neither file is there, or the earlier `path` is unchanged.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(prefix=".partial.", dir=path.parent) as folder:
    partial = pathlib.Path(folder) / path.name
    yield partial
    os.replace(partial, path)

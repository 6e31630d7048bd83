"""What programs write: text on the terminal, and files in a folder for results."""

import contextlib
import io
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import TextIO


def escape_what_terminals_cannot_show() -> None:
  r"""Makes stdout and stderr replace what they cannot encode by `\xe9`, `\u4e2d` or `\udce9`.

  The last is byte 0xE9 of a file name that is not UTF-8, as in all files that are written. Call it
  once, before anything is printed.
  """
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):  # not what tests and notebooks put in their place
      stream.reconfigure(errors="backslashreplace")


def escaped(text: str) -> str:
  r"""Text without bytes of file names that are not UTF-8: `\udce9` stands for byte 0xE9."""
  return text.encode("utf-8", "backslashreplace").decode("utf-8")


def check_writable(folder: str | os.PathLike, files: Iterable[str] = ()) -> None:
  """Tries whether results can be written, before the work for them; leaves nothing behind.

  Args:
    folder: is made later, with its parents, if it does not exist.
    files: names of the files that are to be written or replaced in it.

  Raises:
    NotADirectoryError: the folder is a file.
    OSError: it cannot be made or written, or a folder stands where a file is to be.
  """
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
    if error.errno is None:  # one of ours
      raise
    raise OSError(
      f"{folder}: results cannot be written there ({error.strerror}); name another folder"
    ) from error
  finally:
    for path in made:
      with contextlib.suppress(OSError):
        path.rmdir()


def results_folder(folder: str | os.PathLike) -> pathlib.Path:
  """Makes a folder for results; the errors are those of `check_writable`."""
  check_writable(folder)
  path = pathlib.Path(folder)
  path.mkdir(parents=True, exist_ok=True)
  return path


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[TextIO]:
  """A text file in UTF-8 that takes its place only once it is written.

  What it holds of names that are not UTF-8 is `escaped`. `json` does so by itself, and what reads
  it in Python gets the name back.
  """
  partial = path.with_name(f".{path.name}.partial")
  try:
    with partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
      yield file
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)

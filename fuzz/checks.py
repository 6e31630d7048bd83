"""What every target promises: a right answer, or an error for users; and little memory."""

import atexit
import contextlib
import functools
import pathlib
import shutil
import tempfile
import traceback
from collections.abc import Iterator

import ferjax

_PACKAGE = str(pathlib.Path(ferjax.__file__).parent)
# The errors that the commands print without a traceback.
USER_ERRORS = (ValueError, OSError, ImportError)
_STATUS, _REFERENCES = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")


@functools.cache
def folder() -> pathlib.Path:
  """A folder for the files of this process, which is removed at its end."""
  path = pathlib.Path(tempfile.mkdtemp(prefix="ferjax-fuzz-"))
  atexit.register(shutil.rmtree, path, ignore_errors=True)
  return path


@contextlib.contextmanager
def user_errors(*, lines: int = 1) -> Iterator[None]:
  """Passes over errors for users; others, and those of a library, are failures.

  Args:
    lines: the most that a message may have.
  """
  try:
    yield
  except USER_ERRORS as error:
    *_, frame = traceback.extract_tb(error.__traceback__)
    is_own = frame.filename.startswith(_PACKAGE)
    if not is_own and not (isinstance(error, OSError) and error.filename):
      raise AssertionError(f"the error of a library reached the user: {error!r}") from error
    text = str(error)
    if len(text.splitlines()) > lines or not text.strip():
      raise AssertionError(f"a message of more than {lines} lines, or none: {text!r}") from error


@contextlib.contextmanager
def memory_below(limit: int) -> Iterator[None]:
  """Fails if the block needs more than `limit` bytes besides what the process has; on Linux."""
  before = _reset_peak()
  yield
  if before is not None:
    growth = _status("VmHWM") - before
    if growth > limit:
      raise AssertionError(f"{growth:,} bytes of memory are above the limit of {limit:,}")


def _reset_peak() -> int | None:
  """The resident memory, from which the peak is counted; None where this is unknown."""
  try:
    _REFERENCES.write_text("5")
  except OSError:
    return None
  return _status("VmRSS")


def _status(field: str) -> int:
  """A field in bytes."""
  lines = _STATUS.read_text().splitlines()
  return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])

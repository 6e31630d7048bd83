"""The results of a run, one line of JSON for each image, from which an interrupted run goes on."""

import contextlib
import importlib
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NoReturn

from ferjax.output import atomic_writer

Record = dict[str, Any]
MARKER = ".unfinished.json"  # instead of the suffix of a journal


class Journal:
  """A file of JSON lines; line i is the result of image i.

  Each line is in the file as soon as it is added, so that another program can read the results of
  a run that is not finished. A second file, `<name>.unfinished.json`, describes the run, and is
  removed by `finish`. A run that is killed leaves both, and the same run goes on after the last
  whole line. Only one process at a time can open a journal.

  Attributes:
    path: of the file.
    done: the number of lines.
  """

  def __init__(
    self,
    path: pathlib.Path,
    run: Mapping[str, Any],
    images: Sequence[str],
    *,
    restart: bool = False,
  ):
    """Opens the journal of an interrupted run, or begins a new one, which replaces earlier results.

    Args:
      path: of the file.
      run: everything besides the images on which the results depend, as JSON.
      images: the `image` of each record, in order.
      restart: whether to replace the results of an interrupted run.

    Raises:
      ValueError: an interrupted run had other settings or images, or another process is writing.
      OSError: a file cannot be written.
    """
    self.path = path
    self.done = 0
    self._marker = path.with_suffix(MARKER)
    self._run = json.loads(json.dumps(run))  # as after reading: lists instead of tuples
    self._file = path.open("a+b")
    try:
      _lock(self._file, path)
      if restart or not self._resume(images):
        self._file.truncate(0)
        with atomic_writer(self._marker) as file:
          json.dump(self._run, file, indent=2)
    except BaseException:
      self._file.close()
      raise

  def add(self, record: Record) -> None:
    """Adds the result of the next image."""
    self._file.write(json.dumps(record).encode() + b"\n")
    self._file.flush()
    self.done += 1

  def records(self) -> Iterator[Record]:
    """The results so far, read from the file one by one."""
    return read_records(self.path)

  def close(self, *, finished: bool) -> None:
    """Closes the file. A finished run cannot be continued."""
    self._file.close()
    if finished:
      self._marker.unlink(missing_ok=True)

  def _resume(self, images: Sequence[str]) -> bool:
    """Whether there are results of an interrupted run; cuts off the line that a kill left."""
    if not self._marker.exists():
      return False
    end = 0
    self._file.seek(0)
    for line in self._file:
      record = _parse(line)
      if record is None:
        break
      self._check_image(record["image"], images)
      self.done += 1
      end += len(line)
    if not self.done:
      return False
    self._check_run()
    self._file.truncate(end)
    return True

  def _check_image(self, image: object, images: Sequence[str]) -> None:
    expected = images[self.done] if self.done < len(images) else None
    if image != expected:
      now = "not given" if expected is None else expected
      self._refuse(f"its image {self.done + 1} was {image}, and is {now} now")

  def _check_run(self) -> None:
    try:
      earlier = json.loads(self._marker.read_bytes())
    except (ValueError, RecursionError) as error:
      self._refuse(f"{self._marker} is damaged ({error})")
    if not isinstance(earlier, dict):
      self._refuse(f"{self._marker} is damaged (no object)")
    for field in {**earlier, **self._run}:
      old, new = earlier.get(field), self._run.get(field)
      if old != new:
        self._refuse(f"its {field} was {old}, and is {new} now")

  def _refuse(self, difference: str) -> NoReturn:
    raise ValueError(
      f"{self.path} has results of an interrupted run, and {difference}; repeat its command to go "
      "on, replace the results with --restart, or name another --output"
    )


def read_records(path: pathlib.Path) -> Iterator[Record]:
  """The results in a file, read one by one."""
  with path.open("rb") as file:
    for line in file:
      yield json.loads(line)


def _parse(line: bytes) -> Record | None:
  """The record of a line; None if it was not written completely."""
  with contextlib.suppress(ValueError, RecursionError):
    record = json.loads(line)
    if line.endswith(b"\n") and isinstance(record, dict) and "image" in record:
      return record
  return None


def _lock(file: BinaryIO, path: pathlib.Path) -> None:
  """Locks a file until it is closed, where the system can."""
  try:
    fcntl = importlib.import_module("fcntl")  # Windows has none
  except ImportError:
    return
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    raise ValueError(
      f"{path} is being written by another run; wait for it, or name another --output"
    ) from None
  except OSError:  # a file system without locks
    return

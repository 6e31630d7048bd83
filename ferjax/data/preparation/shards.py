"""Finished shards of an interrupted preparation, which the next run reuses.

A shard is written as `<name>.writing`. After it is closed, its metadata (`<name>.json`) is written,
and only then is it renamed to `<name>`: a shard with its final name is complete. The folder belongs
to one list of records, identified by a fingerprint; if the fingerprint changes, it is emptied.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from etils import epath

from ferjax.data.datasets.entries import Entry, Pixels

_FINGERPRINT = "fingerprint.txt"
Notes = dict[str, Any]


class ShardStore:
  """The folder of finished shards.

  Args:
    folder: created if missing.
    fingerprint: of all records; shards with another fingerprint are deleted.
  """

  def __init__(self, folder: epath.Path, fingerprint: str):
    self._folder = folder
    mark = folder / _FINGERPRINT
    if mark.exists() and mark.read_text() == fingerprint:
      return  # without writing it again, while another process reads it
    if folder.exists():
      mark.unlink(missing_ok=True)  # first: a folder that is emptied only in part is no store
      folder.rmtree()
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(fingerprint)

  def notes(self, name: str) -> Notes | None:
    """The metadata of a finished shard; None if it is not finished."""
    if not (self._folder / name).exists():
      return None
    return json.loads((self._folder / f"{name}.json").read_text())

  def write(self, name: str, write: Callable[[str], Notes]) -> Notes:
    """Calls `write` with the path of a shard; `write` returns its metadata."""
    partial = self._folder / f"{name}.writing"
    notes = write(os.fspath(partial))
    (self._folder / f"{name}.json").write_text(json.dumps(notes))
    partial.rename(self._folder / name)
    return notes

  def move(self, name: str, folder: epath.Path) -> int:
    """Moves a finished shard; returns its size in bytes."""
    target = folder / name
    (self._folder / name).rename(target)
    return target.stat().length

  def remove(self) -> None:
    self._folder.rmtree()


def fingerprint(entries: Iterable[Entry], settings: str) -> str:
  """A hash of all annotations, the sizes and dates of image files, and the settings."""
  digest = hashlib.sha256(settings.encode())
  for entry in entries:
    if isinstance(entry.image, Pixels):
      state = hashlib.sha256(entry.image.values).hexdigest()
    else:
      status = os.stat(entry.image)
      state = f"{status.st_size} {status.st_mtime_ns}"
    fields = (entry.origin, entry.key, entry.split, entry.label, entry.boxes, entry.crop)
    fields = (*fields, entry.relative, entry.group, entry.size, entry.votes, state)
    if entry.attributes:  # so that sets without any keep their fingerprint
      fields = (*fields, entry.attributes)
    digest.update(repr(fields).encode())
  return digest.hexdigest()

"""Damage to the files of a checkpoint."""

import functools
import pathlib

import grain
import numpy as np

from ferjax.checkpoint import Checkpoints, open_checkpoint
from fuzz.checks import folder, user_errors
from fuzz.networks import CHECKPOINT

_PARTS = 256
_KERNEL = np.arange(600, dtype=np.float32).reshape(20, 30)
_VARIABLES = {"params": {"head": {"kernel": _KERNEL, "bias": np.ones(3, np.float32)}}}


def checkpoint_files(data: bytes) -> None:
  """A checkpoint with a change in one file.

  The first byte chooses the file, the second the place, in 256ths of its length. The rest is
  written over what is there; without a rest, the file ends at the place.
  """
  files = _files()
  number, part, rest = data[0] if data else 0, data[1] if len(data) > 1 else 0, data[2:]
  path, content = files[number % len(files)]
  place = len(content) * part // _PARTS
  path.write_bytes(content[:place] + rest + (content[place + len(rest) :] if rest else b""))
  try:
    with user_errors():
      open_checkpoint(folder() / "run").variables()
  finally:
    path.write_bytes(content)


@functools.cache
def _files() -> list[tuple[pathlib.Path, bytes]]:
  """The files of a small checkpoint; names that differ from run to run do not change the order."""
  checkpoints = Checkpoints(folder() / "run", keep=1, metric="accuracy")
  iterator = iter(grain.MapDataset.range(4).to_iter_dataset())
  values, meta = {"variables": _VARIABLES, "train": {"params": {}}}, CHECKPOINT
  checkpoints.save(5, **values, iterator=iterator, meta=meta, metrics={"accuracy": 0.5})
  checkpoints.close()
  iterator.close()
  paths = [
    path
    for item in ("meta", "metrics", "variables")
    for path in (folder() / "run" / "checkpoints" / "5" / item).rglob("*")
    if path.is_file()
  ]
  found = [(path, path.read_bytes()) for path in paths]
  return sorted(found, key=lambda file: (str(file[0].parent), len(file[1])))


def seeds() -> dict[str, bytes]:
  """Changes of the first files: their beginning, their middle, and their end."""
  return {
    "checkpoint_files": b"\0\0{",
    "checkpoint_files-second": b"\1\x80\0\0",
    "checkpoint_files-third": b"\2\x40[]",
    "checkpoint_files-fourth": b"\3\xf0",
    "checkpoint_files-fifth": b"\4\x20\xff\xff\xff",
    "checkpoint_files-empty": b"\5\0",
  }

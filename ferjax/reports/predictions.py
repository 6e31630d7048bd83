"""The predictions of one evaluation as a small file, for reports and comparisons."""

import dataclasses
import hashlib
import json
import os
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt64

from ferjax.output import atomic_binary_writer
from ferjax.tasks.classification.metrics import ClassificationMetrics
from ferjax.tasks.detection.metrics import DetectionMetrics

FILE = "predictions.npz"
_FORMAT = 1
_KINDS: Mapping[str, type[ClassificationMetrics] | type[DetectionMetrics]] = {
  "classification": ClassificationMetrics,
  "detection": DetectionMetrics,
}
# The network computes these in float32.
_TYPES = {"probability": np.float32, "scores": np.float32, "boxes": np.float32, "labels": np.int32}


@runtime_checkable
class Records(Protocol):
  """The evaluated records; every source of `ferjax.data` has this interface."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> Any:
    """Record `index`, with its `image`: u8[h w 3], upright RGB."""
    ...

  def origin(self, index: int, /) -> str:
    """The origin of record `index`, for messages: "list.txt:12 (images/a.jpg)"."""
    ...


@dataclasses.dataclass(frozen=True)
class Predictions:
  """The predictions of a checkpoint on evaluation records.

  Attributes:
    metrics: with the predictions and the truth.
    values: the metrics computed from them, by name.
    records: identity of each record, in the order of their indices, whatever folder they are in.
    checkpoint: name of the weights.
    step: of the checkpoint.
    epoch: of the checkpoint.
    split: "val" or "test".
    selection: the note for a checkpoint that was selected on test data; else "".
  """

  metrics: ClassificationMetrics | DetectionMetrics
  values: Mapping[str, float]
  records: UInt64[np.ndarray, "n"]
  checkpoint: str
  step: int
  epoch: float
  split: str
  selection: str

  @property
  def task(self) -> str:
    return next(name for name, kind in _KINDS.items() if isinstance(self.metrics, kind))

  def write(self, path: str | os.PathLike) -> None:
    """Writes the file, atomically; OSError if that fails."""
    texts = {
      "format": _FORMAT,
      "task": self.task,
      "class_names": self.metrics.class_names,
      "values": dict(self.values),
      "checkpoint": self.checkpoint,
      "step": self.step,
      "epoch": self.epoch,
      "split": self.split,
      "selection": self.selection,
    }
    arrays = {
      name: array.astype(_TYPES.get(name, array.dtype))
      for name, array in self.metrics.arrays().items()
    }
    with atomic_binary_writer(pathlib.Path(path)) as file:
      np.savez_compressed(
        file, allow_pickle=False, meta=json.dumps(texts), records=self.records, **arrays
      )


def has_predictions(metrics: Any) -> bool:
  """Whether these metrics, such as those of a task of another package, can be written."""
  return isinstance(metrics, tuple(_KINDS.values()))


def read_predictions(path: str | os.PathLike) -> Predictions:
  """The inverse of `Predictions.write`.

  Raises:
    FileNotFoundError: there is no file.
    ValueError: it is damaged, or from another version; the message names it.
  """
  try:
    # Opened here because NumPy leaves a damaged file open.
    with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
    texts = json.loads(str(arrays["meta"]))
    if texts["format"] != _FORMAT:
      raise ValueError(f"format {texts['format']}, expected {_FORMAT}")
    return Predictions(
      _KINDS[texts["task"]].from_arrays(tuple(texts["class_names"]), arrays),
      {name: float(x) for name, x in texts["values"].items()},
      arrays["records"],
      *(texts[name] for name in ("checkpoint", "step", "epoch", "split", "selection")),
    )
  except (ValueError, TypeError, KeyError, AttributeError, EOFError, zipfile.BadZipFile) as error:
    raise ValueError(
      f"{os.fspath(path)} cannot be read ({error}); evaluate again to replace it: ferjax evaluate"
    ) from error


def record_ids(source: Records, indices: Sequence[int] | np.ndarray) -> UInt64[np.ndarray, "n"]:
  """A number for each record that depends only on its origin, which no folder is part of."""
  return np.array([_identity(source.origin(int(i))) for i in indices], np.uint64)


def _identity(origin: str) -> int:
  digest = hashlib.blake2b(origin.encode("utf-8", "surrogatepass"), digest_size=8)
  return int.from_bytes(digest.digest(), "little")

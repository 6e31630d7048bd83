"""Labelled pictures of one face each, as a random-access source for classifiers."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from absl import logging
from jaxtyping import Float

from ferjax.data.classification.augment import FaceExample
from ferjax.data.image import decode

_TOLERANCE = 1e-3  # of the sum of a distribution


@dataclasses.dataclass(frozen=True)
class FaceRecord:
  """`label` is a class index, or a distribution over the classes."""

  origin: str
  path: str
  label: int | tuple[float, ...]


class FaceSource:
  """A source of `FaceRecord`s.

  Args:
    records: in the order of the data set.
    class_names: in the order of the labels.
    skipped: records that were left out, with the reason.
    origin: the folder or table that the records come from; their numbers are logged under it.

  Raises:
    ValueError: naming the record: a class beyond `class_names`, or numbers that are no
      distribution over them.
  """

  task = "classification"

  def __init__(
    self,
    records: Sequence[FaceRecord],
    class_names: tuple[str, ...],
    skipped: list[str],
    *,
    origin: str,
  ):
    self.class_names = tuple(class_names)
    self.skipped = skipped
    self._records = list(records)
    self._labels = np.zeros((len(records), len(class_names)), np.float32)
    for row, record in zip(self._labels, self._records, strict=True):
      row[:] = _distribution(record, len(class_names))
    counts = class_counts(self._labels)
    logging.info(
      "%s: %d images: %s",
      origin,
      len(records),
      ", ".join(f"{name} {n}" for name, n in zip(class_names, counts, strict=True)),
    )

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> FaceExample:
    record = self._records[index]
    return {"image": decode(record.path, origin=record.origin), "label": self._labels[index].copy()}

  def origin(self, index: int) -> str:
    return self._records[index].origin

  @property
  def labels(self) -> Float[np.ndarray, "n k"]:
    """Of all records, in order; nothing is decoded."""
    return self._labels


def class_counts(labels: Float[np.ndarray, "n k"]) -> list[int]:
  """The number of records whose most probable class is each of the k."""
  if len(labels) == 0:
    return [0] * labels.shape[1]
  return np.bincount(labels.argmax(1), minlength=labels.shape[1]).tolist()


def _distribution(record: FaceRecord, num_classes: int) -> Float[np.ndarray, "k"]:
  if isinstance(record.label, int):
    if not 0 <= record.label < num_classes:
      raise ValueError(f"{record.origin}: class {record.label}; expected 0..{num_classes - 1}")
    return np.eye(num_classes, dtype=np.float32)[record.label]
  label = np.array(record.label, np.float32)
  is_one = label.shape == (num_classes,) and abs(label.sum() - 1) <= _TOLERANCE
  if not is_one or label.min() < 0:
    raise ValueError(
      f"{record.origin}: label {record.label}; expected {num_classes} probabilities that sum to 1"
    )
  return label

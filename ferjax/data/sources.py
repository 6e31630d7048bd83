"""Random access to training and evaluation examples, decoded on access.

Sources of data sets as released are defined here, sources of the records that `ferjax data prepare`
wrote in `prepared`. `loading.load_source` opens the source that a config names.
"""

import collections
import dataclasses
import functools
import pickle
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from absl import logging
from jaxtyping import Float

from ferjax.data.classification.augment import FaceExample
from ferjax.data.datasets.base import OVERHANG
from ferjax.data.datasets.entries import Entry, RecordError
from ferjax.data.detection.augment import Example
from ferjax.data.examples import Loaded, load
from ferjax.data.image import ImageError

ON_BAD_RECORD = ("error", "skip")


@runtime_checkable
class Source(Protocol):
  """Random access to the examples of a data set; can be pickled."""

  class_names: tuple[str, ...]
  skipped: list[str]  # records left out on construction, each with the reason

  @property
  def task(self) -> str:
    """The task: "detection" or "classification"."""
    ...

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> Any:
    """The decoded example.

    For detection an `Example` with boxes in xyxy pixels of the upright image, clipped to it; for
    classification a `FaceExample`.

    Raises:
      ImageError: the image cannot be read.
      RecordError: the annotation contradicts the image.
    """
    ...

  def origin(self, index: int, /) -> str:
    """The origin of record `index`, for messages: "list.txt:12 (images/a.jpg)"."""
    ...


@runtime_checkable
class LabelledSource(Source, Protocol):
  """A source for classification."""

  @property
  def labels(self) -> Float[np.ndarray, "n k"]:
    """Class distributions of all records, in order; decodes nothing."""
    ...


@runtime_checkable
class AttributedSource(Source, Protocol):
  """A source whose records have attributes, such as the age of a face."""

  @property
  def attributes(self) -> Mapping[str, Sequence[str]]:
    """Column -> the value of each record, in order; "" if unknown. Decodes nothing."""
    ...


def attributes_of(source: Source, columns: Sequence[str] = ()) -> dict[str, Sequence[str]]:
  """The attributes of the records.

  Args:
    source: the records.
    columns: the wanted ones, in this order; () for all that there are, or none.

  Raises:
    ValueError: a wanted column does not exist.
  """
  known = source.attributes if isinstance(source, AttributedSource) else {}
  for name in columns:
    if name not in known:
      raise ValueError(
        f"data.group_columns names {name!r}, but the records have "
        f"{'only ' + ', '.join(known) if known else 'no attributes'}; a table (source csv) has any "
        "column; a prepared set has those that were there when it was prepared: for a table, "
        "prepare it again with --columns"
      )
  return {name: known[name] for name in columns or known}


@dataclasses.dataclass(frozen=True)
class Opening:
  """How the image of an entry is opened; see `ferjax.data.examples.load`."""

  overhang: float = OVERHANG
  margin: float = 0.0


_DEFAULT_OPENING = Opening()


class EntrySource:
  """The entries of a data set as released; base of `ReleasedFaces` and `ReleasedDetection`.

  Args:
    entries: in the order of the data set.
    class_names: in the order of the labels.
    skipped: records that were left out, with the reason.
    opening: how the images are opened.
  """

  task: str

  def __init__(
    self,
    entries: Sequence[Entry],
    class_names: Sequence[str],
    skipped: Sequence[str] = (),
    opening: Opening = _DEFAULT_OPENING,
  ):
    self.class_names = tuple(class_names)
    self.skipped = list(skipped)
    self._entries = _PackedEntries(entries)
    self._most_boxes = max((len(entry.boxes or ()) for entry in entries), default=0)
    self._opening = opening
    names = [name for name, _ in entries[0].attributes] if entries else []
    values = [dict(entry.attributes) for entry in entries] if names else []
    self.attributes = {name: [x[name] for x in values] for name in names}

  def __len__(self) -> int:
    return len(self._entries)

  def origin(self, index: int) -> str:
    """See `Source.origin`."""
    return self._entries[index].origin

  def _load(self, index: int) -> tuple[Entry, Loaded]:
    entry = self._entries[index]
    opening = self._opening
    return entry, load(entry, overhang=opening.overhang, margin=opening.margin)


class ReleasedFaces(EntrySource):
  """Faces with their label distributions.

  Raises:
    ValueError: a class beyond `class_names`, or numbers that are not a distribution over them; the
      message names the entry.
  """

  task = "classification"

  def __init__(
    self,
    entries: Sequence[Entry],
    class_names: Sequence[str],
    skipped: Sequence[str] = (),
    opening: Opening = _DEFAULT_OPENING,
  ):
    super().__init__(entries, class_names, skipped, opening)
    self._labels = np.zeros((len(entries), len(self.class_names)), np.float32)
    for row, entry in zip(self._labels, entries, strict=True):
      row[:] = entry.distribution(len(self.class_names))

  def __getitem__(self, index: int) -> FaceExample:
    _, loaded = self._load(index)
    return {"image": loaded.image, "label": self._labels[index].copy()}

  @property
  def labels(self) -> Float[np.ndarray, "n k"]:
    """Labels of all records, in order; decodes nothing."""
    return self._labels


class ReleasedDetection(EntrySource):
  """Photographs with boxes, clipped to the image.

  `labelled_boxes` is the number of boxes whose class is known, `box_counts` that of each class.
  """

  task = "detection"

  def __init__(
    self,
    entries: Sequence[Entry],
    class_names: Sequence[str],
    skipped: Sequence[str] = (),
    opening: Opening = _DEFAULT_OPENING,
  ):
    super().__init__(entries, class_names, skipped, opening)
    self.box_counts = count_boxes(entries, len(self.class_names))
    self.labelled_boxes = sum(self.box_counts)

  def __getitem__(self, index: int) -> Example:
    entry, loaded = self._load(index)
    label = np.array(entry.classes, np.int32)
    return {"image": loaded.image, "boxes": loaded.boxes, "label": label}

  @property
  def max_boxes(self) -> int:
    """The maximum number of boxes per photograph."""
    return self._most_boxes


class _PackedEntries:
  """Entries in one array: far smaller than the objects, and cheap to pass to workers."""

  def __init__(self, entries: Sequence[Entry]):
    packed = [pickle.dumps(entry, pickle.HIGHEST_PROTOCOL) for entry in entries]
    self._ends = np.cumsum([0, *map(len, packed)])
    self._bytes = np.frombuffer(b"".join(packed), np.uint8)

  def __len__(self) -> int:
    return len(self._ends) - 1

  def __getitem__(self, index: int) -> Entry:
    if not -len(self) <= index < len(self):
      raise IndexError(f"record {index} of {len(self)}")
    index %= len(self)
    packed = self._bytes[self._ends[index] : self._ends[index + 1]]
    return pickle.loads(packed.tobytes())  # noqa: S301 (packed above, never from a file)


def count_boxes(entries: Iterable[Entry], num_classes: int) -> list[int]:
  """For each class, the number of its boxes."""
  counts = collections.Counter(c for entry in entries if entry.boxes for c in entry.classes)
  return [counts[c] for c in range(num_classes)]


def class_counts(labels: Float[np.ndarray, "n k"]) -> list[int]:
  """For each of the k classes, the number of records whose most probable class it is."""
  if len(labels) == 0:
    return [0] * labels.shape[1]
  return np.bincount(labels.argmax(1), minlength=labels.shape[1]).tolist()


def load_example(source: Source, index: int, on_bad_record: str) -> Any:
  """The example, or None if it is bad and `on_bad_record` is "skip"."""
  try:
    return source[index]
  except (ImageError, RecordError) as error:
    if on_bad_record != "skip":
      raise
    _warn_once(f"skipped: {error}")
    return None


@functools.cache
def _warn_once(message: str) -> None:
  """A bad record recurs in every epoch and evaluation; it is logged once per process."""
  logging.warning("%s", message)


def check_on_bad_record(value: str) -> None:
  """Raises a ValueError for a value that is not in `ON_BAD_RECORD`."""
  if value not in ON_BAD_RECORD:
    raise ValueError(f"unknown on_bad_record {value!r}; known: {', '.join(ON_BAD_RECORD)}")

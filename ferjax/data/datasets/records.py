"""Annotated image files as a random-access source: what every reader of a data set builds.

A *source* decodes on access and never earlier. The records of this module are for detectors, those
of `face_records` for classifiers.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from absl import logging
from jaxtyping import Float

from ferjax.data.detection.augment import Example
from ferjax.data.image import ImageError, decode
from ferjax.expressions import index_of_spelling

ON_BAD_RECORD = ("error", "skip")
OVERHANG = 2.0  # pixels that a box may stand over the image: rounding, 1-based pixels
_NAMED = 10  # skipped records that the log names

AnyRecord = TypeVar("AnyRecord")


class RecordError(ValueError):
  """An annotation is wrong; the message starts with where it stands."""


@runtime_checkable
class Source(Protocol):
  """Random access to the examples of a data set; pickles."""

  class_names: tuple[str, ...]
  skipped: list[str]  # records left out on construction, each with its reason

  @property
  def task(self) -> str:
    """What its labels are for: "detection" or "classification"."""
    ...

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> Any:
    """The decoded example; ImageError or RecordError.

    For detection an `Example` whose boxes, xyxy pixels of the upright image, are clipped to it;
    for classification a `FaceExample`.
    """
    ...

  def origin(self, index: int, /) -> str:
    """Where record `index` stands, for messages: "list.txt:12 (images/a.jpg)"."""
    ...


@runtime_checkable
class LabelledSource(Source, Protocol):
  """A source for classification."""

  @property
  def labels(self) -> Float[np.ndarray, "n k"]:
    """Distributions over the classes, of all records in order; nothing is decoded."""
    ...


@dataclasses.dataclass(frozen=True)
class Record:
  """`boxes` xyxy pixels of the upright image, `label` class indices; both may be empty."""

  origin: str
  path: str
  boxes: tuple[tuple[float, float, float, float], ...]
  label: tuple[int, ...]


class RecordSource:
  """A source of `Record`s.

  Args:
    records: in the order of the data set.
    class_names: in the order of the labels.
    skipped: records that were left out, with the reason.
    overhang: pixels that a box may stand over the image; more is an error.
  """

  task = "detection"

  def __init__(
    self,
    records: Sequence[Record],
    class_names: tuple[str, ...],
    skipped: list[str],
    *,
    overhang: float = OVERHANG,
  ):
    self.class_names = tuple(class_names)
    self.skipped = skipped
    self._records = list(records)
    self._overhang = overhang

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> Example:
    record = self._records[index]
    image = decode(record.path, origin=record.origin)
    boxes = np.array(record.boxes, np.float32).reshape(-1, 4)
    height, width = image.shape[:2]
    boxes = fit_boxes(boxes, width, height, origin=record.origin, overhang=self._overhang)
    return {"image": image, "boxes": boxes, "label": np.array(record.label, np.int32)}

  def origin(self, index: int) -> str:
    return self._records[index].origin

  @property
  def max_boxes(self) -> int:
    """The most boxes of one image."""
    return max((len(record.boxes) for record in self._records), default=0)


def read_records(
  entries: Iterable, parse: Callable[..., AnyRecord], *, origin: str, on_bad_record: str
) -> tuple[list[AnyRecord], list[str]]:
  """Parses entries, leaving out bad ones if so asked.

  Args:
    entries: what `parse` takes.
    parse: raises RecordError for a bad entry.
    origin: the list that the entries come from, for messages.
    on_bad_record: "error" or "skip".

  Returns:
    The records, and the messages of the entries left out.

  Raises:
    RecordError: of the first bad entry ("error"), or no entry is left.
  """
  check_on_bad_record(on_bad_record)
  records, skipped = [], []
  for entry in entries:
    try:
      records.append(parse(entry))
    except RecordError as error:
      if on_bad_record == "error":
        raise RecordError(
          f'{error} (data.on_bad_record="skip" leaves such records out)'
        ) from error.__cause__
      skipped.append(str(error))
  if skipped:
    logging.warning(
      "%s: left out %d bad records of %d:\n  %s%s",
      origin,
      len(skipped),
      len(skipped) + len(records),
      "\n  ".join(skipped[:_NAMED]),
      "\n  ..." if len(skipped) > _NAMED else "",
    )
  if not records:
    reason = f"all {len(skipped)} records are bad, the first: {skipped[0]}" if skipped else "empty"
    raise RecordError(f"{origin}: no records to read: {reason}")
  return records, skipped


def load_example(source: Source, index: int, on_bad_record: str) -> Any:
  """An example, or None if it is bad and such are to be skipped."""
  try:
    return source[index]
  except (ImageError, RecordError) as error:
    if on_bad_record != "skip":
      raise
    _warn_once(f"skipped: {error}")
    return None


@functools.cache
def _warn_once(message: str) -> None:
  """A bad record is met again in every epoch and evaluation; once in a process is enough."""
  logging.warning("%s", message)


def check_on_bad_record(value: str) -> None:
  if value not in ON_BAD_RECORD:
    raise ValueError(f"unknown on_bad_record {value!r}; known: {', '.join(ON_BAD_RECORD)}")


def read_lines(path: pathlib.Path) -> list[tuple[int, str]]:
  """Numbers and text of the lines of an annotation file that are not blank.

  Raises:
    RecordError: naming the first line that is not UTF-8.
  """
  content = path.read_bytes()
  try:
    text = content.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    number = 1 + content[: error.start].count(b"\n")
    raise RecordError(f"{path}:{number}: not UTF-8 text; save the file as UTF-8") from error
  lines = enumerate(text.splitlines(), start=1)
  return [(number, line.strip()) for number, line in lines if line.strip()]


def parse_class(text: str, class_names: tuple[str, ...], origin: str) -> int:
  """The index of a class name; a RecordError says where it stands and what is known."""
  try:
    return index_of_spelling(text, class_names)
  except ValueError:
    raise RecordError(
      f"{origin}: class {text!r} is not one of {', '.join(class_names)} (data.class_names, or "
      "--class-names of `ferjax data`)"
    ) from None


def check_box(box: Sequence[float], origin: str) -> None:
  """Refuses a box without area."""
  x1, y1, x2, y2 = box
  if not (x1 < x2 and y1 < y2):
    raise RecordError(
      f"{origin}: box {_show(box)} has no area; expected x1 < x2 and y1 < y2 "
      "(corners in pixels, not centre and size)"
    )


def check_image_file(path: str | os.PathLike, origin: str) -> None:
  if not os.path.isfile(path):
    raise RecordError(f"{origin}: image file not found: {os.fspath(path)}")


def fit_boxes(
  boxes: Float[np.ndarray, "m 4"],
  width: int,
  height: int,
  *,
  origin: str,
  overhang: float = OVERHANG,
) -> Float[np.ndarray, "m 4"]:
  """Clips boxes (xyxy) to their image of `width` x `height` pixels.

  Raises:
    RecordError: a box lies outside the image, or stands over it by more than `overhang` pixels.
  """
  limit = np.array([width, height, width, height], np.float32)
  clipped = np.clip(boxes, 0, limit)
  over = np.abs(clipped - boxes).max(axis=1, initial=0)
  outside = np.any(clipped[:, :2] >= clipped[:, 2:], axis=1)
  for box, pixels, is_outside in zip(boxes.tolist(), over, outside, strict=True):
    if is_outside or pixels > overhang:
      how = "outside" if is_outside else f"{pixels:g} pixels over the edge of"
      raise RecordError(
        f"{origin}: box {_show(box)} lies {how} the image of {width}x{height} pixels; expected "
        "corners in pixels of the upright image: correct the box, or clip it to the image"
      )
  return clipped


def _show(box: Sequence[float]) -> str:
  return "(" + ", ".join(f"{number:g}" for number in box) + ")"

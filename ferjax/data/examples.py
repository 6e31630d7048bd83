"""Opens an entry's image, checks it against the annotation, and crops the face if needed."""

import collections
import concurrent.futures
import dataclasses
import io
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from ferjax.data.datasets.base import OVERHANG
from ferjax.data.datasets.entries import Box, Entry, Pixels, RecordError
from ferjax.data.datasets.parsing import show_box
from ferjax.data.image import ImageError, decode

_JPEG_QUALITY = 95  # of cropped faces
_PENDING_PER_THREAD = 4

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Loaded:
  """A decoded image.

  Attributes:
    file: the original encoded file, or the pixels of a table.
    image: the whole image, or the cropped face.
    boxes: xyxy pixels of `image`, clipped to it.
    is_cropped: whether `image` is a crop.
  """

  file: bytes | Pixels
  image: UInt8[np.ndarray, "h w 3"]
  boxes: Float[np.ndarray, "m 4"]
  is_cropped: bool = False

  @property
  def encoded(self) -> bytes:
    """The original file, the pixels of a table as PNG, or the cropped face as JPEG."""
    if self.is_cropped:
      return _jpeg(self.image)
    return self.file.encode() if isinstance(self.file, Pixels) else self.file


def load(entry: Entry, *, overhang: float, margin: float) -> Loaded:
  """Opens an entry's image.

  Args:
    entry: the entry to open.
    overhang: pixels that a box may extend beyond the image; more is an error.
    margin: fraction of a face box's side that is added on each side before cropping.

  Raises:
    ImageError: the image is missing or cannot be read.
    RecordError: the annotation contradicts the image.
  """
  file, image = _open(entry)
  height, width = image.shape[:2]
  if entry.size is not None and entry.size != (width, height):
    swapped = ": width and height are swapped" if entry.size == (height, width) else ""
    raise RecordError(
      f"{entry.origin}: the annotation is for {entry.size[0]}x{entry.size[1]} pixels, but the "
      f"upright image has {width}x{height}{swapped}"
    )
  if entry.crop is not None and entry.boxes is None:
    image = _crop(image, entry.crop, margin, entry.origin)
    return Loaded(file, image, np.zeros((0, 4), np.float32), is_cropped=True)
  boxes = np.array(entry.boxes or (), np.float32).reshape(-1, 4)
  if entry.relative:
    boxes = boxes * np.array([width, height, width, height], np.float32)
  boxes = fit_boxes(boxes, width, height, origin=entry.origin, overhang=overhang)
  return Loaded(file, image, boxes)


def _open(entry: Entry) -> tuple[bytes | Pixels, UInt8[np.ndarray, "h w 3"]]:
  if isinstance(entry.image, Pixels):
    return entry.image, entry.image.decode()
  try:
    file = pathlib.Path(entry.image).read_bytes()
  except OSError as error:
    raise ImageError(f"{entry.origin}: {entry.image} cannot be read: {error}") from error
  try:
    return file, decode(file, origin=entry.origin)
  except ImageError as error:
    # The origin names a row, but the file has to be fixed.
    raise ImageError(f"{error}: {entry.image}") from None


def _crop(
  image: UInt8[np.ndarray, "h w 3"], box: Box, margin: float, origin: str
) -> UInt8[np.ndarray, "i j 3"]:
  """The face with its margin, clipped to the image, which the box must overlap."""
  height, width = image.shape[:2]
  fit_boxes(np.array([box], np.float32), width, height, origin=origin, overhang=np.inf)
  x1, y1, x2, y2 = box
  dx, dy = margin * (x2 - x1), margin * (y2 - y1)
  left, top = max(0, int(np.floor(x1 - dx))), max(0, int(np.floor(y1 - dy)))
  right, bottom = min(width, int(np.ceil(x2 + dx))), min(height, int(np.ceil(y2 + dy)))
  return np.ascontiguousarray(image[top:bottom, left:right])


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
    RecordError: a box is outside the image, or extends beyond it by more than `overhang` pixels.
  """
  limit = np.array([width, height, width, height], np.float32)
  clipped = np.clip(boxes, 0, limit)
  over = np.abs(clipped - boxes).max(axis=1, initial=0)
  outside = np.any(clipped[:, :2] >= clipped[:, 2:], axis=1)
  for box, pixels, is_outside in zip(boxes.tolist(), over, outside, strict=True):
    if is_outside or pixels > overhang:
      how = "is outside" if is_outside else f"extends {pixels:g} pixels beyond"
      raise RecordError(
        f"{origin}: box {show_box(box)} {how} the image of {width}x{height} pixels; expected "
        "corners in pixels of the upright image: correct the box, or clip it to the image"
      )
  return clipped


def _jpeg(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
  file = io.BytesIO()
  Image.fromarray(image).save(file, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
  return file.getvalue()


def in_threads(
  function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[Item, Result | ImageError | RecordError]]:
  """Yields items in order, each with the function's result, or its error for a bad item.

  The number of pending results is bounded. Decoding releases Python's global lock, so threads
  suffice.
  """

  def attempt(item: Item) -> Result | ImageError | RecordError:
    try:
      return function(item)
    except (ImageError, RecordError) as error:
      return error

  threads = os.cpu_count() or 1
  waiting: collections.deque = collections.deque()
  with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    try:
      for item in items:
        waiting.append((item, pool.submit(attempt, item)))
        if len(waiting) >= _PENDING_PER_THREAD * threads:
          first, future = waiting.popleft()
          yield first, future.result()
      while waiting:
        first, future = waiting.popleft()
        yield first, future.result()
    finally:
      for _, future in waiting:
        future.cancel()

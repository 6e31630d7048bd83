"""Changes of images that a camera or a detector causes, from mild to strong.

All are functions of the image alone, without randomness. Those of photographs move the boxes too.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from ferjax.data.distortions import blur, crop, darken, reduce_size, rotate, rotate_photograph
from ferjax.data.image import GREY

Pixels = UInt8[np.ndarray, "_ _ 3"]
Boxes = Float[np.ndarray, "m 4"]


class Change(NamedTuple):
  """A kind of change.

  Attributes:
    unit: of the levels, for tables and axes.
    levels: in the order of the axis.
    unchanged: the level that stands for the image as it is.
    apply: (image, level) -> image of a face; (image, boxes, level) -> both, of a photograph. Not
      called for `unchanged`.
  """

  unit: str
  levels: Sequence[float | None]
  unchanged: float | None
  apply: Callable


def blur_photograph(image: Pixels, boxes: Boxes, share: float) -> tuple[Pixels, Boxes]:
  """Blur with a standard deviation relative to the side of the first face."""
  return blur(image, share * side_of(boxes[0])), boxes


def darken_photograph(image: Pixels, boxes: Boxes, factor: float) -> tuple[Pixels, Boxes]:
  """See `ferjax.data.distortions.darken`."""
  return darken(image, factor), boxes


def shrink_photograph(image: Pixels, boxes: Boxes, side: float) -> tuple[Pixels, Boxes]:
  """The photograph, smaller, in a grey frame of its size, so that its first face has a side.

  Args:
    image: RGB.
    boxes: xyxy pixels.
    side: of the first face (`side_of`), pixels; a photograph with a smaller face is unchanged.
  """
  scale = side / side_of(boxes[0])
  if scale >= 1:
    return image, boxes
  height, width = image.shape[:2]
  size = np.maximum(1, np.rint(np.array([width, height]) * scale)).astype(int)
  left, top = (np.array([width, height]) - size) // 2
  framed = np.full_like(image, GREY)
  framed[top : top + size[1], left : left + size[0]] = cv2.resize(
    np.ascontiguousarray(image), size.tolist(), interpolation=cv2.INTER_AREA
  )
  scales = np.tile(size / np.array([width, height]), 2)
  return framed, boxes * scales[None] + np.array([[left, top, left, top]])


def side_of(box: Float[np.ndarray, "4"]) -> float:
  """The side of a square of the same area."""
  return math.sqrt((box[2] - box[0]) * (box[3] - box[1]))


OF_FACES: Mapping[str, Change] = {
  "crop size": Change(
    "side / set's crop",
    (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3),
    1.0,
    lambda image, level: crop(image, level, 0.0, 0.0),
  ),
  "crop shifted aside": Change(
    "shift / crop's side",
    (-0.2, -0.1, 0.0, 0.1, 0.2),
    0.0,
    lambda image, level: crop(image, 1.0, level, 0.0),
  ),
  "crop shifted down": Change(
    "shift / crop's side",
    (-0.2, -0.1, 0.0, 0.1, 0.2),
    0.0,
    lambda image, level: crop(image, 1.0, 0.0, level),
  ),
  "blur": Change(
    "standard deviation / crop's side",
    (0.0, 0.01, 0.02, 0.04, 0.06),
    0.0,
    lambda image, level: blur(image, level * image.shape[1]),
  ),
  "darkness": Change("grey levels multiplied by", (1.0, 0.5, 0.25, 0.12, 0.06), 1.0, darken),
  "rotation": Change("degrees", (-30.0, -20.0, -10.0, 0.0, 10.0, 20.0, 30.0), 0.0, rotate),
  "resolution": Change(
    "pixels across the crop",
    (48, 32, 24, 16, 12),
    48,
    lambda image, level: reduce_size(image, level / image.shape[1]),
  ),
}

OF_PHOTOGRAPHS: Mapping[str, Change] = {
  "size": Change(
    "pixels of the face's side", (None, 96, 64, 48, 32, 24, 16), None, shrink_photograph
  ),
  "blur": Change(
    "standard deviation / face's side",
    (0.0, 0.02, 0.04, 0.08, 0.12),
    0.0,
    blur_photograph,
  ),
  "darkness": Change(
    "grey levels multiplied by", (1.0, 0.5, 0.25, 0.12, 0.06), 1.0, darken_photograph
  ),
  "rotation": Change(
    "degrees", (-45.0, -30.0, -15.0, 0.0, 15.0, 30.0, 45.0), 0.0, rotate_photograph
  ),
}

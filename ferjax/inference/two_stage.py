"""Two-stage prediction: a detector finds faces, and a classifier classifies them."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ferjax.inference.base import ImagePredictor, Prepared
from ferjax.inference.classification import FaceClassifier
from ferjax.inference.detection import FaceDetector
from ferjax.inference.results import Box, Face
from ferjax.weights.settings import Margin, check_margin

CROP_SCALE = 1.2
_MAX_CROP_SCALE = 4
# Pixels of a crop per image pixel: an image of 200000x1 could give a crop of 40 gigapixels.
_MAX_PIXEL_RATIO = 64


class DetectAndClassify(ImagePredictor[Any]):
  """Detects faces with a detector, and classifies a square around each with a classifier.

  In the result, `box` and `detection` come from the detector; `score`, `expression`, `scores`,
  `class_names` and `step` come from the classifier.
  """

  def __init__(
    self,
    detector: FaceDetector,
    classifier: FaceClassifier,
    *,
    crop_scale: float | None = None,
    crop_margin: float | Sequence[float] | None = None,
  ):
    """Combines two predictors, which may have different class names and batch sizes.

    The classifier gets a square around each box (`square_crop`). Without `crop_scale` and
    `crop_margin`, it has the `crop_margin` of the classifier's weights, or else a scale of 1.2.

    Args:
      detector: detects the faces.
      classifier: classifies their expressions.
      crop_scale: side of the square, relative to the longer side of the box (above 0, at most 4).
      crop_margin: margins of the square instead, as for `ferjax.weights.settings.check_margin`.

    Raises:
      ValueError: `crop_scale` or `crop_margin` is out of range, or both are given; or the detector
        gives a face several boxes.
    """
    if detector.settings["per_class_nms"]:
      raise ValueError(
        "the detector has per_class_nms=True, which gives a face several boxes; the classifier "
        "chooses the expression, so leave it off"
      )
    self.class_names = classifier.class_names
    self.step = classifier.step
    self.digest = f"{detector.digest} {classifier.digest}"
    self.batch_size = detector.batch_size
    self._crop_margin, cropping = _crop_margin(crop_scale, crop_margin, classifier)
    self.settings = {
      "detector_step": detector.step,
      **detector.settings,
      **classifier.settings,
      **cropping,
    }
    self._detector = detector
    self._classifier = classifier

  def compile(self, batch_sizes: Iterable[int] = ()) -> None:
    """Compiles both models; see `ImagePredictor.compile`."""
    batch_sizes = tuple(batch_sizes)
    self._detector.compile(batch_sizes)
    self._classifier.compile(batch_sizes)

  def _inputs(self, image: UInt8[np.ndarray, "h w 3"]) -> Any:
    return self._detector._inputs(image)

  def _faces(self, batch: list[Prepared[Any]]) -> list[tuple[Face, ...]]:
    found = self._detector._faces(batch)
    # A generator, so that not all crops are in memory at once.
    crops = (
      square_crop(prepared.image, face.box, self._crop_margin)
      for prepared, faces in zip(batch, found, strict=True)
      for face in faces
      if face.box is not None  # always true for a detector
    )
    classified = self._classifier.classify_crops(crops)
    return [
      tuple(dataclasses.replace(next(classified), box=face.box, detection=face) for face in faces)
      for faces in found
    ]


def _crop_margin(
  scale: float | None,
  margin: float | Sequence[float] | None,
  classifier: FaceClassifier,
) -> tuple[Margin, dict[str, Any]]:
  """The margins of the crops, and the setting that they come from; see `DetectAndClassify`."""
  if scale is not None and margin is not None:
    raise ValueError(f"crop_scale is {scale} and crop_margin is {margin}; give only one of them")
  if scale is None and margin is None:
    margin = classifier.crop_margin
  if margin is not None:
    checked = check_margin(margin)
    return checked, {"crop_margin": list(checked)}
  scale = CROP_SCALE if scale is None else scale
  if not 0 < scale <= _MAX_CROP_SCALE:
    raise ValueError(f"crop_scale is {scale}; expected above 0 and at most {_MAX_CROP_SCALE}")
  return scale_margin(scale), {"crop_scale": scale}


def scale_margin(scale: float) -> Margin:
  """The margins of a square whose side is `scale` times the longer side of the box."""
  side = (scale - 1) / 2
  return side, side, side, side


def square_crop(
  image: UInt8[np.ndarray, "h w 3"], box: Box, margin: Margin
) -> UInt8[np.ndarray, "s s 3"]:
  """The square around a box with margins, in original pixels, without resampling.

  It is centred on the box with its margins, and its side is the longer side of that, at least 1.
  The side, then left and top, are rounded to whole pixels, halves up. Edge pixels are repeated
  outside the image. The crop has at most 64 times as many pixels as the image: if a long box in a
  very long image exceeds this, only the middle of the square is returned.

  Args:
    image: RGB.
    box: (x1, y1, x2, y2) in pixels.
    margin: (left, top, right, bottom), relative to the width and the height of the box.
  """
  rows, columns = image.shape[:2]
  first_column, first_row, side = square_around(box, margin, rows=rows, columns=columns)
  across = np.clip(np.arange(first_column, first_column + side), 0, columns - 1)
  down = np.clip(np.arange(first_row, first_row + side), 0, rows - 1)
  return image[down[:, None], across[None]]


def square_around(box: Box, margin: Margin, *, rows: int, columns: int) -> tuple[int, int, int]:
  """The left column, the top row and the side of `square_crop`, in pixels of the image.

  Args:
    box, margin: as for `square_crop`.
    rows, columns: of the image.
  """
  x1, y1, x2, y2 = box
  left, top, right, bottom = margin
  width, height = x2 - x1, y2 - y1
  largest = math.isqrt(_MAX_PIXEL_RATIO * rows * columns)
  longer = max((1 + left + right) * width, (1 + top + bottom) * height)
  side = min(max(1, math.floor(longer + 0.5)), largest)
  first_column = math.floor((x1 + x2 + (right - left) * width - side) / 2 + 0.5)
  first_row = math.floor((y1 + y2 + (bottom - top) * height - side) / 2 + 0.5)
  return first_column, first_row, side

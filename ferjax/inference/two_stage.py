"""Two-stage prediction: a detector finds faces, and a classifier classifies them."""

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ferjax.inference.base import ImagePredictor, Prepared
from ferjax.inference.classification import ExpressionClassifier
from ferjax.inference.detection import Predictor
from ferjax.inference.results import Box, Face
from ferjax.tasks.detection.voc import suppress

CROP_SCALE = 1.2
_MAX_CROP_SCALE = 4
# Pixels of a crop per image pixel: an image of 200000x1 could give a crop of 40 gigapixels.
_MAX_PIXEL_RATIO = 64


class DetectAndClassify(ImagePredictor[Any]):
  """Detects faces with a detector, and classifies a square around each with a classifier.

  In the result, `box` and `detection` come from the detector; `score`, `expression`, `scores`,
  `class_names` and `step` come from the classifier. The detector suppresses boxes per expression;
  here, a box that overlaps a higher-scoring one by more than the detector's `iou_threshold` is
  dropped, whatever their expressions.
  """

  def __init__(
    self,
    detector: Predictor,
    classifier: ExpressionClassifier,
    *,
    crop_scale: float = CROP_SCALE,
  ):
    """Combines two predictors, which may have different class names and batch sizes.

    Args:
      detector: detects the faces.
      classifier: classifies their expressions.
      crop_scale: side of the classifier's square crop, relative to the longer side of the box
        (above 0, at most 4); see `square_crop`.

    Raises:
      ValueError: `crop_scale` is out of range.
    """
    if not 0 < crop_scale <= _MAX_CROP_SCALE:
      raise ValueError(
        f"crop_scale is {crop_scale}; expected above 0 and at most {_MAX_CROP_SCALE}"
      )
    self.class_names = classifier.class_names
    self.step = classifier.step
    self.batch_size = detector.batch_size
    self.settings = {
      "detector_step": detector.step,
      **detector.settings,
      **classifier.settings,
      "crop_scale": crop_scale,
    }
    self._detector = detector
    self._classifier = classifier
    self._crop_scale = crop_scale

  def _inputs(self, image: UInt8[np.ndarray, "h w 3"]) -> Any:
    return self._detector._inputs(image)

  def _faces(self, batch: list[Prepared[Any]]) -> list[tuple[Face, ...]]:
    found = [self._suppress_overlaps(faces) for faces in self._detector._faces(batch)]
    # A generator, so that not all crops are in memory at once.
    crops = (
      square_crop(prepared.image, face.box, self._crop_scale)
      for prepared, faces in zip(batch, found, strict=True)
      for face in faces
      if face.box is not None  # always true for a detector
    )
    classified = self._classifier.classify_crops(crops)
    return [
      tuple(dataclasses.replace(next(classified), box=face.box, detection=face) for face in faces)
      for faces in found
    ]

  def _suppress_overlaps(self, faces: tuple[Face, ...]) -> tuple[Face, ...]:
    boxes = np.array([face.box for face in faces], np.float64).reshape(-1, 4)
    scores = np.array([face.score for face in faces], np.float64)
    kept = suppress(boxes, scores, self._detector.settings["iou_threshold"])
    return tuple(itertools.compress(faces, kept))


def square_crop(
  image: UInt8[np.ndarray, "h w 3"], box: Box, scale: float
) -> UInt8[np.ndarray, "s s 3"]:
  """The square around a box, in original pixels, without resampling.

  It is centred on the box, and its side is `scale` times the box's longer side, at least 1. The
  side, then left and top, are rounded to whole pixels, halves up. Edge pixels are repeated outside
  the image. The crop has at most 64 times as many pixels as the image: if a long box in a very long
  image exceeds this, only the middle of the square is returned.
  """
  x1, y1, x2, y2 = box
  height, width = image.shape[:2]
  largest = math.isqrt(_MAX_PIXEL_RATIO * height * width)
  side = min(max(1, math.floor(scale * max(x2 - x1, y2 - y1) + 0.5)), largest)
  left = math.floor((x1 + x2 - side) / 2 + 0.5)
  top = math.floor((y1 + y2 - side) / 2 + 0.5)
  rows = np.clip(np.arange(top, top + side), 0, height - 1)
  columns = np.clip(np.arange(left, left + side), 0, width - 1)
  return image[rows[:, None], columns[None]]

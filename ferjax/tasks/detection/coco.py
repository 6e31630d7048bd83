"""COCO average precision, computed by pycocotools."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ferjax.expressions import UNLABELLED
from ferjax.tasks.detection.voc import ImageResult

_IGNORED_AREA = -1.0  # outside of every range of areas, so the evaluation ignores the box


def coco_average_precision(images: Sequence[ImageResult], num_classes: int) -> tuple[float, float]:
  """Mean over the classes of AP@[.5:.95] and of AP@.5, at most 100 detections per image.

  Classes without ground-truth boxes are excluded; without any box both are nan. A box of unknown
  class is ignored for every class.
  """
  truth, found = [], []
  for number, image in enumerate(images):
    truth += _annotations(number, image.truth_boxes, image.truth_labels, num_classes)
    found += _annotations(number, image.boxes, image.labels, num_classes, image.scores)
  # pycocotools prints its progress at every logging level.
  with contextlib.redirect_stdout(io.StringIO()):
    evaluation = COCOeval(
      _dataset(truth, len(images), num_classes), _dataset(found, len(images), num_classes), "bbox"
    )
    evaluation.evaluate()
    evaluation.accumulate()
  # [thresholds, recalls, classes, areas, limits]: all areas, 100 detections; -1 is "no box".
  precision = evaluation.eval["precision"][:, :, :, 0, -1]
  return _mean(precision), _mean(precision[:1])


def _annotations(
  image_id: int,
  boxes: np.ndarray,
  labels: np.ndarray,
  num_classes: int,
  scores: np.ndarray | None = None,
) -> list[dict]:
  sizes = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
  annotations = [
    {
      "image_id": image_id,
      "category_id": class_id,
      "bbox": [*map(float, box[:2]), *map(float, size)],
      "area": _IGNORED_AREA if label == UNLABELLED else float(np.prod(size)),
      "iscrowd": 0,
    }
    for box, size, label in zip(boxes, sizes, labels, strict=True)
    for class_id in (range(num_classes) if label == UNLABELLED else (int(label),))
  ]
  if scores is not None:
    for annotation, score in zip(annotations, scores, strict=True):
      annotation["score"] = float(score)
  return annotations


def _dataset(annotations: list[dict], num_images: int, num_classes: int) -> COCO:
  # Ids start at 1: the evaluation uses 0 for "no match".
  contents: Any = {
    "images": [{"id": number} for number in range(num_images)],
    "categories": [{"id": number} for number in range(num_classes)],
    "annotations": [a | {"id": number} for number, a in enumerate(annotations, start=1)],
  }
  dataset = COCO()
  dataset.dataset = contents
  dataset.createIndex()
  return dataset


def _mean(precision: np.ndarray) -> float:
  defined = precision[precision > -1]
  return float(np.mean(defined)) if defined.size else float("nan")

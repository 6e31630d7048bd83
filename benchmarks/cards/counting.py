"""Counts of a detector's boxes on annotated photographs, and their intervals."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ferjax.expressions import UNLABELLED
from ferjax.inference.results import Prediction
from ferjax.tasks.classification.metrics import NUM_RESAMPLES, wilson_interval
from ferjax.tasks.detection.coco import coco_average_precision
from ferjax.tasks.detection.metrics import FACE_AP, DetectionMetrics
from ferjax.tasks.detection.voc import (
  ImageResult,
  average_precision,
  iou_matrix,
  precision_recall,
)

IOU = 0.5
THRESHOLDS = tuple(number / 20 for number in range(1, 20))


@dataclasses.dataclass(frozen=True)
class Counts:
  """Detections of some images against their annotated faces.

  Attributes:
    images: number of images.
    faces: annotated boxes.
    found: those that a detection matches.
    false_boxes: detections that match no face, or a face with a better detection.
    images_with_false: images with at least one of these.
  """

  images: int
  faces: int
  found: int
  false_boxes: int
  images_with_false: int

  @property
  def recall(self) -> float:
    return self.found / self.faces

  @property
  def false_per_image(self) -> float:
    return self.false_boxes / self.images


def image_result(prediction: Prediction, truth: Float[np.ndarray, "m 4"]) -> ImageResult:
  """The detections of an image and its annotated faces, all of them of one class."""
  return ImageResult(
    boxes=np.array([face.box for face in prediction.faces], np.float64).reshape(-1, 4),
    scores=np.array([face.score for face in prediction.faces], np.float64),
    labels=np.zeros(len(prediction.faces), np.int64),
    truth_boxes=truth,
    truth_labels=np.full(len(truth), UNLABELLED),
  )


def above(results: Sequence[ImageResult], threshold: float) -> list[ImageResult]:
  """The results without detections that score less than the threshold."""
  return [result.select(result.scores >= threshold) for result in results]


def count(results: Sequence[ImageResult], iou: float = IOU) -> Counts:
  """Counts matches; of several detections of a face, all but the one with the best score are false.

  Args:
    results: of each image, without detections below the threshold.
    iou: intersection over union that makes a match.
  """
  matches = [result.match(iou) for result in results]
  false = [int(np.count_nonzero(match < 0)) for match in matches]
  return Counts(
    images=len(results),
    faces=sum(len(result.truth_boxes) for result in results),
    found=sum(int(np.count_nonzero(match >= 0)) for match in matches),
    false_boxes=sum(false),
    images_with_false=sum(number > 0 for number in false),
  )


def threshold_table(
  faces: Sequence[ImageResult], backgrounds: Sequence[ImageResult], thresholds: Sequence[float]
) -> list[dict[str, float]]:
  """Recall on photographs of faces, and false boxes on photographs without, at each threshold."""
  rows = []
  for threshold in thresholds:
    on_faces, on_others = count(above(faces, threshold)), count(above(backgrounds, threshold))
    rows.append(
      {
        "threshold": threshold,
        "recall": on_faces.recall,
        "false boxes beside faces": on_faces.false_boxes,
        "backgrounds with false boxes": on_others.images_with_false,
        "false boxes per background": on_others.false_per_image,
      }
    )
  return rows


def lowest_threshold(rows: Sequence[dict[str, float]], images: int, share: float) -> float | None:
  """The lowest threshold from which on at most a share of the backgrounds has false boxes.

  Args:
    rows: of `threshold_table`, in order of increasing threshold.
    images: number of backgrounds.
    share: 0..1.

  Returns:
    None if there is no such threshold.
  """
  allowed = [row for row in rows if row["backgrounds with false boxes"] <= share * images]
  return min((row["threshold"] for row in allowed), default=None)


def face_ap(results: Sequence[ImageResult], *, seed: int = 0) -> dict[str, float]:
  """AP@0.5 of faces: of the package, its interval, and COCO's by pycocotools.

  The interval has the percentiles 2.5 and 97.5 of a bootstrap over the images. COCO's AP
  interpolates at 101 recalls, and the package's at all, so they differ a little.
  """
  metrics = DetectionMetrics(("face",))
  metrics.images += results
  as_class = [
    dataclasses.replace(x, truth_labels=np.zeros(len(x.truth_boxes), int)) for x in results
  ]
  low, high = _bootstrap(results, seed)
  return {
    "ap50": metrics.compute()[FACE_AP],
    "ap50_low": low,
    "ap50_high": high,
    "coco_ap50": coco_average_precision(as_class, 1)[1],
  }


def _bootstrap(results: Sequence[ImageResult], seed: int) -> tuple[float, float]:
  matched = [result.match() >= 0 for result in results]
  rng = np.random.default_rng(seed)
  values = []
  for chosen in rng.integers(0, len(results), (NUM_RESAMPLES, len(results))):
    boxes = sum(len(results[i].truth_boxes) for i in chosen)
    if boxes:
      scores = np.concatenate([results[i].scores for i in chosen])
      correct = np.concatenate([matched[i] for i in chosen])
      values.append(average_precision(*precision_recall(scores, correct, boxes)))
  low, high = np.percentile(values, (2.5, 97.5))
  return float(low), float(high)


def score_of_face(prediction: Prediction, box: Sequence[float], name: str) -> float | None:
  """The score of an expression of the detected face with the highest IoU with a box.

  None if no detection has an IoU of at least 0.5 with it.
  """
  if not prediction.faces:
    return None
  boxes = np.array([face.box for face in prediction.faces], np.float64)
  ious = iou_matrix(boxes, np.array([box], np.float64))[:, 0]
  best = int(ious.argmax())
  return prediction.faces[best].scores[name] if ious[best] >= IOU else None


def found_once(prediction: Prediction, box: Sequence[float]) -> bool:
  """Whether there is exactly one detection, and its IoU with the box is at least 0.5."""
  boxes = [face.box for face in prediction.faces]
  truth = np.array([box], np.float64)
  if len(boxes) != 1:
    return False
  return bool(iou_matrix(np.array(boxes, np.float64), truth)[0, 0] >= IOU)


def higher_pairs(pairs: Sequence[tuple[float | None, float | None]]) -> int:
  """The number of pairs whose second score is higher; never with None, a face not found."""
  return sum(a is not None and b is not None and b > a for a, b in pairs)


def proportion(hits: int, total: int) -> dict[str, Any]:
  """Counts, their quotient and its 95 % interval of Wilson."""
  low, high = wilson_interval(hits, total)
  return {"hits": hits, "total": total, "value": hits / total, "low": low, "high": high}

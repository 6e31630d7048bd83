"""Average precision as defined by Pascal VOC since 2010, in NumPy.

Everingham et al., *The PASCAL Visual Object Classes (VOC) Challenge*, IJCV 2010: a detection is
correct if its IoU with a box of its class is at least 0.5 and no detection with a higher score has
matched that box. Further detections of the same box are wrong. Boxes are xyxy, in continuous
coordinates.

A box of unknown class (`UNLABELLED`) is ignored for every class, as in COCO's evaluation: it is no
box to find, and a detection that matches it, and no box of the class, is neither correct nor wrong.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from ferjax.expressions import UNLABELLED


@dataclasses.dataclass(frozen=True)
class ImageResult:
  """Detections and ground truth of one image, without padding, in the same pixel coordinates."""

  boxes: Float[np.ndarray, "n 4"]
  scores: Float[np.ndarray, "n"]
  labels: Int[np.ndarray, "n"]
  truth_boxes: Float[np.ndarray, "m 4"]
  truth_labels: Int[np.ndarray, "m"]

  def select(
    self, detections: Bool[np.ndarray, "n"], truth: Bool[np.ndarray, "m"] | None = None
  ) -> "ImageResult":
    """The detections and the ground truth selected by the masks; None keeps all."""
    truth = np.ones(len(self.truth_labels), bool) if truth is None else truth
    return ImageResult(
      self.boxes[detections],
      self.scores[detections],
      self.labels[detections],
      self.truth_boxes[truth],
      self.truth_labels[truth],
    )

  def of_class(self, label: int) -> "ImageResult":
    """The detections and the ground truth of one class, without ignored detections."""
    result = self.select(self.labels == label, self.truth_labels == label)
    unlabelled = self.truth_boxes[self.truth_labels == UNLABELLED]
    if len(unlabelled) == 0:
      return result
    rest = np.flatnonzero(result.match() < 0)
    ignored = match_boxes(result.boxes[rest], result.scores[rest], unlabelled) >= 0
    kept = np.ones(len(result.labels), bool)
    kept[rest[ignored]] = False
    return result.select(kept)

  def match(self, iou_threshold: float = 0.5) -> Int[np.ndarray, "n"]:
    """See `match_boxes`; ignores classes."""
    return match_boxes(self.boxes, self.scores, self.truth_boxes, iou_threshold)


def iou_matrix(a: Float[np.ndarray, "n 4"], b: Float[np.ndarray, "m 4"]) -> np.ndarray:
  """Intersection over union of every box of `a` with every box of `b`, [n m]."""
  low = np.maximum(a[:, None, :2], b[None, :, :2])
  high = np.minimum(a[:, None, 2:], b[None, :, 2:])
  intersection = np.prod(np.maximum(high - low, 0), axis=-1)
  area_a, area_b = (np.prod(np.maximum(x[:, 2:] - x[:, :2], 0), axis=-1) for x in (a, b))
  union = area_a[:, None] + area_b[None] - intersection
  return intersection / np.where(union > 0, union, 1)


def match_boxes(
  boxes: Float[np.ndarray, "n 4"],
  scores: Float[np.ndarray, "n"],
  truth: Float[np.ndarray, "m 4"],
  iou_threshold: float = 0.5,
) -> Int[np.ndarray, "n"]:
  """The ground-truth box that each detection of one image and class matches, or -1.

  In order of decreasing score, each detection takes the box with the highest IoU. It matches if the
  IoU is at least the threshold and no earlier detection has matched the box.
  """
  match = np.full(len(boxes), -1)
  if len(truth) == 0:
    return match
  ious = iou_matrix(boxes, truth)
  taken = np.zeros(len(truth), bool)
  for index in np.argsort(-scores, kind="stable"):
    best = np.argmax(ious[index])
    if ious[index, best] >= iou_threshold and not taken[best]:
      match[index] = best
      taken[best] = True
  return match


def suppress(
  boxes: Float[np.ndarray, "n 4"], scores: Float[np.ndarray, "n"], iou_threshold: float = 0.5
) -> Bool[np.ndarray, "n"]:
  """Which boxes greedy suppression keeps, ignoring classes."""
  overlaps = iou_matrix(boxes, boxes) > iou_threshold
  kept = np.zeros(len(boxes), bool)
  for index in np.argsort(-scores, kind="stable"):
    kept[index] = not np.any(overlaps[index] & kept)
  return kept


def precision_recall(
  scores: Float[np.ndarray, "n"], correct: Bool[np.ndarray, "n"], num_boxes: int
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
  """Recall and precision at the score of each detection; `num_boxes` is at least 1."""
  hits = np.cumsum(correct[np.argsort(-scores, kind="stable")])
  return hits / num_boxes, hits / np.arange(1, len(hits) + 1)


def average_precision(recall: Float[np.ndarray, "n"], precision: Float[np.ndarray, "n"]) -> float:
  """Area under the interpolated curve (all-point interpolation)."""
  return float(np.sum(np.diff(recall, prepend=0.0) * interpolate(precision)))


def interpolate(precision: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
  """The highest precision at the same or a higher recall."""
  return np.maximum.accumulate(precision[::-1])[::-1]

"""Metrics of a detector, accumulated on the host."""

from collections.abc import Mapping, Sequence

import numpy as np

from ferjax.expressions import UNLABELLED
from ferjax.tasks.base import Outcomes
from ferjax.tasks.detection.coco import coco_average_precision
from ferjax.tasks.detection.voc import ImageResult, average_precision, precision_recall, suppress
from ferjax.typing import Detections

FACE_AP = "face_ap50"  # needs no class labels


class DetectionMetrics:
  """Detections and ground truth of many images, and the metrics computed from them.

  All added images are kept until the end, because average precision ranks the detections of all
  images. Adding them in several batches gives the same metrics as adding them at once.

  Attributes:
    class_names: names in the order of the class ids.
    score_threshold: precision, recall and the confusion matrix exclude detections below it.
      Average precision uses all detections.
    images: the images added so far.
    index: the record of each image; -1 if its batch did not say.
  """

  def __init__(self, class_names: Sequence[str], *, score_threshold: float = 0.5):
    self.class_names = tuple(class_names)
    self.score_threshold = score_threshold
    self.images: list[ImageResult] = []
    self.index: list[int] = []

  def add(self, detections: Detections, truth: Mapping[str, np.ndarray]) -> None:
    """Adds a batch.

    Args:
      detections: NumPy arrays [b d ...], boxes in pixels of the original images.
      truth: a `DetectionBatch`, or only its fields `boxes`, `label`, `box_mask` and `mask`. With
        `placement` the boxes are in input pixels, as in any batch, and are mapped to original
        pixels. Without it, they must be in original pixels.

    Raises:
      ValueError: the batches differ in size, or a label is neither a class nor `UNLABELLED`.
    """
    found_boxes, scores, labels, _, found_mask = map(np.asarray, detections)
    boxes, label, box_mask, mask = (
      np.asarray(truth[key]) for key in ("boxes", "label", "box_mask", "mask")
    )
    if len(found_boxes) != len(boxes):
      raise ValueError(
        f"Detections of {len(found_boxes)} images and ground truth of {len(boxes)}; both "
        "must be of the same batch."
      )
    for i in np.flatnonzero(mask):
      real, kept = box_mask[i], found_mask[i]
      truth_boxes = boxes[i][real].astype(np.float64)
      if "placement" in truth:
        scale, offset = np.asarray(truth["placement"])[i, :4].reshape(2, 2)
        truth_boxes = (truth_boxes - np.tile(offset, 2)[None]) / np.tile(scale, 2)[None]
      self._check_labels(label[i][real])
      self.index.append(int(truth["index"][i]) if "index" in truth else -1)
      self.images.append(
        ImageResult(
          boxes=found_boxes[i][kept].astype(np.float64),
          scores=scores[i][kept].astype(np.float64),
          labels=labels[i][kept],
          truth_boxes=truth_boxes,
          truth_labels=label[i][real],
        )
      )

  def arrays(self) -> dict[str, np.ndarray]:
    """Everything that was added, by record.

    `index`, `num_found` and `num_truth` have an element for each image; `boxes`, `scores` and
    `labels` have a row for each detection, `truth_boxes` and `truth_labels` for each true box.
    """
    order = np.argsort(self.index, kind="stable")
    images = [self.images[i] for i in order]
    found = [(x.boxes, x.scores, x.labels) for x in images]
    truth = [(x.truth_boxes, x.truth_labels) for x in images]
    none, no_labels = np.zeros((0, 4)), np.zeros(0, np.int64)
    boxes, scores, labels = map(
      np.concatenate, zip((none, none[:, 0], no_labels), *found, strict=True)
    )
    true_boxes, true_labels = map(np.concatenate, zip((none, no_labels), *truth, strict=True))
    return {
      "index": np.array(self.index, np.int64)[order],
      "num_found": np.array([len(x.scores) for x in images], np.int64),
      "num_truth": np.array([len(x.truth_labels) for x in images], np.int64),
      "boxes": boxes,
      "scores": scores,
      "labels": labels,
      "truth_boxes": true_boxes,
      "truth_labels": true_labels,
    }

  @classmethod
  def from_arrays(
    cls, class_names: Sequence[str], arrays: Mapping[str, np.ndarray]
  ) -> "DetectionMetrics":
    """The inverse of `arrays`; KeyError for a missing one."""
    metrics = cls(class_names)
    ends = [np.cumsum(arrays[name])[:-1] for name in ("num_found", "num_truth")]
    parts = [np.split(arrays[name], ends[0]) for name in ("boxes", "scores", "labels")]
    parts += [np.split(arrays[name], ends[1]) for name in ("truth_boxes", "truth_labels")]
    metrics.index = arrays["index"].tolist()
    if metrics.index:
      metrics.images = [ImageResult(*image) for image in zip(*parts, strict=True)]
    return metrics

  def compute(self) -> dict[str, float]:
    """The metrics by name, all in 0..1 except the counts.

    `map50` is the mean over the classes of VOC AP@0.5, `ap50/<class>` is the AP of one class, and
    `map` and `coco_map50` are COCO's AP@[.5:.95] and AP@.5 (interpolated at 101 recalls).
    Classes without ground truth have no AP and no key: `classes_without_boxes` names them.
    `precision50` and `recall50` are over all classes, for detections that score at least
    `score_threshold`. `face_ap50` is the class-agnostic VOC AP@0.5 of faces, and
    `expression_accuracy` the fraction of detected faces with the correct expression; for both,
    only the best of several detections of a face counts. A fraction of zero faces is 0.

    Unlabelled boxes (`num_unlabelled` of the `num_boxes`) count for `face_ap50` like all others.
    All other metrics ignore them: no box to find, and a detection that matches one is neither
    correct nor wrong. If no box is labelled, the other metrics are not defined and have no key.

    Raises:
      ValueError: no ground-truth box was added, so no AP is defined.
    """
    truth = [label for image in self.images for label in image.truth_labels]
    num_boxes, num_unlabelled = len(truth), truth.count(UNLABELLED)
    if num_boxes == 0:
      raise ValueError(
        f"Average precision is not defined: none of the {len(self.images)} images added has a "
        "ground-truth box. Check the annotation of the evaluation split."
      )
    num_labelled, faces = num_boxes - num_unlabelled, self.faces()
    values = {
      **(self._class_metrics(num_labelled) if num_labelled else {}),
      FACE_AP: average_precision(*_curve(faces)),
      **({"expression_accuracy": _expression_accuracy(faces)} if num_labelled else {}),
      "num_images": len(self.images),
      "num_boxes": num_boxes,
      "num_unlabelled": num_unlabelled,
    }
    return {name: float(value) for name, value in values.items()}

  def _class_metrics(self, num_labelled: int) -> dict[str, float]:
    per_class = {f"ap50/{name}": average_precision(*curve) for name, curve in self.curves().items()}
    coco_map, coco_map50 = coco_average_precision(self.images, len(self.class_names))
    return {
      "map50": float(np.mean(list(per_class.values()))),
      "map": coco_map,
      "coco_map50": coco_map50,
      **per_class,
      **self._precision_recall(num_labelled),
    }

  def outcomes(self) -> dict[str, Outcomes]:
    """Of each image: found faces of all, and found faces with the correct expression.

    `face_recall` counts detections that score at least `score_threshold`, and, like `face_ap50`,
    ignores their class. `expression_accuracy` is that of `compute`.
    """
    faces, recalls, expressions = self.faces(), [], []
    for image in faces:
      sure = image.select(image.scores >= self.score_threshold).match()
      recalls.append((np.count_nonzero(sure >= 0), len(image.truth_labels)))
      expressions.append(expression_hits(image)[::-1])
    rates = {"face_recall": recalls, "expression_accuracy": expressions}
    counts = {name: np.array(x, int).reshape(-1, 2) for name, x in rates.items()}
    return {name: Outcomes(x[:, :1], x[:, 1:]) for name, x in counts.items()}

  @property
  def classes_without_boxes(self) -> tuple[str, ...]:
    """Classes without ground-truth boxes."""
    present = set(np.concatenate([i.truth_labels for i in self.images])) if self.images else set()
    return tuple(name for label, name in enumerate(self.class_names) if label not in present)

  def curves(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Recall and precision, by decreasing score, of each class with ground truth."""
    missing = self.classes_without_boxes
    return {
      name: _curve([image.of_class(label) for image in self.images])
      for label, name in enumerate(self.class_names)
      if name not in missing
    }

  def confusion_matrix(self) -> np.ndarray:
    """Counts [k + 1, k + 1]: row is the true class, column the detected one.

    The last row counts detections without a face, the last column faces without a detection.
    Only the best of several detections of a face counts. Unlabelled faces are left out.
    """
    background = len(self.class_names)
    matrix = np.zeros((background + 1, background + 1), np.int64)
    for image in self.faces():
      image = image.select(image.scores >= self.score_threshold)
      found = image.match()
      # For found = -1, the last element.
      truth = np.append(image.truth_labels, background)[found]
      counted = truth != UNLABELLED
      np.add.at(matrix, (truth[counted], image.labels[counted]), 1)
      missed = np.delete(image.truth_labels, found[found >= 0])
      np.add.at(matrix[:, background], missed[missed != UNLABELLED], 1)
    return matrix

  def _precision_recall(self, num_labelled: int) -> dict[str, float]:
    num_correct = num_detected = 0
    for image in self.images:
      image = image.select(image.scores >= self.score_threshold)
      for label in range(len(self.class_names)):
        of_class = image.of_class(label)
        num_detected += len(of_class.labels)
        num_correct += np.count_nonzero(of_class.match() >= 0)
    return {
      "precision50": num_correct / max(num_detected, 1),
      "recall50": num_correct / num_labelled,
    }

  def faces(self) -> list[ImageResult]:
    """The images with only the best of overlapping detections, over all classes."""
    return [image.select(suppress(image.boxes, image.scores)) for image in self.images]

  def _check_labels(self, labels: np.ndarray) -> None:
    wrong = labels[(labels < UNLABELLED) | (labels >= len(self.class_names))]
    if wrong.size:
      raise ValueError(
        f"Ground truth has the label {wrong[0]}; expected 0..{len(self.class_names) - 1} for the "
        f"classes {', '.join(self.class_names)}, or {UNLABELLED} for an unknown class."
      )


def _expression_accuracy(faces: Sequence[ImageResult]) -> float:
  counts = [expression_hits(image) for image in faces]
  num_found, num_correct = np.sum(counts, axis=0) if counts else (0, 0)
  return num_correct / max(num_found, 1)


def expression_hits(image: ImageResult) -> tuple[int, int]:
  """Of the faces with a label that were found in an image: all, and those with that label."""
  found = image.match()
  truth = image.truth_labels[found[found >= 0]]
  correct = np.count_nonzero(truth == image.labels[found >= 0])
  return int(np.count_nonzero(truth != UNLABELLED)), int(correct)


def _curve(images: Sequence[ImageResult]) -> tuple[np.ndarray, np.ndarray]:
  scores = np.concatenate([image.scores for image in images])
  correct = np.concatenate([image.match() >= 0 for image in images])
  num_boxes = sum(len(image.truth_labels) for image in images)
  return precision_recall(scores, correct, num_boxes)

"""Measures a detector on annotated photographs."""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cards import changes, counting, photographs
from cards.photographs import Photograph, Portrait
from ferjax.data.image import decode
from ferjax.inference.base import ImagePredictor
from ferjax.inference.classification import ExpressionClassifier
from ferjax.inference.detection import Predictor
from ferjax.inference.results import Prediction
from ferjax.inference.two_stage import DetectAndClassify
from ferjax.tasks.detection.voc import ImageResult
from ferjax.trained import TrainedNetwork
from ferjax.weights import open_weights

LOWEST_SCORE = 0.01  # of the detections for AP and for the tables of thresholds
LOOSE_IOU = 0.4  # for boxes that are tighter than those that the detector learned
FALSE_SHARE = 0.02  # of the backgrounds that may have false boxes at the default threshold
NEUTRAL, SMILING = "neutral", "happiness"


@dataclasses.dataclass(frozen=True)
class Ranges:
  """The numbers of the photographs with and without faces: for validation, and left out."""

  faces: range = range(194, 261)
  backgrounds: range = range(2500, 3000)
  validation_faces: range = range(164, 194)
  validation_backgrounds: range = range(2400, 2500)


class Photographs:
  """A detector that keeps weak detections too, and its results on photographs.

  Attributes:
    threshold: the default score threshold of the weights, or the given one.
    limit: photographs of each set at most, evenly spaced; 0 for all.
  """

  def __init__(self, opened: TrainedNetwork, *, threshold: float | None = None, limit: int = 0):
    settings = Predictor(opened, score_threshold=threshold).settings
    self.threshold: float = settings["score_threshold"]
    self.limit = limit
    self._opened = opened
    self._all = Predictor(opened, score_threshold=LOWEST_SCORE)
    self.image_size = self._all.image_size

  def some(self, items: Sequence[Photograph]) -> list[Photograph]:
    """The photographs that the limit leaves."""
    return list(items[:: photographs.step_of(len(items), self.limit)])

  def results(self, items: Sequence[Photograph]) -> list[ImageResult]:
    """All detections that score at least `LOWEST_SCORE`."""
    predictions = self._all.predict(item.path for item in items)
    return [
      counting.image_result(prediction, item.boxes)
      for prediction, item in zip(predictions, items, strict=True)
    ]

  def changed_results(
    self, items: Sequence[Photograph], change: changes.Change, level: float | None
  ) -> list[ImageResult]:
    """The results on changed photographs."""
    boxes = []

    def images() -> Iterator[np.ndarray]:
      for item in items:
        image, truth = decode(item.path), item.boxes
        if level != change.unchanged:
          image, truth = change.apply(image, truth, level)
        boxes.append(truth)
        yield image

    predictions = self._all.predict(images())
    return [counting.image_result(*pair) for pair in zip(predictions, boxes, strict=True)]

  def predictor(self, classifier: TrainedNetwork | None) -> ImagePredictor[Any]:
    """The predictor of users, at the threshold: alone, or followed by a classifier."""
    detector = Predictor(self._opened, score_threshold=self.threshold)
    if classifier is None:
      return detector
    return DetectAndClassify(detector, ExpressionClassifier(classifier))


@dataclasses.dataclass(frozen=True)
class Scenes:
  """All detections on photographs with faces, and on photographs without."""

  faces: list[ImageResult]
  backgrounds: list[ImageResult]

  def faces_at(self, threshold: float) -> dict[str, Any]:
    """AP of the faces; recall and false boxes at the threshold."""
    counts = counting.count(counting.above(self.faces, threshold))
    return {
      **counting.face_ap(self.faces),
      "images": counts.images,
      "recall": counting.proportion(counts.found, counts.faces),
      "false_boxes": counts.false_boxes,
    }

  def backgrounds_at(self, threshold: float) -> dict[str, Any]:
    """False boxes on the photographs without faces, at the threshold."""
    counts = counting.count(counting.above(self.backgrounds, threshold))
    return {
      "images_with_false": counting.proportion(counts.images_with_false, counts.images),
      "false_boxes": counts.false_boxes,
      "false_per_image": counts.false_per_image,
    }

  def thresholds(self) -> dict[str, Any]:
    """The table of thresholds, and the lowest one with few false boxes."""
    rows = counting.threshold_table(self.faces, self.backgrounds, counting.THRESHOLDS)
    number = len(self.backgrounds)
    return {
      "faces": len(self.faces),
      "backgrounds": number,
      "rows": rows,
      "lowest": counting.lowest_threshold(rows, number, FALSE_SHARE),
    }


def detect_scenes(
  detector: Photographs, data: pathlib.Path, faces: range, backgrounds: range
) -> Scenes:
  """The detections on the photographs with these numbers."""
  return Scenes(
    detector.results(detector.some(photographs.scenes_with_faces(data, faces))),
    detector.results(detector.some(photographs.backgrounds(data, backgrounds))),
  )


def measure_groups(detector: Photographs, data: pathlib.Path) -> dict[str, Any]:
  """Faces found and false boxes on the photographs of groups, at two IoUs."""
  kept = counting.above(detector.results(photographs.groups(data)), detector.threshold)
  measured = {}
  for iou in (counting.IOU, LOOSE_IOU):
    counts = counting.count(kept, iou)
    measured[f"iou {iou}"] = {
      "found": counting.proportion(counts.found, counts.faces),
      "false_boxes": counts.false_boxes,
    }
  return measured


def predict_london(
  predictor: ImagePredictor[Any], portraits: Sequence[Portrait]
) -> list[Prediction]:
  """The predictions for the portraits.

  Raises:
    ValueError: the predictor does not know happiness.
  """
  if SMILING not in predictor.class_names:
    raise ValueError(f"the classes are {', '.join(predictor.class_names)}, without {SMILING}")
  return predictor.predict(portrait.path for portrait in portraits)


def summarize_london(
  predictions: Sequence[Prediction], portraits: Sequence[Portrait]
) -> dict[str, Any]:
  """Portraits with exactly one box, and pairs in which the smiling one scores happier."""
  boxes = [portrait.boxes[0].tolist() for portrait in portraits]
  once = [counting.found_once(*pair) for pair in zip(predictions, boxes, strict=True)]
  scores = [
    counting.score_of_face(prediction, box, SMILING)
    for prediction, box in zip(predictions, boxes, strict=True)
  ]
  pairs = photographs.pairs_of(portraits, NEUTRAL, SMILING)
  happier = counting.higher_pairs([(scores[a], scores[b]) for a, b in pairs])
  return {
    "found_once": counting.proportion(sum(once), len(once)),
    "no_box": sum(not prediction.faces for prediction in predictions),
    "several_boxes": sum(len(prediction.faces) > 1 for prediction in predictions),
    "smiling_is_happier": counting.proportion(happier, len(pairs)),
  }


def london_of(data: pathlib.Path, limit: int) -> list[Portrait]:
  """The portraits; of at most `limit` persons, or of all if it is 0."""
  portraits = photographs.london(data)
  pairs = photographs.pairs_of(portraits, NEUTRAL, SMILING)
  step = photographs.step_of(len(pairs), limit)
  return [portraits[i] for i in itertools.chain.from_iterable(pairs[::step])]


def measure_left_out(
  detector: Photographs, data: pathlib.Path, scenes: Scenes, classifier: str | None
) -> tuple[dict[str, Any], list[Prediction], list[Portrait]]:
  """Measures a detector on photographs that were left out of training.

  Args:
    detector: the detector.
    data: folder of the photographs.
    scenes: the detections on left-out scenes.
    classifier: also names the expressions of portraits; None for the detector alone.

  Returns:
    The figures; the detector's predictions for the portraits of the London set; the portraits.
  """
  portraits = london_of(data, detector.limit)
  alone = predict_london(detector.predictor(None), portraits)
  figures = {
    "faces": scenes.faces_at(detector.threshold),
    "groups": measure_groups(detector, data),
    "backgrounds": scenes.backgrounds_at(detector.threshold),
    "london": summarize_london(alone, portraits),
  }
  if classifier:
    both = predict_london(detector.predictor(open_weights(classifier)), portraits)
    name = pathlib.PurePath(classifier).stem
    figures |= {"classifier": name, "london_two_stage": summarize_london(both, portraits)}
  return figures, alone, portraits


def measure_changes(
  detector: Photographs, data: pathlib.Path, faces: range
) -> list[dict[str, Any]]:
  """AP and recall on the photographs of faces with these numbers, for each change and level."""
  items = detector.some(photographs.scenes_with_faces(data, faces))
  rows = []
  for kind, change in changes.OF_PHOTOGRAPHS.items():
    for level in change.levels:
      results = detector.changed_results(items, change, level)
      counts = counting.count(counting.above(results, detector.threshold))
      recall = counting.proportion(counts.found, counts.faces)
      ap = counting.face_ap(results)
      rows.append({"change": kind, "level": level, "recall": recall, **ap})
  return rows

"""Measures a classifier on labelled faces, and on portraits with annotated boxes."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from crop_robustness import Classifiers, classify, collect, evaluate, open_table
from jaxtyping import Float

from cards import changes, counting
from cards.detector import NEUTRAL, SMILING, summarize_london
from cards.faces import Faces
from cards.photographs import Portrait, step_of
from ferjax.data.image import decode
from ferjax.inference.classification import ExpressionClassifier
from ferjax.inference.results import Prediction
from ferjax.inference.two_stage import CROP_SCALE, scale_margin, square_crop
from ferjax.tasks.classification.metrics import ClassificationMetrics

NEWS_CLASSES = ("neutral", "happiness", "sadness", "surprise", "anger")
Probabilities = Float[np.ndarray, "n k"]


@dataclasses.dataclass(frozen=True)
class Validation:
  """Predictions on the validation faces, with and without averaging those of the mirror image."""

  faces: Faces
  probabilities: Mapping[bool, Probabilities]  # by whether flips are averaged

  def metrics(self, *, flip: bool, without_twins: bool = False) -> ClassificationMetrics:
    """The package's metrics of the faces, or of those without a twin in training."""
    kept = ~self.faces.twins if without_twins else np.ones(len(self.faces.truth), bool)
    return collect(self.probabilities[flip][kept], self.faces.truth[kept], self.faces.class_names)

  def rows(self) -> list[dict[str, Any]]:
    """Metrics with and without twins and flips."""
    return [
      {"twins": twins, "flip": flip, **self.metrics(flip=flip, without_twins=not twins).compute()}
      for twins in (True, False)
      for flip in (False, True)
    ]


def measure_validation(classifiers: Classifiers, faces: Faces) -> Validation:
  """Classifies the faces."""
  subset = range(len(faces.class_names))
  found = {flip: classify(each, faces.images, subset) for flip, each in classifiers.items()}
  return Validation(faces, found)


def measure_changes(classifiers: Classifiers, validation: Validation) -> list[dict[str, Any]]:
  """Metrics on changed validation faces, without flips, for each change and level."""
  faces, rows = validation.faces, []
  subset = range(len(faces.class_names))
  for kind, change in changes.OF_FACES.items():
    for level in change.levels:
      probabilities = validation.probabilities[False]
      if level != change.unchanged:
        views = (change.apply(image, level) for image in faces.images)
        probabilities = classify(classifiers[False], views, subset)
      measured = collect(probabilities, faces.truth, faces.class_names).compute()
      headline = {name: value for name, value in measured.items() if "/" not in name}
      rows.append({"change": kind, "level": level, **headline})
  return rows


def measure_news(classifiers: Classifiers, table: pathlib.Path, limit: int) -> list[dict[str, Any]]:
  """Metrics on all faces of the news photographs, by crop and flip.

  The prediction is the most probable of the five classes of the set.

  Args:
    classifiers: know the five classes.
    table: with image and label.
    limit: at most so many faces, evenly spaced; 0 for all.
  """
  known = classifiers[False].class_names
  source = open_table(table, "", known)
  names = tuple(name for name in NEWS_CLASSES if name in known)
  rows = evaluate(classifiers, source, names, step=step_of(len(source), limit))
  return [{"crop": crop, "flip": flip, **metrics} for crop, flip, metrics in rows]


def predict_portraits(
  classifier: ExpressionClassifier, portraits: Sequence[Portrait]
) -> list[Prediction]:
  """Predictions for the squares around the annotated boxes, as after a detector."""
  margin = classifier.crop_margin or scale_margin(CROP_SCALE)
  images = [decode(portrait.path) for portrait in portraits]
  boxes = [tuple(portrait.boxes[0].tolist()) for portrait in portraits]
  crops = (square_crop(*pair, margin) for pair in zip(images, boxes, strict=True))
  found = classifier.classify_crops(crops)
  return [
    Prediction(str(p.path), i.shape[1], i.shape[0], (dataclasses.replace(face, box=box),))
    for p, i, face, box in zip(portraits, images, found, boxes, strict=True)
  ]


def summarize_portraits(
  predictions: Sequence[Prediction], portraits: Sequence[Portrait]
) -> dict[str, Any]:
  """How many portraits get the posed expression, and how many pairs have the right order."""
  hits: dict[str, list[bool]] = {NEUTRAL: [], SMILING: []}
  for prediction, portrait in zip(predictions, portraits, strict=True):
    hits[portrait.label].append(prediction.faces[0].expression == portrait.label)
  named = {label: counting.proportion(sum(own), len(own)) for label, own in hits.items()}
  return {**summarize_london(predictions, portraits), "named": named}

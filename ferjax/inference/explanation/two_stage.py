"""Explains the predictions of a detector and a classifier together."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ferjax.inference.base import ImagePredictor, Prepared
from ferjax.inference.classification import ExpressionClassifier
from ferjax.inference.detection import Predictor
from ferjax.inference.explanation.explainer import (
  ClassifierExplainer,
  DetectorExplainer,
  Explainer,
)
from ferjax.inference.explanation.maps import Explanation
from ferjax.inference.results import Box, Face
from ferjax.inference.two_stage import DetectAndClassify, square_around, square_crop


class TwoStageExplainer(Explainer):
  """Explains the classifier's logit of a class, for each detected face.

  The maps are those of `ClassifierExplainer` on the square around a face, at its place in the
  image. The faces are those of the predictor, so their scores have its settings.
  """

  predictor: DetectAndClassify

  def __init__(
    self,
    predictor: DetectAndClassify,
    *,
    target: str | None = None,
    layer: str | None = None,
    max_faces: int | None = None,
  ):
    """Compiles on the first image.

    Args:
      predictor: the predictor whose predictions are explained.
      target: the class to explain; None for the predicted one of each face.
      layer: of the classifier, as for `ClassifierExplainer`.
      max_faces: to explain, by decreasing score of the detector; None for all.

    Raises:
      TypeError: the classifier is an exported program, which has no gradient.
      ValueError: an unknown class, or a missing layer for a network without a default one.
    """
    super().__init__(predictor, target)
    classifier = predictor._classifier
    if not isinstance(classifier, ExpressionClassifier):
      raise _without_gradient(classifier)
    self._explainer = ClassifierExplainer(classifier, target=target, layer=layer)
    self._max_faces = max_faces

  def _explain(self, prepared: Prepared[Any]) -> tuple[Explanation, ...]:
    (faces,) = self.predictor._faces([prepared])
    return tuple(
      self._explain_face(prepared.image, face, face.box)
      for face in faces[: self._max_faces]
      if face.box is not None  # always true after a detector
    )

  def _explain_face(self, image: UInt8[np.ndarray, "h w 3"], face: Face, box: Box) -> Explanation:
    margin = self.predictor._crop_margin
    rows, columns = image.shape[:2]
    left, top, _ = square_around(box, margin, rows=rows, columns=columns)
    crop = self._explainer.predictor.prepare(square_crop(image, box, margin))
    explanation = self._explainer._explain_face(crop, face)
    x1, y1, x2, y2 = explanation.view
    return dataclasses.replace(
      explanation,
      to_image=explanation.to_image + np.array([[0, 0, left], [0, 0, top]]),
      view=(x1 + left, y1 + top, x2 + left, y2 + top),
    )


def explainer_of(
  predictor: ImagePredictor, *, target: str | None = None, max_faces: int | None = None
) -> Explainer:
  """The explainer of a loaded predictor.

  Args:
    predictor: of `ferjax.load_predictor`.
    target: the class to explain; None for the predicted one of each face.
    max_faces: to explain, by decreasing score of the detector; None for all.

  Raises:
    TypeError: the predictor runs an exported program, which has no gradient.
    ValueError: an unknown class, or no feature map is known for the network.
  """
  if isinstance(predictor, DetectAndClassify):
    return TwoStageExplainer(predictor, target=target, max_faces=max_faces)
  if isinstance(predictor, Predictor):
    return DetectorExplainer(predictor, target=target, max_faces=max_faces)
  if isinstance(predictor, ExpressionClassifier):
    return ClassifierExplainer(predictor, target=target)
  raise _without_gradient(predictor)


def _without_gradient(predictor: ImagePredictor) -> TypeError:
  return TypeError(
    f"explanations need the gradient of a network, which {type(predictor).__name__} does not have; "
    "expected a predictor of ferjax.load_predictor"
  )

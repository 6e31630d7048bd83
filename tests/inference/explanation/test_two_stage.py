"""With networks whose gradients can be computed by hand."""

import numpy as np
import pytest

from ferjax.inference.base import ImagePredictor
from ferjax.inference.classification import ExpressionClassifier
from ferjax.inference.detection import Predictor
from ferjax.inference.explanation.explainer import ClassifierExplainer
from ferjax.inference.explanation.two_stage import TwoStageExplainer, explainer_of
from ferjax.inference.two_stage import DetectAndClassify, square_crop

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
NAMES = ("red", "green", "blue")
MARGIN = (0.5, 0.25, 0.5, 0.25)


@pytest.fixture(scope="module")
def predictor(simple_networks):
  detector, classifier = (network() for network in simple_networks)
  detector = Predictor.from_model(detector, {}, ("face", "b", "c"), 32, batch_size=1, **PLAIN)
  classifier = ExpressionClassifier.from_model(
    classifier,
    {},
    NAMES,
    16,
    batch_size=2,
    logit_adjustment=0.5,
    class_prior=(0.2, 0.3, 0.5),
    **PLAIN,
  )
  return DetectAndClassify(detector, classifier, crop_margin=MARGIN)


@pytest.fixture(scope="module")
def image():
  """A red patch, darker, and a blue one at the left border, in a square that is not reduced."""
  image = np.zeros((32, 32, 3), np.uint8)
  image[8:16, 16:24, 0] = 230
  image[24:32, 0:8, 2] = 255
  image[8:12, 16:24, 1] = 100
  return image


@pytest.mark.parametrize("target", [None, "green"])
def test_maps_are_those_of_the_crops_at_their_place(predictor, image, target):
  explainer = TwoStageExplainer(predictor, target=target, layer="map")
  (explained,) = explainer.explain([image])
  (prediction,) = predictor.predict([image])
  assert [x.face for x in explained.explanations] == list(prediction.faces)
  assert [face.expression for face in prediction.faces] == ["blue", "red"]
  alone = predictor._classifier
  for explanation in explained.explanations:
    face = explanation.face
    assert explanation.target == (target or face.expression)
    own = ClassifierExplainer(alone, target=explanation.target, layer="map")
    ((expected,),) = (x.explanations for x in own.explain([square_crop(image, face.box, MARGIN)]))
    np.testing.assert_array_equal(explanation.cells, expected.cells)
    # The square is 16 pixels: the box of 8 with half of it on both sides.
    x1, y1, _, _ = face.box
    left, top = x1 - 4, y1 - 4
    np.testing.assert_allclose(explanation.to_image, [[16, 0, left], [0, 16, top]])
    assert explanation.view == (left, top, left + 16, top + 16)


def test_the_heat_is_on_the_face(predictor, image):
  (explained,) = TwoStageExplainer(predictor, layer="map").explain([image])
  _, red = explained.explanations
  heat, seen = red.heat((0.0, 0.0, 32.0, 32.0), 32, 32)
  rows, columns = np.nonzero(heat > 0.5)
  assert (rows.min() >= 6, rows.max() < 18) == (True, True)
  assert (columns.min() >= 14, columns.max() < 26) == (True, True)
  assert seen[4:20, 12:28].all()
  assert seen.sum() == 16 * 16


def test_at_most_so_many_faces(predictor, image):
  explainer = TwoStageExplainer(predictor, layer="map", max_faces=1)
  (explained,) = explainer.explain([image])
  assert [x.face.expression for x in explained.explanations] == ["blue"]


def test_without_a_face(predictor):
  explainer = TwoStageExplainer(predictor, layer="map")
  (explained,) = explainer.explain([np.zeros((9, 5, 3), np.uint8)])
  assert explained.explanations == ()


class Program(ImagePredictor[np.ndarray]):
  """A predictor without a network."""

  class_names = NAMES

  def _inputs(self, image):
    return image

  def _faces(self, batch):
    return [() for _ in batch]


def test_the_explainer_of_a_predictor(predictor):
  for part in (predictor, predictor._classifier, predictor._detector):
    with pytest.raises(ValueError, match="no feature map is known for"):
      explainer_of(part)
  with pytest.raises(ValueError, match="unknown class 'grey'"):
    explainer_of(predictor, target="grey")
  with pytest.raises(TypeError, match=r"need the gradient .* Program does not have"):
    explainer_of(Program())

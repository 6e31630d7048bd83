"""The weights that are part of the package, on a photograph."""

import pathlib

import pytest

import ferjax
from ferjax.weights import DEFAULT_CLASSIFIER, DEFAULT_DETECTOR, known_weights, open_weights

PORTRAITS = pathlib.Path(__file__).parents[1] / "photographs" / "portraits.jpg"
# Boxes by hand, from the brows to the chin and from ear to ear; the posed expressions.
FACES = {
  (98, 128, 218, 236): "happiness",
  (424, 112, 534, 214): "neutral",
  (744, 118, 856, 222): "happiness",
}

pytestmark = pytest.mark.usefixtures("cached_programs")


def _iou(a, b):
  width, height = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
  common = max(0, width) * max(0, height)
  areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
  return common / (sum(areas) - common)


def test_the_default_weights_find_and_classify_the_faces_of_a_photograph():
  (prediction,) = ferjax.load_predictor(batch_size=1).predict([PORTRAITS])
  faces = sorted(prediction.faces, key=lambda face: face.box[0])
  assert [face.expression for face in faces] == list(FACES.values())
  for face, box in zip(faces, FACES, strict=True):
    assert _iou(face.box, box) > 0.6
    assert face.score > 0.7
    assert sum(face.scores.values()) == pytest.approx(1, abs=1e-5)


def test_descriptions_of_the_weights():
  assert {DEFAULT_DETECTOR, DEFAULT_CLASSIFIER} <= set(known_weights())
  total = 0
  for name in known_weights():
    weights = open_weights(name)
    total += weights.size
    assert weights.meta["name"] == name
    for field in ("data", "licence", "class_names", "mean", "std", "metrics"):
      assert weights.meta[field], f"{name}: {field}"
  assert total < 20e6  # of the wheel

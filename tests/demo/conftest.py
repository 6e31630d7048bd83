"""A detector and a classifier that can be computed by hand, and files that they tell apart."""

import io

import numpy as np
import pytest
from PIL import Image

from ferjax.demo.answers import Answers
from ferjax.demo.limits import DemoLimits
from ferjax.inference.classification import ExpressionClassifier
from ferjax.inference.detection import Predictor
from ferjax.inference.explanation.two_stage import TwoStageExplainer
from ferjax.inference.two_stage import DetectAndClassify

NAMES = ("red", "green <b>", "blue")
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@pytest.fixture(scope="session")
def predictor(simple_networks):
  """Finds bright patches of 8 pixels in squares of 32, and names their colour."""
  detector, classifier = (network() for network in simple_networks)
  detector = Predictor.from_model(detector, {}, NAMES, 32, batch_size=4, **PLAIN)
  classifier = ExpressionClassifier.from_model(classifier, {}, NAMES, 8, batch_size=4, **PLAIN)
  return DetectAndClassify(detector, classifier, crop_scale=1.0)


@pytest.fixture(scope="session")
def make_answers(predictor):
  explainer = TwoStageExplainer(predictor, layer="map", max_faces=6)
  return lambda **limits: Answers(predictor, explainer, DemoLimits(**limits))


def colourful(*patches):
  """A dark picture of 32 pixels with patches of 8: (row, column, channel)."""
  image = np.full((32, 32, 3), 20, np.uint8)
  for row, column, channel in patches:
    image[8 * row : 8 * row + 8, 8 * column : 8 * column + 8, channel] = 255
  return image


@pytest.fixture(scope="session")
def make_picture():
  return colourful


@pytest.fixture(scope="session")
def encode():
  """The PNG file of an image."""

  def encoded(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()

  return encoded

"""A detector and a classifier that can be computed by hand, and files that they tell apart."""

import io

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ferjax.demo.answers import Answers
from ferjax.demo.limits import DemoLimits
from ferjax.inference.classification import ExpressionClassifier
from ferjax.inference.detection import Predictor
from ferjax.inference.explanation.two_stage import TwoStageExplainer
from ferjax.inference.two_stage import DetectAndClassify
from ferjax.typing import ClassifierOutput, DetectorOutput

NAMES = ("red", "green <b>", "blue")
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


class Cells(nn.Module):
  """Means of square cells."""

  side: int

  def __call__(self, image):
    return nn.avg_pool(image, (self.side, self.side), (self.side, self.side))


class Patches(nn.Module):
  """A cell of 8 pixels that is bright in a channel is a face of that class."""

  @nn.compact
  def __call__(self, image, *, train):
    cells = Cells(8, name="neck")(image)
    center = jnp.full_like(cells[..., :2], 0.5)
    objectness = 16 * (cells.max(-1, keepdims=True) - 0.7)
    levels = [center, 0 * center, objectness, 20 * (cells - 0.5)]
    return DetectorOutput((jnp.concatenate(levels, axis=-1),))


class Colours(nn.Module):
  """The logit of a class is the sum of its channel over cells of 4 pixels."""

  @nn.compact
  def __call__(self, image, *, train):
    logits = Cells(4, name="map")(image).sum((1, 2))
    return ClassifierOutput(logits, logits)


@pytest.fixture(scope="session")
def predictor():
  """Finds bright patches of 8 pixels in squares of 32, and names their colour."""
  detector = Predictor.from_model(Patches(), {}, NAMES, 32, batch_size=4, **PLAIN)
  classifier = ExpressionClassifier.from_model(Colours(), {}, NAMES, 8, batch_size=4, **PLAIN)
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

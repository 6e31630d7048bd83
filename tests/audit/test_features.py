import dataclasses
from typing import Any

import flax.linen as nn
import numpy as np
import pytest

from ferjax.audit.features import network_features, view_of
from ferjax.data.classification.views import center_view
from ferjax.trained import TrainedNetwork
from ferjax.typing import ClassifierOutput


class Corners(nn.Module):
  """Its features are the first and the last pixel of a row; a mirror image swaps them."""

  def __call__(self, image, *, train):
    features = image[:, 0, :: image.shape[2] - 1, 0]
    return ClassifierOutput(features, features)


@dataclasses.dataclass
class Weights(TrainedNetwork):
  meta: Any
  name: Any = "corners"

  def variables(self):
    return {}

  def build_model(self, create_model):
    return Corners()


META = {"task": "classification", "image_size": 32, "resize": 40, "grey": False}
META |= {"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.3, 0.2]}


@pytest.mark.parametrize("grey", [False, True])
def test_features_are_the_mean_of_an_image_and_its_mirror_image(grey):
  """In batches of two, the last one padded; by hand."""
  rng = np.random.default_rng(0)
  images = [rng.integers(0, 256, (30 + 4 * i, 40, 3)).astype(np.uint8) for i in range(3)]
  weights = Weights({**META, "grey": grey})
  views = [view_of(weights)(image) for image in images]
  for image, view in zip(images, views, strict=True):
    expected = center_view(image, 32, resize=40, grey=grey)
    np.testing.assert_array_equal(view, expected[..., :1] if grey else expected)
  found = network_features(weights, iter(views), batch_size=2)
  corners = np.array([(view[0, 0, 0] / 255 + view[0, -1, 0] / 255) / 2 for view in views])
  np.testing.assert_allclose(found, ((corners - 0.5) / 0.25)[:, None].repeat(2, axis=1), atol=1e-5)


def test_other_weights_are_refused():
  with pytest.raises(ValueError, match="is for the task 'detection'; expected 'classification'"):
    network_features(Weights({**META, "task": "detection"}), [])
  with pytest.raises(ValueError, match="there is no image"):
    network_features(Weights(META), [])

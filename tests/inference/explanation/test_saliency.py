"""Against heads whose gradients are known by hand or by finite differences."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ferjax.inference.explanation.saliency import (
  apply_watched,
  default_layer,
  hirescam,
  with_gradients,
)
from ferjax.models import create_model
from ferjax.typing import ClassifierOutput


class Averaged(nn.Module):
  """A map, its mean, and a linear head: what class activation mapping was made for."""

  normalised: bool = False

  @nn.compact
  def __call__(self, image, *, train):
    x = nn.Conv(5, (3, 3), name="map")(image)
    features = nn.Dense(5, name="outer")(x).mean((1, 2))
    if self.normalised:
      features = nn.LayerNorm(name="norm")(features)
    return ClassifierOutput(nn.Dense(4, name="head")(features), features)


@pytest.fixture(scope="module")
def image():
  return jax.random.normal(jax.random.key(0), (1, 6, 8, 3))


def _cells(model, variables, image, layer, number):
  @jax.jit
  def cells(variables, image):
    _, seen = apply_watched(model, variables, image, [layer])

    def logit(features):
      output, _ = apply_watched(model, variables, image, [layer], replaced={layer: features})
      return output.logits[0, number]

    return hirescam(seen[layer], jax.grad(logit)(seen[layer]))[0], seen[layer][0]

  return map(np.asarray, cells(variables, image))


def test_watching_changes_nothing(image):
  model = Averaged()
  variables = model.init(jax.random.key(1), image, train=False)
  expected = model.apply(variables, image, train=False)
  output, seen = apply_watched(model, variables, image, ["map", "head"])
  np.testing.assert_array_equal(output.logits, expected.logits)
  np.testing.assert_array_equal(seen["head"], expected.logits)
  assert seen["map"].shape == (1, 6, 8, 5)
  again, seen_again = apply_watched(model, variables, image, ["map"], replaced=seen)
  np.testing.assert_array_equal(again.logits, expected.logits)
  np.testing.assert_array_equal(seen_again["map"], seen["map"])


def test_what_is_replaced_is_what_follows(image):
  model = Averaged()
  variables = model.init(jax.random.key(1), image, train=False)
  output, _ = apply_watched(model, variables, image, ["head"], replaced={"head": jnp.ones((1, 4))})
  np.testing.assert_array_equal(output.logits, np.ones((1, 4)))


def test_an_unknown_layer_is_an_error(image):
  model = Averaged()
  variables = model.init(jax.random.key(1), image, train=False)
  with pytest.raises(ValueError, match="Averaged calls no submodule 'stage3'"):
    apply_watched(model, variables, image, ["stage3"])


def test_of_a_linear_head_it_is_class_activation_mapping(image):
  """The map that weighs features by the weights of the class (Zhou et al., CVPR 2016)."""
  model = Averaged()
  variables = model.init(jax.random.key(1), image, train=False)
  cells, features = _cells(model, variables, image, "outer", 2)
  weights = np.asarray(variables["params"]["head"]["kernel"])[:, 2]
  np.testing.assert_allclose(cells, features @ weights / 48, rtol=1e-5)
  # All cells together give the logit, but for the bias.
  logit = model.apply(variables, image, train=False).logits[0, 2]
  assert cells.sum() == pytest.approx(float(logit), rel=1e-4)


def test_behind_a_mean_it_is_grad_cam(image):
  """Channel weights by finite differences in float64, as a LayerNorm stands before the head."""
  model = Averaged(normalised=True)
  variables = model.init(jax.random.key(1), image, train=False)
  cells, features = _cells(model, variables, image, "outer", 1)
  head = np.asarray(variables["params"]["head"]["kernel"], np.float64)[:, 1]

  def logit(channels):
    centred = channels - channels.mean()
    return centred / np.sqrt((centred**2).mean() + 1e-6) @ head

  means = features.astype(np.float64).mean((0, 1))
  step = 1e-5
  weights = [(logit(means + s) - logit(means - s)) / (2 * step) for s in step * np.eye(5)]
  np.testing.assert_allclose(cells, features @ np.array(weights) / 48, rtol=1e-3, atol=1e-6)


def test_bfloat16_is_added_up_in_float32():
  ones = jnp.ones((1, 1, 1000), jnp.bfloat16)
  cells = hirescam(ones, ones)
  assert cells.dtype == jnp.float32
  assert float(cells[0, 0]) == 1000


@pytest.mark.parametrize(
  ("name", "options", "size", "layer"),
  [
    ("emonext", {"size": "atto"}, 224, "stage3"),
    ("emonext", {"size": "atto"}, 64, "stage3"),
    ("emonext", {"size": "atto"}, 32, "downsample2/norm"),
    ("fermam", {"size": "nano", "variant": "released"}, 32, "image"),
  ],
)
def test_the_layer_is_an_image_of_the_image(name, options, size, layer):
  model = create_model(name, num_classes=3, **options)
  assert default_layer(model, size) == layer
  image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)

  def seen(image):
    variables = model.init(jax.random.key(0), image, train=False)
    return apply_watched(model, variables, image, [layer])[1][layer]

  b, rows, columns, _ = jax.eval_shape(seen, image).shape
  assert b == 1
  assert rows == columns >= 2


def test_of_other_networks_no_layer_is_known():
  with pytest.raises(ValueError, match="no feature map is known of Averaged"):
    default_layer(Averaged(), 64)


def test_frozen_parts_pass_gradients_on():
  model = create_model("fermam", num_classes=3, size="nano", frozen="image+landmark")
  assert with_gradients(model).frozen == "none"
  assert with_gradients(model).size == "nano"
  assert with_gradients(Averaged()) == Averaged()

"""Against heads whose gradients are computed by hand or by finite differences."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ferjax.inference.explanation.saliency import (
  apply_capturing,
  default_layer,
  hirescam,
  unfrozen,
)
from ferjax.models import create_model
from ferjax.typing import ClassifierOutput


class Averaged(nn.Module):
  """A map, its mean and a linear head, as in class activation mapping."""

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


def _cells(model, variables, image, layer, label):
  @jax.jit
  def cells(variables, image):
    _, captured = apply_capturing(model, variables, image, [layer])

    def logit(features):
      output, _ = apply_capturing(model, variables, image, [layer], replaced={layer: features})
      return output.logits[0, label]

    return hirescam(captured[layer], jax.grad(logit)(captured[layer]))[0], captured[layer][0]

  return map(np.asarray, cells(variables, image))


def test_capturing_changes_nothing(image):
  model = Averaged()
  variables = model.init(jax.random.key(1), image, train=False)
  expected = model.apply(variables, image, train=False)
  output, captured = apply_capturing(model, variables, image, ["map", "head"])
  np.testing.assert_array_equal(output.logits, expected.logits)
  np.testing.assert_array_equal(captured["head"], expected.logits)
  assert captured["map"].shape == (1, 6, 8, 5)
  again, captured_again = apply_capturing(model, variables, image, ["map"], replaced=captured)
  np.testing.assert_array_equal(again.logits, expected.logits)
  np.testing.assert_array_equal(captured_again["map"], captured["map"])


def test_a_replaced_output_is_used(image):
  model = Averaged()
  variables = model.init(jax.random.key(1), image, train=False)
  output, _ = apply_capturing(
    model, variables, image, ["head"], replaced={"head": jnp.ones((1, 4))}
  )
  np.testing.assert_array_equal(output.logits, np.ones((1, 4)))


def test_an_unknown_layer_is_an_error(image):
  model = Averaged()
  variables = model.init(jax.random.key(1), image, train=False)
  with pytest.raises(ValueError, match="Averaged calls no submodule 'stage3'"):
    apply_capturing(model, variables, image, ["stage3"])


def test_a_linear_head_gives_class_activation_mapping(image):
  """The features weighted by the class's weights (Zhou et al., CVPR 2016)."""
  model = Averaged()
  variables = model.init(jax.random.key(1), image, train=False)
  cells, features = _cells(model, variables, image, "outer", 2)
  weights = np.asarray(variables["params"]["head"]["kernel"])[:, 2]
  np.testing.assert_allclose(cells, features @ weights / 48, rtol=1e-5)
  # The cells sum to the logit, without the bias.
  logit = model.apply(variables, image, train=False).logits[0, 2]
  assert cells.sum() == pytest.approx(float(logit), rel=1e-4)


def test_before_a_mean_it_equals_grad_cam(image):
  """Channel weights by finite differences in float64; a LayerNorm precedes the head."""
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


def test_bfloat16_is_summed_in_float32():
  ones = jnp.ones((1, 1, 1000), jnp.bfloat16)
  cells = hirescam(ones, ones)
  assert cells.dtype == jnp.float32
  assert float(cells[0, 0]) == 1000


@pytest.mark.parametrize(
  ("name", "options", "size", "layer"),
  [
    ("emonext", {"size": "atto"}, 224, "stage3"),
    ("emonext", {"size": "atto"}, 128, "downsample3/norm"),
    ("emonext", {"size": "atto"}, 64, "downsample2/norm"),
    ("emonext", {"size": "atto"}, 32, "downsample2/norm"),
    ("fermam", {"size": "nano", "variant": "released"}, 64, "image"),
  ],
)
def test_the_default_layer_is_a_square_map_of_4_by_4_cells_or_more(name, options, size, layer):
  model = create_model(name, num_classes=3, **options)
  assert default_layer(model, size) == layer
  image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)

  def captured(image):
    variables = model.init(jax.random.key(0), image, train=False)
    return apply_capturing(model, variables, image, [layer])[1][layer]

  b, rows, columns, _ = jax.eval_shape(captured, image).shape
  assert b == 1
  assert rows == columns >= 4


def test_unregistered_networks_have_no_default_layer():
  with pytest.raises(ValueError, match="no feature map is known for Averaged"):
    default_layer(Averaged(), 64)


def test_unfrozen_changes_frozen_only():
  model = create_model("fermam", num_classes=3, size="nano", frozen="image+landmark")
  assert unfrozen(model).frozen == "none"
  assert unfrozen(model).size == "nano"
  assert unfrozen(Averaged()) == Averaged()

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import ferjax
from ferjax.models.registry import (
  MODELS,
  ModelSpec,
  model_spec,
  register_model,
  resolve,
  spec_of,
)


class Plain(nn.Module):
  num_classes: int
  frozen: str = "none"
  dtype: jnp.dtype = jnp.float32


PLAIN = ModelSpec(module=Plain, task="classification", image_size=32, parts=("stem", "head"))


def test_every_network_is_registered():
  found = {name: (spec.task, spec.image_size, spec.stride) for name, spec in MODELS.items()}
  assert found == {
    "fer_yolo_mamba": ("detection", 320, 32),
    "emonext": ("classification", 224, 32),
    "fermam": ("classification", 224, 32),
  }


@pytest.mark.parametrize("name", MODELS)
def test_entries_match_their_networks(name):
  """Parts, the default of every choice, and lazy references."""
  spec = model_spec(name)
  model = ferjax.create_model(name, num_classes=3)
  assert spec_of(model) is spec
  image = jax.ShapeDtypeStruct((1, spec.image_size, spec.image_size, 3), jnp.float32)
  init = lambda image: model.init(jax.random.key(0), image, train=False)  # noqa: E731
  assert set(jax.eval_shape(init, image)["params"]) == set(spec.parts)
  for field, known in {**spec.choices, "frozen": spec.frozen}.items():
    assert getattr(model, field) in known
  for reference in (*spec.released_names.values(), *spec.importers.values()):
    assert callable(resolve(reference))
  assert spec.module in spec.released_names


def test_a_name_is_taken_once():
  message = "'fermam' is already registered, as FERMam; choose another name"
  with pytest.raises(ValueError, match=message):
    register_model("fermam", PLAIN)
  assert spec_of(Plain(2)) is None


def test_unknown_names_list_the_known():
  with pytest.raises(ValueError, match="'yolo'; known: fer_yolo_mamba, emonext, fermam"):
    model_spec("yolo")


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"module": nn.Dense}, "Dense has no field num_classes, frozen; a network has the fields"),
    ({"choices": {"size": ("s",)}}, "Plain has no field size"),
    ({"frozen": ("none", "stem+tail")}, r"frozen 'stem\+tail' of Plain names tail; its parts: st"),
  ],
)
def test_invalid_entries(changes, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(PLAIN, **changes)

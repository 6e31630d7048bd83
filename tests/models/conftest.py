"""Flax variables and gradients under the released names."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

import ferjax
from ferjax.interop import released_names, torch_weights


@pytest.fixture(scope="session")
def released_model():
  return ferjax.create_model("fer_yolo_mamba", num_classes=7, variant="released")


@pytest.fixture(scope="session")
def released_variables(released_model, golden):
  return torch_weights.import_state_dict(released_model, golden.weights())


@pytest.fixture(scope="session")
def golden_image(golden_rules):
  image = golden_rules.image("input:fer_yolo_mamba", (2, 3, 320, 320))
  return jnp.asarray(image.transpose(0, 2, 3, 1))


@dataclasses.dataclass
class StandAlone:
  """A part of the network by itself; `path` is where it sits in the whole one."""

  module: nn.Module
  path: tuple[str, ...]
  whole: nn.Module

  def names(self, variables) -> dict[tuple[str, ...], str]:
    """Variable path -> name in the released stand-alone module."""
    rename = released_names.table_of(self.whole)
    prefix = rename(("params", *self.path, "")).rstrip(".")
    return {
      path: rename((path[0], *self.path, *path[1:])).removeprefix(prefix + ".")
      for path in flatten_dict(variables)
    }

  def variables(self, x, weights, **kwargs):
    init = jax.eval_shape(lambda: self.module.init(jax.random.key(0), x, **kwargs))
    names, shapes = self.names(init), flatten_dict(init)
    used = {n for n in weights if not released_names.is_ignored(n)}
    assert used == set(names.values())
    filled = {
      path: jnp.asarray(torch_weights._from_torch(path, weights[name], shapes[path].shape))
      for path, name in names.items()
    }
    return unflatten_dict(filled)

  def released(self, variables) -> dict[str, np.ndarray]:
    """The variables (or gradients) in torch's layout under the released names."""
    flat = flatten_dict(variables)
    return {
      name: torch_weights._to_torch(path, np.asarray(flat[path]))
      for path, name in self.names(variables).items()
    }


@pytest.fixture
def stand_alone(released_model):
  return lambda module, *path: StandAlone(module, path, released_model)

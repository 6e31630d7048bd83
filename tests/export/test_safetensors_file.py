import chex
import numpy as np
import pytest

import ferjax
from ferjax.export import ExportOptions, export_network
from ferjax.trained import TrainedNetwork
from ferjax.weights import open_weights


class Network(TrainedNetwork):
  """Some values, whose meaning the file does not depend on."""

  name = "small"
  settings = {"flip": True}

  def __init__(self):
    self.meta = {
      "model": {"name": "emonext", "size": "atto", "variant": "corrected"},
      "task": "classification",
      "class_names": ["a", "b"],
      "image_size": 32,
      "mean": [0.5, 0.4, 0.3],
      "std": [0.25, 0.2, 0.1],
      "grey": True,
      "resize": 40,
      "class_prior": [0.75, 0.25],
      "selection": "",
      "step": 7,
      "epoch": 1.5,
      "metrics": {"accuracy": 0.75},
      "versions": {"ferjax": "0.0.9"},
      "initialised": ["head"],
    }

  def variables(self):
    values = np.random.default_rng(0).standard_normal
    return {
      "params": {"stem": {"kernel": values((3, 3, 3, 64), np.float32), "bias": values(64)}},
      "batch_stats": {"stem": {"mean": values(64)}},
    }


@pytest.fixture
def network():
  return Network()


def test_every_bit_is_read_back(network, tmp_path):
  file = tmp_path / "network.safetensors"
  about = export_network(network, "safetensors", file)
  assert about == "1,792 parameters, kernels in float32"
  expected = {
    collection: {"stem": {name: np.float32(x) for name, x in values["stem"].items()}}
    for collection, values in network.variables().items()
  }
  chex.assert_trees_all_equal(ferjax.load_variables(file), expected)
  opened = open_weights(file)
  assert opened.meta["name"] == "network"
  assert opened.settings == network.settings
  fields = network.meta.keys() - {"metrics", "versions"}
  assert {field: opened.meta[field] for field in fields} == {
    field: network.meta[field] for field in fields
  }
  assert list(tmp_path.iterdir()) == [file]


def test_half_the_size(network, tmp_path):
  whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
  export_network(network, "safetensors", whole)
  export_network(network, "safetensors", half, options=ExportOptions(dtype="float16"))
  assert whole.stat().st_size - half.stat().st_size == 2 * 3 * 3 * 3 * 64
  # Half the distance of two float16 numbers: 11 bits, or 2**-24 for the smallest numbers.
  chex.assert_trees_all_close(
    ferjax.load_variables(half), ferjax.load_variables(whole), rtol=2**-11, atol=2**-25
  )


def test_another_dtype(network, tmp_path):
  file = tmp_path / "w.safetensors"
  with pytest.raises(ValueError, match="the dtype is 'int8'; expected float16 or float32"):
    export_network(network, "safetensors", file, options=ExportOptions(dtype="int8"))
  assert list(tmp_path.iterdir()) == []

"""State dicts in the names of the networks' authors."""

import functools
import sys

import chex
import jax
import numpy as np
import pytest

from ferjax.export import ExportOptions, export_network
from ferjax.interop.importing import compare_files
from ferjax.interop.torch_weights import abstract_variables
from ferjax.models import create_model
from ferjax.models.options import model_arguments, model_config
from ferjax.trained import TrainedNetwork, network_meta


class Network(TrainedNetwork):
  """A small network for 32 pixels, with random variables."""

  name = "small"
  settings = {}

  def __init__(self, model, task, random_values):
    self.meta = {
      "model": {"dtype": "float32", "variant": "corrected", **model},
      "task": task,
      "class_names": ["a", "b", "c"],
      "image_size": 32,
      "mean": [0.5, 0.4, 0.3],
      "std": [0.25, 0.2, 0.1],
      "grey": True,
      "resize": 40 if task == "classification" else 0,
      "class_prior": [0.5, 0.25, 0.25],
      "selection": "selected on test data",
      "step": 7,
      "epoch": 1.5,
      "metrics": {},
      "versions": {"ferjax": "0.0.9"},
      "data": "two photographs",
      "licence": "CC0",
    }
    self.settings = {"flip": True} if task == "classification" else {"score_threshold": 0.5}
    self.values = random_values(abstract_variables(self.build_model(create_model), 32))

  def variables(self):
    return self.values


NETWORKS = {
  "emonext": ({"size": "atto", "drop_path_rate": 0.2}, "classification"),
  "fermam": ({"size": "nano", "mode": "both", "dropout_rate": 0.3}, "classification"),
  "fer_yolo_mamba": (
    {"size": "nano", "prior_probability": None, "drop_path_rate": 0.0},
    "detection",
  ),
}


@pytest.fixture(scope="module")
def make(random_values):
  """Makes one of the networks."""

  @functools.cache
  def make(name):
    model, task = NETWORKS[name]
    # As a checkpoint has them: all arguments, with those that are defaults.
    arguments = model_arguments(model_config({"name": name, **model}))
    return Network(arguments, task, random_values)

  return make


@pytest.mark.parametrize("name", NETWORKS)
def test_import_is_the_exact_inverse(make, name, tmp_path):
  pytest.importorskip("torch")
  network, file = make(name), tmp_path / "w.pth"
  about = export_network(network, "torch", file)
  imported = compare_files(name, str(file))
  assert about == f"{len(imported.entries)} entries with the released names"
  assert {*imported.match.ignored.values()} <= {
    "a counter of BatchNorm",
    "a layer whose output is not used",
  }
  chex.assert_trees_all_equal(imported.variables(), network.variables())
  assert imported.description.meta == network_meta(network.meta)
  assert imported.model == network.build_model(create_model)


def test_what_is_known_of_the_training_is_kept(make, tmp_path):
  pytest.importorskip("torch")
  network = make("emonext")
  export_network(network, "torch", tmp_path / "w.pth")
  checkpoint = compare_files("emonext", str(tmp_path / "w.pth")).write(tmp_path / "run")
  assert checkpoint.folder.name == "7"
  assert checkpoint.settings == network.settings
  for field in ("selection", "step", "epoch", "data", "licence"):
    assert checkpoint.meta[field] == network.meta[field], field
  chex.assert_trees_all_equal(checkpoint.variables(), network.variables())


def test_programs_of_torch_read_it_without_running_code(make, tmp_path):
  torch = pytest.importorskip("torch")
  network, file = make("emonext"), tmp_path / "w.pth"
  export_network(network, "torch", file)
  content = torch.load(file, weights_only=True)
  assert content["ferjax"]["class_names"] == ["a", "b", "c"]
  assert content["ferjax"]["kind"] == "torch"
  kernel = content["state_dict"]["stages.0.1.dwconv.weight"]
  assert (kernel.dtype, kernel.is_contiguous()) == (torch.float32, True)
  ours = network.values["params"]["stage0"]["block1"]["conv"]["kernel"]
  np.testing.assert_array_equal(kernel.numpy(), ours.transpose(3, 2, 0, 1))


def test_layers_without_use_take_no_space(make, tmp_path):
  """The released FERMam has 13 million values in layers whose output it does not use."""
  torch = pytest.importorskip("torch")
  network, file = make("fermam"), tmp_path / "w.pth"
  export_network(network, "torch", file)
  values = sum(x.size for x in jax.tree.leaves(network.values))
  assert file.stat().st_size < 1.2 * 4 * values
  unused = torch.load(file, weights_only=True)["state_dict"]["ir_back.output_layer.3.weight"]
  assert (unused.shape, unused.dtype) == ((512, 512 * 7 * 7), torch.float32)
  assert not unused.any()


def test_without_torch(make, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "torch", None)  # as if not installed
  with pytest.raises(ImportError, match=r"pip install 'ferjax\[torch\]'"):
    export_network(make("emonext"), "torch", tmp_path / "w.pth")
  assert list(tmp_path.iterdir()) == []


def test_options_of_other_formats(make, tmp_path):
  options = ExportOptions(dtype="float16")
  with pytest.raises(ValueError, match="dtype is float16, but does not apply to the format torch"):
    export_network(make("emonext"), "torch", tmp_path / "w.pth", options=options)

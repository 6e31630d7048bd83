"""A trained network of a few values: the package does not depend on what they mean."""

import grain
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from ferjax.checkpoint import Checkpoints
from ferjax.trained import TrainedNetwork
from ferjax.weights import save_weights


class SmallNetwork(TrainedNetwork):
  """A classifier of two classes; `change` replaces fields of its description."""

  name = "small"

  def __init__(self, **change):
    rng = np.random.default_rng(0)
    self.meta = {
      "model": {"name": "emonext", "size": "atto"},
      "task": "classification",
      "class_names": ["a", "b"],
      "image_size": 32,
      "mean": (0.5, 0.4, 0.3),
      "std": (0.25, 0.2, 0.1),
      "grey": True,
      "resize": 40,
      "class_prior": [0.75, 0.25],
      "selection": "",
      "step": 7,
      "epoch": 1.5,
      "metrics": {"accuracy": 0.75, "recall_b": float("nan")},
      "versions": {"ferjax": "0.0.9"},
    } | change
    self.values = {
      "params": {
        "head": {"kernel": rng.normal(size=(3, 2)), "bias": np.float32([1e-7, 70000.0])},
        "scan": {"A_log": rng.normal(size=(2, 3))},
        "tiny": {"kernel": np.full((1, 2), 1e-6)},
        "huge": {"kernel": np.full((1, 2), 1e5)},
        "zero": {"kernel": np.zeros((1, 2))},
      },
      "batch_stats": {"bn": {"var": np.float32([1e-9, 3.0])}},
    }

  def variables(self):
    return self.values


@pytest.fixture
def network():
  return SmallNetwork


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
  """The workdir of a run of the small network, saved after step 5."""
  workdir = tmp_path_factory.mktemp("small") / "run"
  network = SmallNetwork(step=5, mean=[0.5, 0.4, 0.3], std=[0.25, 0.2, 0.1])
  flat = flatten_dict(network.values)
  variables = unflatten_dict({path: jnp.asarray(x, jnp.float32) for path, x in flat.items()})
  checkpoints = Checkpoints(workdir, keep=1, metric="accuracy")
  iterator = iter(grain.MapDataset.range(4).to_iter_dataset())
  checkpoints.save(
    5,
    variables=variables,
    train={"params": variables["params"]},
    iterator=iterator,
    meta={"config": {}, "num_examples": 4, "num_hosts": 1, "data_start": 0, **network.meta},
    metrics={"accuracy": 0.75},
  )
  checkpoints.close()
  iterator.close()
  return workdir


@pytest.fixture
def saved(tmp_path):
  """A weights file of the small network."""
  save_weights(SmallNetwork(), tmp_path / "own.safetensors", data="two photographs", licence="CC0")
  return tmp_path / "own.safetensors"


@pytest.fixture
def own_weights(saved, monkeypatch):
  """The folder of `saved`, as the user's folder of known weights."""
  monkeypatch.setenv("FERJAX_WEIGHTS", str(saved.parent))
  return saved.parent

"""Several fake CPU devices and strict modes for every test, and the recorded numbers."""

import importlib.util
import pathlib

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")

_GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden_rules():
  """The reader of the recorded numbers: rebuilds weights and inputs from their rules."""
  spec = importlib.util.spec_from_file_location("golden_rules", _GOLDEN / "golden_rules.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.fixture(scope="session")
def golden(golden_rules):
  """Numbers of the released FER-YOLO-Mamba program."""
  return golden_rules.Golden(str(_GOLDEN / "fer_yolo_mamba"))


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
  """The workdir of a nano network for 64 pixels, as saved after step 3.

  Its weights are random but of a size that makes the outputs differ from cell to cell.
  """
  # Imported here so that tests of the data package run without these.
  import grain
  import jax.numpy as jnp
  import numpy as np
  import optax

  from ferjax.data.image import IMAGENET_MEAN, IMAGENET_STD
  from ferjax.expressions import SEVEN_EXPRESSIONS
  from ferjax.models import create_model
  from ferjax.training.checkpoint import Checkpoints
  from ferjax.training.state import create_state, init_variables

  options = {"name": "fer_yolo_mamba", "size": "nano", "variant": "corrected", "dtype": "float32"}
  model = create_model(num_classes=7, **options)
  rng = np.random.default_rng(0)

  def fill(path, leaf):
    name = path[-1].key
    if name in ("scale", "var", "D"):
      return jnp.ones(leaf.shape)
    if name in ("bias", "mean", "A_log"):
      return jnp.zeros(leaf.shape)
    fan_in = np.prod(leaf.shape[:-1])
    return jnp.asarray(rng.standard_normal(leaf.shape) * np.sqrt(2 / fan_in), jnp.float32)

  shapes = jax.eval_shape(lambda key: init_variables(model, key, 64), jax.random.key(0))
  variables = jax.tree_util.tree_map_with_path(fill, shapes)
  state = create_state(variables, optax.sgd(0.1), ema=False).replace(step=jnp.int32(3))
  meta = {
    "model": options,
    "task": "detection",
    "class_names": SEVEN_EXPRESSIONS,
    "image_size": 64,
    "mean": IMAGENET_MEAN,
    "std": IMAGENET_STD,
    "step": 3,
  }
  workdir = tmp_path_factory.mktemp("tiny") / "workdir"
  checkpoints = Checkpoints(workdir, keep=1, metric="map50")
  iterator = iter(grain.MapDataset.range(4).to_iter_dataset())
  checkpoints.save(state, iterator, meta, metrics=None)
  checkpoints.close()
  iterator.close()
  return workdir

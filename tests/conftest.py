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
def emonext_golden(golden_rules):
  """Numbers of the released EmoNeXt program."""
  return golden_rules.Golden(str(_GOLDEN / "emonext"))


@pytest.fixture(scope="session")
def fermam_golden(golden_rules):
  """Numbers of the released FERMam program."""
  return golden_rules.Golden(str(_GOLDEN / "fermam"))


@pytest.fixture(scope="module")
def cached_programs(tmp_path_factory):
  """What a test of the module has compiled, the others find."""
  before = jax.config.jax_compilation_cache_dir
  jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("jax")))
  yield
  jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
  """The workdir of a nano detector for 64 pixels, as saved after step 3."""
  from ferjax.data.image import IMAGENET_MEAN, IMAGENET_STD
  from ferjax.expressions import SEVEN_EXPRESSIONS

  meta = {
    "model": {"name": "fer_yolo_mamba", "size": "nano", "variant": "corrected", "dtype": "float32"},
    "task": "detection",
    "class_names": SEVEN_EXPRESSIONS,
    "image_size": 64,
    "mean": IMAGENET_MEAN,
    "std": IMAGENET_STD,
    "step": 3,
  }
  return _save_checkpoint(tmp_path_factory.mktemp("tiny") / "workdir", meta, metric="map50")


@pytest.fixture(scope="session")
def classifier_checkpoint(tmp_path_factory):
  """The workdir of a nano classifier of three expressions for 32 pixels, as saved after step 5."""
  meta = {
    "model": {"name": "fermam", "size": "nano", "variant": "corrected", "dtype": "float32"},
    "task": "classification",
    "class_names": ("happiness", "anger", "surprise"),
    "image_size": 32,
    "mean": (0.5, 0.4, 0.3),
    "std": (0.25, 0.3, 0.2),
    "grey": False,
    "resize": 40,
    "step": 5,
  }
  return _save_checkpoint(
    tmp_path_factory.mktemp("classifier") / "workdir", meta, metric="accuracy"
  )


# What a checkpoint says of the run that wrote it, which inference does not read.
_OF_A_RUN = {
  "config": {},
  "num_examples": 4,
  "num_hosts": 1,
  "versions": {"ferjax": "0.1.0"},
  "epoch": 1.0,
  "data_start": 0,
}


def _save_checkpoint(workdir, meta, *, metric):
  """A checkpoint whose weights are random but of a size that makes outputs differ."""
  # Imported here so that tests of the data package run without these.
  import grain
  import jax.numpy as jnp
  import numpy as np

  from ferjax.checkpoint import Checkpoints
  from ferjax.models import create_model
  from ferjax.training.state import init_variables

  model = create_model(num_classes=len(meta["class_names"]), **meta["model"])
  rng = np.random.default_rng(0)

  def fill(path, leaf):
    name = path[-1].key
    if name in ("scale", "var", "D"):
      return jnp.ones(leaf.shape)
    if name in ("bias", "mean", "A_log"):
      return jnp.zeros(leaf.shape)
    fan_in = np.prod(leaf.shape[:-1])
    return jnp.asarray(rng.standard_normal(leaf.shape) * np.sqrt(2 / fan_in), jnp.float32)

  shapes = jax.eval_shape(
    lambda key: init_variables(model, key, meta["image_size"]), jax.random.key(0)
  )
  variables = jax.tree_util.tree_map_with_path(fill, shapes)
  checkpoints = Checkpoints(workdir, keep=1, metric=metric)
  iterator = iter(grain.MapDataset.range(4).to_iter_dataset())
  checkpoints.save(
    meta["step"],
    variables=variables,
    train={"params": variables["params"]},
    iterator=iterator,
    meta=_OF_A_RUN | meta,
    metrics=None,
  )
  checkpoints.close()
  iterator.close()
  return workdir

"""Training in half precision: what reaches the optimiser is float32, and close to it."""

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ferjax.models import create_model
from ferjax.tasks.detection import DetectionTask
from ferjax.training.state import init_variables

FAST = {"xla_backend_optimization_level": 0}  # compiling takes nearly all of the time


@pytest.fixture(scope="module")
def batch():
  rng = np.random.default_rng(0)
  batch = {
    "image": rng.standard_normal((2, 64, 64, 3)).astype(np.float32),
    "boxes": np.array([[[8, 8, 40, 44]], [[20, 16, 60, 56]]], np.float32),
    "label": np.array([[1], [2]], np.int32),
    "box_mask": np.ones((2, 1), bool),
    "mask": np.ones(2, bool),
  }
  return jax.tree.map(jnp.asarray, batch)


@pytest.fixture(scope="module")
def variables():
  """Drawn by NumPy: compiling the initialisers would take longer than all the rest."""
  model = create_model("fer_yolo_mamba", num_classes=3, size="nano")
  shapes = jax.eval_shape(lambda key: init_variables(model, key, 64), jax.random.key(0))
  rng = np.random.default_rng(0)

  def fill(path, leaf):
    name = path[-1].key
    if name in ("scale", "var", "D"):
      return jnp.ones(leaf.shape)
    if name in ("bias", "mean", "A_log"):
      return jnp.zeros(leaf.shape)
    # Small predictions, as at the start of training: rounding then hardly moves the assignment.
    size = 0.1 if path[-2].key.endswith("_pred") else 1.0
    size /= np.sqrt(np.prod(leaf.shape[:-1]))
    return jnp.asarray(size * rng.standard_normal(leaf.shape), jnp.float32)

  return jax.tree_util.tree_map_with_path(fill, shapes)


def gradient(variables, batch, dtype):
  model = create_model("fer_yolo_mamba", num_classes=3, size="nano", dtype=dtype)
  task = DetectionTask(("a", "b", "c"))

  def loss(params):
    output, _ = model.apply(
      {**variables, "params": params},
      batch["image"],
      train=True,
      mutable=["batch_stats"],
      rngs={"dropout": jax.random.key(1, impl="rbg")},
    )
    return task.loss(output, batch)[0]

  return jax.jit(jax.value_and_grad(loss), compiler_options=FAST)(variables["params"])


def test_the_gradient_follows_that_of_float32(variables, batch):
  with ThreadPoolExecutor(2) as pool:  # both compile at once
    (loss, grads), (expected_loss, expected) = pool.map(
      lambda dtype: gradient(variables, batch, dtype), ("bfloat16", "float32")
    )
  leaves = jax.tree.leaves(grads)
  assert {x.dtype for x in leaves} == {jnp.dtype(jnp.float32)}
  a, b = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(g)]) for g in (grads, expected))
  assert np.isfinite(a).all()
  print("FIG", loss, expected_loss, a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
  assert loss == pytest.approx(float(expected_loss), rel=0.02)
  assert a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) > 0.95

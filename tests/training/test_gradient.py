"""What a step does with gradients: sharpness-aware minimisation, and batches in pieces."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ferjax.config import OptimizerConfig, TrainConfig
from ferjax.training.optimizers import make_optimizer
from ferjax.training.sharding import make_mesh, replicated, to_global
from ferjax.training.state import create_state, init_variables
from ferjax.training.step import compile_step, make_train_step


class Point(nn.Module):
  """Two vectors, which are all that there is."""

  @nn.compact
  def __call__(self, image, *, train):
    zeros = nn.initializers.zeros_init()
    return self.param("w", zeros, (5,)), self.param("b", zeros, (2,))


@dataclasses.dataclass(frozen=True, eq=False)
class Quadratic:
  """0.5 w.Q.w - c.w + 0.1 sum(b^4), of the golden."""

  Q: jax.Array
  c: jax.Array

  def loss(self, output, batch):
    w, b = output
    return 0.5 * w @ self.Q @ w - self.c @ w + 0.1 * jnp.sum(b**4), {"num_examples": jnp.float32(1)}


@pytest.mark.parametrize(
  ("tag", "rate", "decay"), [("adam", 4e-5, 0.0), ("adam_big", 1e-2, 0.0), ("adamw", 1e-2, 0.01)]
)
def test_two_passes_of_the_released_program(fermam_golden, tag, rate, decay):
  """Five updates: the loss before each, and the point after it (golden `sam/*`)."""
  read = lambda name: jnp.asarray(fermam_golden.expect(f"sam/{name}"), jnp.float32)  # noqa: E731
  config = OptimizerConfig(name="adamw", momentum=0.9, weight_decay=decay, decay="all")
  schedule = lambda step: rate * 0.98**step  # noqa: E731
  optimizer = make_optimizer(config, schedule)
  variables = {"params": {"w": read("w0"), "b": read("b0")}, "batch_stats": {}}
  state = create_state(variables, optimizer, ema=False)
  train_step = jax.jit(
    make_train_step(
      Point(), Quadratic(read("Q"), read("c")), optimizer, schedule, TrainConfig(), sam_rho=0.05
    )
  )
  for loss, after in zip(read(f"{tag}/loss"), read(f"{tag}/after"), strict=True):
    state, metrics = train_step(state, {"image": jnp.zeros(1)}, jax.random.key(0))
    found = jnp.concatenate([state.params["w"], state.params["b"]])
    np.testing.assert_allclose(found, after, rtol=1e-6, atol=1e-6)
    assert metrics["loss"] == pytest.approx(float(loss), rel=1e-6)


def batch_of(size):
  rng = np.random.default_rng(0)
  return {
    "image": rng.standard_normal((size, 4, 4, 3)).astype(np.float32),
    "label": rng.integers(0, 3, (size, 1)).astype(np.int32),
    "mask": np.ones(size, bool),
  }


@pytest.mark.parametrize("devices", [1, 2])
def test_pieces_of_a_batch_add_up(tiny, devices):
  """Without BatchNorm in the way, two or four pieces give the step of the whole batch."""
  schedule = lambda step: jnp.float32(0.1)  # noqa: E731
  optimizer = make_optimizer(OptimizerConfig(momentum=0.0, weight_decay=0.0), schedule)
  model = tiny.Model(dropout=0.0, frozen="backbone")
  mesh = make_mesh(devices)
  results = []
  for pieces in (1, 2, 4):
    variables = init_variables(model, jax.random.key(0), 4)
    state = jax.device_put(create_state(variables, optimizer, ema=False), replicated(mesh))
    config = TrainConfig(ema_decay=0.0, accumulate=pieces)
    step = compile_step(make_train_step(model, tiny.Task(), optimizer, schedule, config), mesh)
    key = jax.device_put(jax.random.key(1), replicated(mesh))
    state, metrics = step(state, to_global(batch_of(8), mesh), key)
    results.append((jax.device_get(state.params), jax.device_get(metrics)))
  (params, metrics), *others = results
  before = init_variables(model, jax.random.key(0), 4)["params"]["head"]["kernel"]
  assert (params["head"]["kernel"] != before).any()
  for other_params, other_metrics in others:
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), other_params, params
    )
    assert other_metrics["loss"] == pytest.approx(float(metrics["loss"]), rel=1e-6)
    assert other_metrics["num_matched"] == metrics["num_matched"] == 8

"""The gradient of a step: sharpness-aware minimisation and microbatches."""

import dataclasses
import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ferjax.config import (
  Config,
  DataConfig,
  FaceAugmentConfig,
  LossConfig,
  OptimizerConfig,
  TrainConfig,
)
from ferjax.data.synthetic.faces import SyntheticFaces
from ferjax.tasks.base import Loss
from ferjax.tasks.classification.task import ClassificationTask
from ferjax.training.inputs import TrainingData
from ferjax.training.optimizers import make_optimizer
from ferjax.training.sharding import make_mesh, replicated, to_global
from ferjax.training.state import create_state, init_variables
from ferjax.training.step import compile_step, make_train_step
from ferjax.typing import ClassifierOutput


class Point(nn.Module):
  """A model with two vectors as its only parameters."""

  @nn.compact
  def __call__(self, image, *, train):
    zeros = nn.initializers.zeros_init()
    return self.param("w", zeros, (5,)), self.param("b", zeros, (2,))


@dataclasses.dataclass(frozen=True, eq=False)
class Quadratic(ClassificationTask):
  """0.5 w.Q.w - c.w + 0.1 sum(b^4), as recorded."""

  Q: jax.Array | None = None
  c: jax.Array | None = None

  def loss(self, output, batch):
    w, b = output
    value = 0.5 * w @ self.Q @ w - self.c @ w + 0.1 * jnp.sum(b**4)
    return Loss.of_parts({"quadratic": value}, jnp.float32(1), "num_examples")


@pytest.mark.parametrize(
  ("tag", "rate", "decay"), [("adam", 4e-5, 0.0), ("adam_big", 1e-2, 0.0), ("adamw", 1e-2, 0.01)]
)
def test_sam_equals_the_released_program(fermam_golden, tag, rate, decay):
  """Five updates: the loss before each, and the point after it (golden `sam/*`)."""
  read = lambda name: jnp.asarray(fermam_golden.expect(f"sam/{name}"), jnp.float32)  # noqa: E731
  config = OptimizerConfig(name="adamw", momentum=0.9, weight_decay=decay, decay="all")
  schedule = lambda step: rate * 0.98**step  # noqa: E731
  optimizer = make_optimizer(config, schedule)
  variables = {"params": {"w": read("w0"), "b": read("b0")}, "batch_stats": {}}
  state = create_state(variables, optimizer, ema=False)
  train_step = jax.jit(
    make_train_step(
      Point(),
      Quadratic(("a",), Q=read("Q"), c=read("c")),
      optimizer,
      schedule,
      TrainConfig(),
      sam_rho=0.05,
    )
  )
  for loss, after in zip(read(f"{tag}/loss"), read(f"{tag}/after"), strict=True):
    state, metrics = train_step(state, {"image": jnp.zeros(1)}, jax.random.key(0))
    found = jnp.concatenate([state.params["w"], state.params["b"]])
    np.testing.assert_allclose(found, after, rtol=1e-6, atol=1e-6)
    assert metrics.loss.total == pytest.approx(float(loss), rel=1e-6)


class Linear(nn.Module):
  """Logits of three classes from the first two values of each image."""

  @nn.compact
  def __call__(self, image, *, train):
    x = image[:, 0, 0, :2]
    return ClassifierOutput(nn.Dense(3, use_bias=False, name="head")(x), x)


def faces(size, seed=1):
  """Images, and labels with three of four votes for a class and one for the next."""
  rng = np.random.default_rng(seed)
  classes = rng.integers(0, 3, size)
  label = 0.75 * np.eye(3)[classes] + 0.25 * np.eye(3)[(classes + 1) % 3]
  return {
    "image": rng.standard_normal((size, 1, 1, 3)).astype(np.float32),
    "label": label.astype(np.float32),
    "mask": np.ones(size, bool),
  }


def linear_step(loss, *, rho=0.0, accumulate=1):
  """Initial state and training step of `Linear`, with rate 1 and without momentum."""
  schedule = lambda step: jnp.float32(1.0)  # noqa: E731
  optimizer = make_optimizer(OptimizerConfig(momentum=0.0, weight_decay=0.0), schedule)
  config = TrainConfig(ema_decay=0.0, accumulate=accumulate)
  task = ClassificationTask(("a", "b", "c"), loss)
  state = create_state(init_variables(Linear(), jax.random.key(0), 1), optimizer, ema=False)
  return state, make_train_step(Linear(), task, optimizer, schedule, config, sam_rho=rho)


def test_sam_with_soft_labels_by_hand():
  """FERMam's loss of soft labels: softmax p has the gradient 3p - y - 2s, with s smoothed y."""
  state, step = linear_step(LossConfig(label_smoothing=0.2, smoothed_weight=2.0), rho=0.5)
  batch = faces(6)
  x, y = batch["image"][:, 0, 0, :2].astype(np.float64), batch["label"].astype(np.float64)
  smoothed = 0.8 * y + 0.2 / 3

  def gradient(kernel):
    p = np.exp(x @ kernel)
    p /= p.sum(1, keepdims=True)
    loss = -np.sum((y + 2 * smoothed) * np.log(p)) / 6
    return loss, x.T @ (3 * p - y - 2 * smoothed) / 6

  before = np.asarray(state.params["head"]["kernel"], np.float64)
  loss, first = gradient(before)
  _, second = gradient(before + 0.5 * first / np.sqrt(np.sum(first**2)))
  state, metrics = jax.jit(step)(state, batch, jax.random.key(1))
  assert metrics.loss.total == pytest.approx(loss, rel=1e-5)
  np.testing.assert_allclose(state.params["head"]["kernel"], before - second, atol=1e-5)


def test_sam_equals_optax_except_for_a_zero_gradient():
  """Three steps of `optax.contrib.sam` in opaque mode, then a fully masked batch."""
  state, train_step = linear_step(LossConfig(), rho=0.5)
  step = jax.jit(train_step)
  ascent = optax.chain(optax.contrib.normalize(), optax.sgd(0.5))
  sam = optax.contrib.sam(optax.sgd(1.0), ascent, opaque_mode=True)
  params, sam_state = state.params, sam.init(state.params)

  def loss(params, _, batch):
    output = Linear().apply({"params": params}, batch["image"], train=True)
    return ClassificationTask(("a", "b", "c")).loss(output, batch).total

  gradient = jax.jit(jax.grad(loss))
  for seed in range(3):
    batch = faces(4, seed)
    grad_fn = functools.partial(gradient, batch=batch)
    updates, sam_state = sam.update(grad_fn(params, 0), sam_state, params, grad_fn=grad_fn)
    params = optax.apply_updates(params, updates)
    state, _ = step(state, batch, jax.random.key(1))
    chex.assert_trees_all_close(state.params, params, rtol=1e-5, atol=1e-6)

  batch["mask"][:] = False
  still, metrics = step(state, batch, jax.random.key(1))
  assert metrics.finite
  chex.assert_trees_all_equal(still.params, state.params)


def test_sam_of_mixed_pairs(jit_quickly):
  """Both passes are of the batch that NumPy mixes."""
  state, step = linear_step(LossConfig(label_smoothing=0.1), rho=0.5)
  state, mesh = jax.device_get(state), make_mesh(2)
  batch = faces(4)
  batch["image"] = 4 * np.random.default_rng(0).integers(0, 3, (4, 1, 1, 3), np.uint8)
  weight = np.array([0.25, 0.5, 0.5, 0.25], np.float32).reshape(4, 1)
  shares = weight[:, :, None, None]
  mixed = batch | {
    "image": (shares * batch["image"] + (1 - shares) * batch["image"][::-1]).astype(np.uint8),
    "label": weight * batch["label"] + (1 - weight) * batch["label"][::-1],
  }
  key = jax.random.key(1)
  expected, metrics = jit_quickly(step)(state, mixed, key)

  data = DataConfig(face_augment=FaceAugmentConfig(mixup=1.0))
  source = SyntheticFaces(4, image_size=32, seed=0, class_names=("neutral", "fear", "anger"))
  # The second of a pair has a weight of its own, which is not used.
  mixing = {
    "weight": np.array([0.25, 0.5, 0.9, 0.1], np.float32),
    "box": np.zeros((4, 4), np.int32),
  }
  compiled = TrainingData(source, Config(data=data), mesh).compile(step)
  state, key = jax.device_put((state, key), replicated(mesh))
  found, found_metrics = compiled(state, to_global(batch | {"mixing": mixing}, mesh), key)
  chex.assert_trees_all_close(found.params, expected.params, rtol=1e-5, atol=1e-6)
  assert float(found_metrics.loss.total) == pytest.approx(float(metrics.loss.total), rel=1e-5)


def test_sam_is_compiled_once():
  state, train_step = linear_step(LossConfig(), rho=0.05)
  mesh = make_mesh()
  step = compile_step(chex.assert_max_traces(train_step, n=1), mesh)
  state, key = jax.device_put((state, jax.random.key(1)), replicated(mesh))
  for seed in range(3):
    state, _ = step(state, to_global(faces(4, seed), mesh), key)
  assert int(state.step) == 3
  assert step._cache_size() == 1


@pytest.mark.parametrize("weights", [(), (1.0, 5.0, 0.25)])
def test_unequal_microbatches_are_weighted(weights):
  """Four microbatches of every fourth example: one lacks one example, another both."""
  config = LossConfig(label_smoothing=0.2, smoothed_weight=2.0, class_weights=weights)
  batch = faces(8)
  batch["mask"][[1, 3, 7]] = False
  results = []
  for count in (1, 4):
    state, step = linear_step(config, rho=0.5, accumulate=count)
    state, metrics = jax.jit(step)(state, batch, jax.random.key(1))
    results.append((state.params["head"]["kernel"], metrics))
  (kernel, metrics), (other_kernel, other_metrics) = results
  np.testing.assert_allclose(other_kernel, kernel, rtol=1e-5, atol=1e-6)
  chex.assert_trees_all_close(other_metrics, metrics, rtol=1e-5)


def batch_of(size):
  rng = np.random.default_rng(0)
  return {
    "image": rng.standard_normal((size, 4, 4, 3)).astype(np.float32),
    "label": rng.integers(0, 3, (size, 1)).astype(np.int32),
    "mask": np.ones(size, bool),
  }


@pytest.mark.parametrize("devices", [1, 2])
def test_microbatches_add_up(tiny, devices):
  """Without BatchNorm, two or four microbatches give the step of the whole batch."""
  schedule = lambda step: jnp.float32(0.1)  # noqa: E731
  optimizer = make_optimizer(OptimizerConfig(momentum=0.0, weight_decay=0.0), schedule)
  model = tiny.Model(dropout=0.0, frozen="backbone")
  mesh = make_mesh(devices)
  results = []
  for count in (1, 2, 4):
    variables = init_variables(model, jax.random.key(0), 4)
    state = jax.device_put(create_state(variables, optimizer, ema=False), replicated(mesh))
    config = TrainConfig(ema_decay=0.0, accumulate=count)
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
    assert other_metrics.loss.total == pytest.approx(float(metrics.loss.total), rel=1e-6)
    assert other_metrics.loss.weight == metrics.loss.weight == 8

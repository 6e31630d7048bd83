import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ferjax.config import EvalConfig, OptimizerConfig, TrainConfig
from ferjax.training.optimizers import make_optimizer
from ferjax.training.sharding import make_mesh, replicated, to_global
from ferjax.training.state import create_state, init_variables
from ferjax.training.step import compile_step, make_eval_step, make_train_step

RATE, MOMENTUM, DECAY = 0.05, 0.9, 0.01
CONFIG = TrainConfig(ema_decay=0.5, ema_ramp=4.0)


def batch_of(number, size=4):
  rng = np.random.default_rng(number)
  return {
    "image": rng.standard_normal((size, 4, 4, 3)).astype(np.float32),
    "label": rng.integers(0, 3, (size, 1)).astype(np.int32),
    "mask": np.arange(size) != 1,
    "placement": np.ones((size, 6), np.float32),
  }


def build(tiny, *, dropout=0.0, frozen="none", rate=RATE, skip_nonfinite=0):
  config = OptimizerConfig(momentum=MOMENTUM, weight_decay=DECAY)
  schedule = lambda step: jnp.float32(rate)  # noqa: E731
  optimizer = make_optimizer(config, schedule, frozen=frozen)
  model = tiny.Model(dropout=dropout, frozen=frozen)
  state = create_state(init_variables(model, jax.random.key(0), 4), optimizer, ema=True)
  train = dataclasses.replace(CONFIG, skip_nonfinite=skip_nonfinite)
  return state, make_train_step(model, tiny.Task(), optimizer, schedule, train)


def numpy_step(params, stats, batch, velocity):
  """Forward, backward and update of the tiny network in NumPy."""
  image, mask = batch["image"].astype(np.float64), batch["mask"]
  # One 4 x 4 patch per image: the convolution is a matrix product.
  kernel = params["backbone"]["conv"]["kernel"].reshape(48, 4)
  pixels = image.reshape(-1, 48)
  z = pixels @ kernel
  mean, var = z.mean(0), z.var(0)
  normal = (z - mean) / np.sqrt(var + 1e-5)
  bn = params["backbone"]["bn"]
  x = normal * bn["scale"] + bn["bias"]
  relu_x = np.maximum(x, 0)
  u = relu_x @ params["neck"]["kernel"] + params["neck"]["bias"]
  relu_u = np.maximum(u, 0)
  out = relu_u @ params["head"]["kernel"] + params["head"]["bias"]
  difference = (out[:, 0] - batch["label"][:, 0]) * mask
  loss = (difference**2).sum() / mask.sum()

  d_out = (2 * difference / mask.sum())[:, None]
  d_u = (d_out @ params["head"]["kernel"].T) * (u > 0)
  d_x = (d_u @ params["neck"]["kernel"].T) * (x > 0)
  d_n = d_x * bn["scale"]
  d_z = (d_n - d_n.mean(0) - normal * (d_n * normal).mean(0)) / np.sqrt(var + 1e-5)
  grads = {
    "backbone": {
      "conv": {"kernel": (pixels.T @ d_z).reshape(4, 4, 3, 4)},
      "bn": {"scale": (d_x * normal).sum(0), "bias": d_x.sum(0)},
    },
    "neck": {"kernel": relu_x.T @ d_u, "bias": d_u.sum(0)},
    "head": {"kernel": relu_u.T @ d_out, "bias": d_out.sum(0)},
  }

  def decayed(path, grad, value):
    return grad + DECAY * value if path[-1].key == "kernel" else grad

  grads = jax.tree_util.tree_map_with_path(decayed, grads, params)
  velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, velocity, grads)
  new = jax.tree.map(lambda p, g, v: p - RATE * (g + MOMENTUM * v), params, grads, velocity)
  stats = {"mean": 0.9 * stats["mean"] + 0.1 * mean, "var": 0.9 * stats["var"] + 0.1 * var}
  return new, stats, velocity, loss


def test_steps_equal_numpy(tiny):
  state, train_step = build(tiny)
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), state.params)
  stats = jax.tree.map(lambda x: np.asarray(x, np.float64), state.batch_stats["backbone"]["bn"])
  velocity = jax.tree.map(np.zeros_like, params)
  averages = params
  train_step = jax.jit(train_step)
  for number in range(3):
    batch = batch_of(number)
    params, stats, velocity, loss = numpy_step(params, stats, batch, velocity)
    decay = 0.5 * (1 - np.exp(-(number + 1) / 4))
    averages = jax.tree.map(lambda a, p, d=decay: d * a + (1 - d) * p, averages, params)
    state, metrics = train_step(state, batch, jax.random.key(1))
    assert metrics.loss.total == pytest.approx(loss, rel=1e-5)
    assert metrics.loss.parts == {"error": metrics.loss.total}
    assert (metrics.loss.weight, metrics.loss.weight_name) == (3, "num_matched")
    assert metrics.learning_rate == pytest.approx(RATE)
    chex.assert_trees_all_close(state.params, params, atol=1e-5)
    chex.assert_trees_all_close(state.batch_stats["backbone"]["bn"], stats, atol=1e-5)
    chex.assert_trees_all_close(state.ema["params"], averages, atol=1e-5)
    assert int(state.step) == number + 1


def run(step, state, mesh, *, steps=4):
  state = jax.device_put(state, replicated(mesh))
  key = jax.device_put(jax.random.key(1), replicated(mesh))
  losses = []
  for number in range(steps):
    state, metrics = step(state, to_global(batch_of(number), mesh), key)
    losses.append(float(metrics.loss.total))
  return jax.device_get(state), losses


def test_two_devices_equal_one(tiny):
  state, train_step = build(tiny, dropout=0.3)
  one, two = (
    run(compile_step(train_step, mesh), jax.tree.map(jnp.copy, state), mesh)
    for mesh in (make_mesh(1), make_mesh(2))
  )
  chex.assert_trees_all_close(one, two, atol=1e-5)


def test_dropout_differs_between_steps(tiny):
  state, train_step = build(tiny, dropout=0.5)
  frozen_at = [state.replace(step=jnp.int32(step)) for step in (0, 1, 0)]
  losses = [train_step(s, batch_of(0), jax.random.key(1))[1].loss.total for s in frozen_at]
  assert losses[0] == losses[2] != losses[1]


def test_rates_of_parts_with_clipping_sam_and_microbatches(tiny):
  """A factor scales the first update."""
  schedule = lambda step: jnp.float32(RATE)  # noqa: E731
  model, moves = tiny.Model(dropout=0.0), []
  variables = init_variables(model, jax.random.key(0), 4)
  for rates in ("", "backbone=0.25,head=3"):
    config = OptimizerConfig(
      name="adamw", weight_decay=DECAY, decay="all", clip_norm=0.1, group_rates=rates
    )
    optimizer = make_optimizer(config, schedule)
    train = TrainConfig(ema_decay=0.0, accumulate=2)
    step = make_train_step(model, tiny.Task(), optimizer, schedule, train, sam_rho=0.05)
    state, metrics = jax.jit(step)(
      create_state(variables, optimizer, ema=False), batch_of(0), jax.random.key(1)
    )
    assert metrics.learning_rate == pytest.approx(RATE)
    moves.append(jax.tree.map(jnp.subtract, state.params, variables["params"]))
  plain, scaled = moves
  for part, factor in (("backbone", 0.25), ("neck", 1.0), ("head", 3.0)):
    expected = jax.tree.map(lambda x, f=factor: f * x, plain[part])
    chex.assert_trees_all_close(scaled[part], expected, rtol=1e-4, atol=1e-6)
    assert any(np.any(np.abs(x) > 1e-4) for x in jax.tree.leaves(expected))


def test_compiled_once_and_old_state_is_donated(tiny):
  state, train_step = build(tiny)
  mesh = make_mesh()
  step = compile_step(chex.assert_max_traces(train_step, n=1), mesh)
  state = jax.device_put(state, replicated(mesh))
  kernel = state.params["head"]["kernel"]
  run(step, state, mesh)
  assert kernel.is_deleted()


def test_frozen_parts_stay_bitwise_equal(tiny):
  state, train_step = build(tiny, dropout=0.1, frozen="backbone+neck")
  before = jax.device_get(state)
  after, _ = run(compile_step(train_step, make_mesh()), state, make_mesh())
  for part in ("backbone", "neck"):
    chex.assert_trees_all_equal(after.params[part], before.params[part])
    chex.assert_trees_all_equal(after.ema["params"][part], before.ema["params"][part])
  chex.assert_trees_all_equal(after.batch_stats, before.batch_stats)
  assert (after.params["head"]["kernel"] != before.params["head"]["kernel"]).all()


def is_finite(tree):
  return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def test_a_step_that_is_not_finite_changes_only_its_number(tiny):
  """At most as often as configured; after that, no step changes anything else."""
  state, train_step = build(tiny, skip_nonfinite=1)
  train_step = jax.jit(train_step)
  good, bad = batch_of(0), batch_of(1)
  bad["label"][0, 0] = 6
  key = jax.random.key(1)
  first, metrics = train_step(state, good, key)
  assert (bool(metrics.skipped), bool(metrics.finite)) == (False, True)
  for count, (batch, changes) in enumerate([(bad, False), (good, True), (bad, False)], 2):
    before, (first, metrics) = first, train_step(first, batch, key)
    assert bool(metrics.skipped) != changes
    assert metrics.finite
    assert int(first.step) == count
    if not changes:
      chex.assert_trees_all_equal(first.as_dict() | {"step": 0}, before.as_dict() | {"step": 0})
      assert int(first.skipped) == int(before.skipped) + 1
    else:
      assert (first.params["head"]["bias"] != before.params["head"]["bias"]).all()
  before, (first, metrics) = first, train_step(first, good, key)
  assert not metrics.skipped
  chex.assert_trees_all_equal(first.as_dict() | {"step": 0}, before.as_dict() | {"step": 0})


@pytest.mark.parametrize("place", ["params", "opt_state", "batch_stats"])
def test_finite_checks_the_state(tiny, place):
  """The loss is finite, and so is the state except in one place."""
  # The momentum of a frozen part has no effect until the part is trained.
  state, train_step = build(
    tiny,
    rate=np.inf if place == "params" else RATE,
    frozen="backbone" if place == "opt_state" else "none",
  )

  def poison(path, leaf):
    return leaf.at[...].set(jnp.nan) if "backbone" in jax.tree_util.keystr(path) else leaf

  if place != "params":
    bad = jax.tree_util.tree_map_with_path(poison, getattr(state, place))
    state = state.replace(**{place: bad})
  after, metrics = train_step(state, batch_of(0), jax.random.key(1))
  assert np.isfinite(metrics.loss.total)
  for name in ("params", "opt_state", "batch_stats"):
    assert is_finite(getattr(after, name)) == (name != place)
  assert not metrics.finite


def test_eval_step_returns_no_images(tiny):
  model, mesh = tiny.Model(), make_mesh()
  variables = init_variables(model, jax.random.key(0), 4)
  eval_step = make_eval_step(model, tiny.Task(), EvalConfig(), 4, mesh)
  batch = batch_of(0)
  found, loss, truth = eval_step(
    jax.device_put(variables, replicated(mesh)), to_global(batch, mesh)
  )
  assert set(truth) == set(batch) - {"image"}
  expected = model.apply(variables, batch["image"], train=False)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  assert set(loss.scalars()) == {"loss", "loss_error", "num_matched"}
  assert found.sharding.is_fully_replicated

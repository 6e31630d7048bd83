"""A run of 20 steps on one device, and on two with a replicated or a split state.

Programs that add in another order differ by rounding. How much they may differ is derived from a
run whose initial parameters are changed by 2^-19, because a sum of 1000 products of float32 has an
error of 30 times 2^-24 (`check_same` in tests/conftest.py): by how much this run moves otherwise.
Each step adds such an error once more, and none has more steps to grow than the first. So two runs
may differ by 20 times that, and by the rounding of 20 sums with the parameters.
"""

import json

import jax
import numpy as np
import pytest
from etils import epath

from ferjax.checkpoint.reading import restore_tree, saved_tree
from ferjax.training import loop
from ferjax.training.sharding import make_mesh

EPOCHS, STEPS, CHANGE, UNIT = 5, 20, 2.0**-19, 2.0**-24
WIDTH = 2**14 + 8  # the kernel of the neck is large enough to be split


def config_of(tiny, **options):
  config = tiny.config(**{"epochs": EPOCHS, "eval_every": EPOCHS, "log_every": 1} | options)
  config.optimizer.learning_rate = 2e-3  # so many features would diverge at a higher one
  # Rates and images do not depend on the number of epochs.
  config.optimizer.final_fraction, config.data.augment.mosaic_until = 1.0, 0.0
  return config


def saved(workdir):
  """Part of the last state -> its values in one vector."""
  item = epath.Path(workdir) / "checkpoints" / str(STEPS) / "train"
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), saved_tree(item)
  )
  return vectors(restore_tree(item, like))


def vectors(state):
  state = jax.device_get(state)
  return {
    name: np.concatenate([np.ravel(x).astype(np.float64) for x in jax.tree.leaves(state[name])])
    for name in ("params", "opt_state", "ema", "batch_stats")
  }


def losses(workdir):
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return np.array([line["train/loss"] for line in lines if "train/loss" in line])


@pytest.fixture(scope="module")
def train(tiny):
  def train(workdir, *, devices, **options):
    config, mesh = config_of(tiny, **options), make_mesh(devices)
    return tiny.train(workdir, config, model=tiny.Model(width=WIDTH), mesh=mesh)

  return train


@pytest.fixture(scope="module")
def train_changed(train):
  """Trains from parameters that are changed by a relative `CHANGE`; returns the initial values."""
  initial_state, starts, signs = loop.initial_state, [], np.random.default_rng(0)

  def run(workdir, change):
    def changed(*arguments):
      state = initial_state(*arguments)
      place = jax.tree.leaves(state.params)[0].sharding

      def scaled(variables):
        factors = lambda x: np.float32(1 + change * signs.choice([-1, 1], x.shape))  # noqa: E731
        return jax.tree.map(lambda x: x * factors(x), variables)

      params = scaled(jax.device_get(state.params))
      ema = {**state.ema, "params": params}
      state = state.replace(**jax.device_put({"params": params, "ema": ema}, place))
      starts.append(vectors(state.as_dict()))
      return state

    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(loop, "initial_state", changed)
      metrics = train(workdir, devices=1)
    return starts[-1], metrics

  return run


@pytest.fixture(scope="module")
def alone(train_changed, tmp_path_factory):
  """The run on one device: its workdir, its initial values, its metrics."""
  workdir = tmp_path_factory.mktemp("alone")
  return workdir, *train_changed(workdir, 0.0)


@pytest.fixture(scope="module")
def bounds(train_changed, alone, tmp_path_factory):
  """How far the losses of each step, and the parts of the last state, may differ."""
  workdir = tmp_path_factory.mktemp("changed")
  start, _ = train_changed(workdir, CHANGE)
  effect = np.maximum.accumulate(np.abs(losses(workdir) - losses(alone[0])))
  state, other, bound = saved(alone[0]), saved(workdir), {}
  for name in state:
    moved, other_moved = state[name] - alone[1][name], other[name] - start[name]
    rounding = STEPS * UNIT * np.linalg.norm(state[name])
    bound[name] = STEPS * np.linalg.norm(other_moved - moved) + rounding
  return STEPS * effect + 32 * UNIT * losses(alone[0]), bound


def assert_same(workdir, alone, bounds):
  assert (np.abs(losses(workdir) - losses(alone)) <= bounds[0]).all()
  state, other = saved(alone), saved(workdir)
  for name, bound in bounds[1].items():
    assert np.linalg.norm(state[name] - other[name]) <= bound, name


def test_bounds_are_small(alone, bounds):
  """Compared with what training changes: a mistake in BatchNorm or the loss would exceed them."""
  workdir, start, _ = alone
  assert bounds[0].max() < 1e-2 * np.ptp(losses(workdir))
  last = saved(workdir)
  for name, bound in bounds[1].items():
    assert 0 < bound < 1e-2 * np.linalg.norm(last[name] - start[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("shard_state", [False, True])
def test_two_devices_train_as_one(train, alone, bounds, tmp_path, shard_state):
  metrics = train(tmp_path, devices=2, shard_state=shard_state)
  assert_same(tmp_path, alone[0], bounds)
  # The last of two batches of four has two records.
  assert metrics["num_images"] == alone[2]["num_images"] == 6
  assert metrics["map50"] == pytest.approx(alone[2]["map50"], rel=1e-4)


def test_split_state_of_two_devices_resumes_on_one(train, alone, bounds, tmp_path):
  train(tmp_path, devices=2, shard_state=True, epochs=3)
  train(tmp_path, devices=1)
  assert_same(tmp_path, alone[0], bounds)

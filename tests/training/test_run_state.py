import math

import chex
import grain
import jax
import jax.numpy as jnp
import pytest

from ferjax.checkpoint import Checkpoints, load_variables
from ferjax.config import OptimizerConfig
from ferjax.training.optimizers import make_optimizer
from ferjax.training.resume import describe
from ferjax.training.run_state import Position, RunState
from ferjax.training.state import create_state, init_variables
from ferjax.training.timer import Timer


@pytest.fixture
def checkpoints(tmp_path):
  opened = Checkpoints(tmp_path, keep=1, metric="map50")
  yield opened
  opened.close()


def number_iterator():
  return iter(grain.MapDataset.range(100).to_iter_dataset())


def make_run(tiny, *, ema=True):
  """A run after seven steps, two of them with a bad record."""
  optimizer = make_optimizer(OptimizerConfig(), lambda step: 0.1)
  variables = init_variables(tiny.Model(), jax.random.key(0), 32)
  state = create_state(variables, optimizer, ema=ema).replace(step=jnp.int32(7))
  if ema:
    state = state.replace(ema=jax.tree.map(lambda x: x + 1, state.ema))
  position = Position(data_start=12)
  for step in range(7):
    position.advance(epoch=(step + 1) / 4, skipped_records=int(step < 2))
  return RunState(state, number_iterator(), Timer(60.0), position)


def test_round_trip(tiny, checkpoints):
  run = make_run(tiny)
  assert [next(run.iterator) for _ in range(3)] == [0, 1, 2]
  run.position.note_evaluation({"map50": 0.5}, 0.5)
  run.position.note_evaluation({"map50": 0.25}, 0.25)
  run.save(checkpoints, describe(tiny.config(), num_examples=16), {"map50": 0.25})

  saved = checkpoints.open(7)
  position = Position.from_meta(saved.meta, best_score=0.5)
  assert position == Position(
    step=7,
    epoch=1.75,
    data_start=12,
    evaluations_since_best=1,
    skipped_records=2,
    best_score=0.5,
    metrics={"map50": 0.25},
    epoch_end_done=True,
  )
  again = RunState.restore(
    checkpoints, saved, position, run.train, number_iterator(), restore_iterator=True
  )
  chex.assert_trees_all_equal(again.train, run.train)
  assert jax.tree.structure(again.train) == jax.tree.structure(run.train)
  assert next(again.iterator) == 3
  assert again.timer.seconds == 60.0


@pytest.mark.parametrize("ema", [True, False])
def test_inference_gets_moving_averages_if_there_are_any(tiny, checkpoints, tmp_path, ema):
  run = make_run(tiny, ema=ema)
  run.save(checkpoints, describe(tiny.config(), num_examples=16), None)
  checkpoints.wait()
  variables = load_variables(tmp_path)
  expected = {"params": run.train.params, "batch_stats": run.train.batch_stats}
  chex.assert_trees_all_equal(variables, jax.tree.map(lambda x: x + ema, expected))
  image = jnp.zeros((1, 32, 32, 3))
  assert tiny.Model().apply(variables, image, train=False).shape == (1,)
  # Saved without metrics, as on an interruption: the evaluation is still due.
  assert not Position.from_meta(checkpoints.open(7).meta, -math.inf).epoch_end_done


def test_evaluations_since_the_best():
  position = Position()
  counts = []
  for score in (0.5, 0.5, math.nan, 0.75, 0.25):
    position.note_evaluation({"map50": score}, score)
    counts.append(position.evaluations_since_best)
  assert counts == [0, 1, 2, 0, 1]
  assert (position.best_score, position.metrics) == (0.75, {"map50": 0.25})

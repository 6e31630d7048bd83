import math
import shutil

import chex
import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ferjax.checkpoint import Checkpoints, find_checkpoint, load_meta, load_variables
from ferjax.config import OptimizerConfig
from ferjax.training.optimizers import make_optimizer
from ferjax.training.sharding import make_mesh, replicated
from ferjax.training.state import create_state, init_variables

META = {"class_names": ["a", "b"], "image_size": 32}


@pytest.fixture
def checkpoints(tmp_path):
  opened = Checkpoints(tmp_path, keep=2, metric="map50")
  yield opened
  opened.close()


def make_state(tiny, step, *, width=3, mesh=None, name="sgd", ema=True):
  optimizer = make_optimizer(OptimizerConfig(name=name), lambda step: 0.1)
  variables = init_variables(tiny.Model(width=width), jax.random.key(step), 32)
  state = create_state(variables, optimizer, ema=ema).replace(step=jnp.int32(step))
  if ema:
    state = state.replace(ema=jax.tree.map(lambda x: x + 1, state.ema))
  return jax.device_put(state, replicated(make_mesh() if mesh is None else mesh))


def numbers():
  return iter(grain.MapDataset.range(100).to_iter_dataset())


def save(checkpoints, tiny, scores, **options):
  """One checkpoint a score, at steps 1, 2, ...; None: not evaluated."""
  for step, score in enumerate(scores, 1):
    metrics = None if score is None else {"map50": score, "loss": 1.0}
    state = make_state(tiny, step, **options)
    checkpoints.save(state, numbers(), {**META, "step": step}, metrics)


def steps_kept(checkpoints):
  return sorted(int(folder.name) for folder in checkpoints.folder.iterdir())


def test_newest_and_best_are_kept(checkpoints, tiny):
  save(checkpoints, tiny, [0.1, 0.5, None, 0.2, 0.3])
  assert steps_kept(checkpoints) == [2, 4, 5]
  assert checkpoints.latest_step == 5
  assert checkpoints.best_score == 0.5


def test_of_equals_the_latest_is_best(checkpoints, tiny):
  save(checkpoints, tiny, [0.5, 0.5, 0.1, 0.1])
  assert steps_kept(checkpoints) == [2, 3, 4]
  assert load_meta(checkpoints.folder)["step"] == 2


def test_a_score_that_is_no_number_is_never_best(checkpoints, tiny):
  save(checkpoints, tiny, [0.5, math.nan, 0.1])
  assert checkpoints.best_score == 0.5
  assert load_meta(checkpoints.folder)["step"] == 1


def test_state_and_iterator_come_back(checkpoints, tiny):
  iterator = numbers()
  state = make_state(tiny, 7)
  assert [next(iterator) for _ in range(3)] == [0, 1, 2]
  checkpoints.save(state, iterator, META, {"map50": 0.5})
  like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
  restored = checkpoints.restore(7, like)
  chex.assert_trees_all_equal(restored, state)
  assert jax.tree.structure(restored) == jax.tree.structure(state)
  again = numbers()
  checkpoints.restore_iterator(7, again)
  assert next(again) == 3


@pytest.mark.parametrize(("saved_on", "restored_on"), [(2, 1), (1, 2)])
def test_restored_on_another_number_of_devices(checkpoints, tiny, saved_on, restored_on):
  state = make_state(tiny, 1, mesh=make_mesh(saved_on))
  checkpoints.save(state, numbers(), META, None)
  sharding = replicated(make_mesh(restored_on))
  like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)
  restored = checkpoints.restore(1, like)
  chex.assert_trees_all_equal(jax.device_get(restored), jax.device_get(state))
  assert restored.params["head"]["kernel"].sharding == sharding


def test_variables_are_the_averages_on_the_default_device(checkpoints, tiny):
  state = make_state(tiny, 1)
  checkpoints.save(state, numbers(), META, None)
  variables = load_variables(checkpoints.folder)
  chex.assert_trees_all_equal(variables, jax.device_get(state.ema))
  assert {
    leaf.sharding.device_set == {jax.devices()[0]} for leaf in jax.tree.leaves(variables)
  } == {True}
  image = np.zeros((1, 32, 32, 3), np.float32)
  assert tiny.Model().apply(variables, image, train=False).shape == (1,)


def test_variables_without_averages(checkpoints, tiny):
  state = make_state(tiny, 1, ema=False)
  checkpoints.save(state, numbers(), META, None)
  chex.assert_trees_all_equal(
    load_variables(checkpoints.folder)["params"], jax.device_get(state.params)
  )


def test_which_step_is_loaded(checkpoints, tiny, tmp_path):
  save(checkpoints, tiny, [0.5, 0.1, 0.2])
  for path in (tmp_path, tmp_path / "checkpoints", str(tmp_path)):
    assert load_meta(path)["step"] == 1
    assert load_meta(path, step="best")["step"] == 1
    assert load_meta(path, step="latest")["step"] == 3
    assert load_meta(path, step=2)["step"] == 2
  meta = load_meta(tmp_path / "checkpoints" / "3")
  assert meta == {**META, "step": 3, "metric": "map50", "metrics": {"map50": 0.2, "loss": 1.0}}
  moved = shutil.copytree(tmp_path / "checkpoints" / "1", tmp_path / "released_weights")
  chex.assert_trees_all_equal(load_variables(moved), load_variables(tmp_path, step=1))
  with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 9 .*steps: \[1, 2, 3\]"):
    load_variables(tmp_path, step=9)
  with pytest.raises(ValueError, match="of one step; step 2 cannot be chosen"):
    load_variables(moved, step=2)


def test_the_latest_where_none_was_evaluated(checkpoints, tiny, tmp_path):
  save(checkpoints, tiny, [None, None])
  assert load_meta(tmp_path)["step"] == 2
  with pytest.raises(FileNotFoundError, match="was evaluated"):
    load_meta(tmp_path, step="best")


def test_nothing_there(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"no such folder: .*expected a workdir"):
    load_variables(tmp_path / "missing")
  with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*expected a workdir"):
    load_variables(tmp_path)


def test_half_written_checkpoints_are_not_seen_and_go(tiny, tmp_path, monkeypatch):
  first = Checkpoints(tmp_path, keep=2, metric="map50")
  save(first, tiny, [0.1])
  iterator = numbers()

  def die(_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(type(iterator), "get_state", die)
    with pytest.raises(KeyboardInterrupt):
      first.save(make_state(tiny, 2), iterator, META, {"map50": 0.9})
  left = {folder.name for folder in first.folder.iterdir()}
  assert left == {"1", "2.orbax-checkpoint-tmp"}
  assert find_checkpoint(tmp_path, step="latest").name == "1"

  second = Checkpoints(tmp_path, keep=2, metric="map50")
  assert second.latest_step == 1
  second.save(make_state(tiny, 2), numbers(), META, {"map50": 0.9})
  assert steps_kept(second) == [1, 2]
  second.close()


def test_other_parameters_are_named(checkpoints, tiny):
  checkpoints.save(make_state(tiny, 1), numbers(), META, None)
  with pytest.raises(ValueError, match=r"(?s)params/head/kernel has shape \(3, 1\), not \(5, 1\)"):
    checkpoints.restore(1, make_state(tiny, 1, width=5))
  with pytest.raises(ValueError, match=r"unexpected ema/"):
    checkpoints.restore(1, make_state(tiny, 1, ema=False))
  with pytest.raises(ValueError, match=r"(?s)missing opt_state/.*another workdir"):
    checkpoints.restore(1, make_state(tiny, 1, name="adamw"))

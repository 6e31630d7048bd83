import math
import pathlib
import threading

import chex
import jax
import numpy as np
import pytest

from ferjax.checkpoint import Checkpoints, load_meta, load_variables, open_checkpoint
from ferjax.checkpoint.meta import FORMAT
from ferjax.checkpoint.writing import CheckpointWriteError
from ferjax.training.sharding import make_mesh, replicated


def test_newest_and_best_are_kept(saved):
  saved.save_all([0.1, 0.5, None, 0.2, 0.3])
  assert saved.steps() == [2, 4, 5]
  assert saved.checkpoints.latest_step == 5
  assert saved.checkpoints.best_score == 0.5


def test_latest_of_equal_scores_is_kept(saved):
  saved.save_all([0.5, 0.5, 0.1, 0.1])
  assert saved.steps() == [2, 3, 4]


def test_nan_score_is_never_best(saved):
  saved.save_all([0.5, math.nan, 0.1])
  assert saved.checkpoints.best_score == 0.5


def test_without_a_score(saved):
  saved.save(1)
  assert saved.checkpoints.best_score == -math.inf
  assert load_meta(saved.folder)["metrics"] == {}


def test_format_is_written(saved):
  saved.save(1, 0.5)
  meta = load_meta(saved.folder)
  assert (meta["format"], meta["metric"]) == (FORMAT, "map50")


def test_add_metrics_to_a_checkpoint(saved):
  saved.save(1)
  saved.checkpoints.add_metrics(1, {"map50": 0.75}, evaluations_since_best=2)
  meta = load_meta(saved.folder, step="best")
  assert (meta["metrics"], meta["evaluations_since_best"]) == ({"map50": 0.75}, 2)
  assert meta["class_names"] == saved.meta["class_names"]
  assert saved.checkpoints.best_score == 0.75


def test_metrics_that_a_killed_program_was_adding_do_not_count(saved, monkeypatch):
  saved.save(1, 0.25)
  saved.save(2)
  replace = pathlib.Path.replace

  def killed(path, target):
    if pathlib.Path(target).name == "metadata":
      raise KeyboardInterrupt
    return replace(path, target)

  with monkeypatch.context() as patch:
    patch.setattr(type(saved.folder), "replace", killed)
    with pytest.raises(KeyboardInterrupt):
      saved.checkpoints.add_metrics(2, {"map50": 0.75}, evaluations_since_best=0)
  assert saved.checkpoints.best_score == 0.25
  saved.checkpoints.add_metrics(2, {"map50": 0.75}, evaluations_since_best=0)
  assert saved.checkpoints.best_score == 0.75


def shapes(tree, sharding=None):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding or x.sharding), tree
  )


def test_training_state_round_trip(saved):
  iterator = saved.numbers()
  _, train = trees = saved.trees(7)
  assert [next(iterator) for _ in range(3)] == [0, 1, 2]
  saved.save(7, 0.5, iterator=iterator, trees=trees)
  again = saved.numbers()
  restored = saved.checkpoints.restore(7, shapes(train), again)
  chex.assert_trees_all_equal(restored, train)
  assert jax.tree.structure(restored) == jax.tree.structure(train)
  assert next(again) == 3


def test_restore_without_iterator(saved):
  iterator = saved.numbers()
  next(iterator)
  saved.save(1, iterator=iterator)
  _, train = saved.trees(1)
  chex.assert_trees_all_equal(saved.checkpoints.restore(1, shapes(train)), train)


@pytest.mark.parametrize(("saved_on", "restored_on"), [(2, 1), (1, 2)])
def test_restored_on_another_number_of_devices(saved, saved_on, restored_on):
  trees = jax.device_put(saved.trees(1), replicated(make_mesh(saved_on)))
  saved.save(1, trees=trees)
  sharding = replicated(make_mesh(restored_on))
  restored = saved.checkpoints.restore(1, shapes(trees[1], sharding))
  chex.assert_trees_all_equal(jax.device_get(restored), jax.device_get(trees[1]))
  assert restored["params"]["head"]["kernel"].sharding == sharding


def test_incomplete_saves_are_ignored_and_removed(saved, saved_in, tmp_path, monkeypatch):
  saved.save(1, 0.1)
  iterator = saved.numbers()

  def interrupt(_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(type(iterator), "get_state", interrupt)
    with pytest.raises(KeyboardInterrupt):
      saved.save(2, 0.9, iterator=iterator)
  left = {folder.name for folder in saved.folder.iterdir()}
  assert left == {"1", "2.orbax-checkpoint-tmp"}
  assert open_checkpoint(tmp_path, step="latest").step == 1

  second = saved_in(tmp_path)
  assert second.checkpoints.latest_step == 1
  second.save(2, 0.9)
  assert second.steps() == [1, 2]


def test_a_killed_deletion_leaves_no_half_of_a_checkpoint(saved, saved_in, tmp_path, monkeypatch):
  saved.save_all([0.5, 0.1])
  with monkeypatch.context() as patch:
    # As after a kill between the renaming and the deletion.
    patch.setattr(type(saved.folder), "rmtree", lambda path, missing_ok=False: None)
    for step in (3, 4):
      saved.save(step, 0.2)
  deleted = saved.folder / ".deleted" / "2"
  assert {folder.name for folder in saved.folder.iterdir()} == {"1", "3", "4", ".deleted"}
  (deleted / "meta/metadata").unlink()
  assert open_checkpoint(tmp_path).step == 1
  again = saved_in(tmp_path)
  assert again.steps() == [1, 3, 4]
  assert again.checkpoints.best_score == 0.5


def start_save(saved, step, trees=None):
  """Saves without waiting until it is written."""
  variables, train = saved.trees(step) if trees is None else trees
  saved.checkpoints.save(
    step,
    variables=variables,
    train=train,
    iterator=saved.numbers(),
    meta={**saved.meta, "step": step},
    metrics={"map50": step / 10},
  )


def on_commit_of(saved, monkeypatch, step, act):
  """Calls `act` in the writing thread, just before the checkpoint of `step` is complete."""
  rename = type(saved.folder).rename

  def act_first(path, target):
    if pathlib.Path(target).name == str(step):
      act()
    return rename(path, target)

  monkeypatch.setattr(type(saved.folder), "rename", act_first)


def test_a_checkpoint_exists_only_when_it_is_written(saved, monkeypatch):
  saved.save(1, 0.1)
  started, released = threading.Event(), threading.Event()

  def block():
    started.set()
    assert released.wait(60)

  on_commit_of(saved, monkeypatch, 2, block)
  start_save(saved, 2)
  assert started.wait(60)
  assert open_checkpoint(saved.folder, step="latest").step == 1
  released.set()
  saved.checkpoints.wait()
  assert open_checkpoint(saved.folder, step="latest").step == 2
  assert saved.checkpoints.latest_step == 2
  assert saved.checkpoints.best_score == 0.2


def test_values_are_those_of_the_save_although_the_next_step_reuses_them(saved):
  sharding = replicated(make_mesh(2))
  values = np.arange(2**20, dtype=np.float32)
  params = jax.device_put(values, sharding)
  advance = jax.jit(lambda x: x + 1, donate_argnums=0, out_shardings=sharding)
  start_save(saved, 1, ({"x": params}, {"x": params}))
  for _ in range(3):
    params = advance(params)
  saved.checkpoints.wait()
  np.testing.assert_array_equal(params, values + 3)
  np.testing.assert_array_equal(load_variables(saved.folder)["x"], values)


def fail():
  raise OSError("no space left on device")


def test_an_error_of_the_writing_is_raised_by_the_next_call(saved, saved_in, tmp_path, monkeypatch):
  saved.save(1, 0.1)
  with monkeypatch.context() as patch:
    on_commit_of(saved, patch, 2, fail)
    start_save(saved, 2)
    message = r"checkpoint of step 2 could not be written to .*no space left.*last complete"
    with pytest.raises(CheckpointWriteError, match=message):
      saved.save(3)
  assert saved.checkpoints.latest_step == 1
  assert open_checkpoint(tmp_path, step="latest").step == 1
  again = saved_in(tmp_path)
  again.save(2, 0.9)
  assert again.steps() == [1, 2]


def test_the_end_of_a_run_reports_errors_of_the_writing(saved, monkeypatch, caplog):
  on_commit_of(saved, monkeypatch, 1, fail)

  def run(error=None):
    with saved.checkpoints.written():
      start_save(saved, 1)
      if error:
        raise error

  with pytest.raises(CheckpointWriteError, match="no space left"):
    run()
  with pytest.raises(ZeroDivisionError):  # not hidden
    run(ZeroDivisionError())
  assert "checkpoint of step 1 could not be written" in caplog.text


def test_parameters_that_differ_are_named(saved):
  saved.save(1)
  _, train = saved.trees(1)
  wider = saved.trees(1, width=5)[1]
  with pytest.raises(ValueError, match=r"(?s)params/head/kernel has shape \(3, 1\), not \(5, 1\)"):
    saved.checkpoints.restore(1, wider)
  with pytest.raises(ValueError, match=r"unexpected ema/"):
    saved.checkpoints.restore(1, train | {"ema": {}})
  with pytest.raises(ValueError, match=r"(?s)missing opt_state/.*another workdir"):
    saved.checkpoints.restore(1, train | {"opt_state": train["params"]})


@pytest.mark.parametrize("name", ["w [1]", "w*", "w?", "[", "w{1}", "w"])
def test_paths_with_glob_characters(saved_in, tmp_path, name):
  # The folder that the name would match as a glob pattern.
  other = saved_in(tmp_path / "w 1")
  other.save(1, trees=other.trees(9))
  here = saved_in(tmp_path / name)
  here.checkpoints.check_readable()
  assert here.steps() == []
  here.save_all([0.5, 0.2])
  chex.assert_trees_all_equal(load_variables(tmp_path / name), jax.device_get(here.trees(1)[0]))
  _, train = here.trees(2)
  again = saved_in(tmp_path / name)
  assert again.checkpoints.latest_step == 2
  chex.assert_trees_all_equal(again.checkpoints.restore(2, shapes(train)), train)
  chex.assert_trees_all_equal(load_variables(tmp_path / "w 1"), jax.device_get(other.trees(9)[0]))


def test_no_path_without_glob_characters(tmp_path, monkeypatch):
  (tmp_path / "t[1]").mkdir()
  monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t[1]"))
  with pytest.raises(ValueError, match=r"written to .*w \[1\].*read as a glob pattern.*temporary"):
    Checkpoints(tmp_path / "w [1]", keep=1, metric="map50")
  assert list((tmp_path / "t[1]").iterdir()) == []


def test_checkpoints_that_cannot_be_read_back(saved, monkeypatch):
  """As on a file system that loses written files."""
  rename = type(saved.folder).rename

  def lose(path, target):
    found = rename(path, target)
    for file in pathlib.Path(target).rglob("*"):
      if file.is_file() and file.parent.name == "d":
        file.unlink()
    return found

  monkeypatch.setattr(type(saved.folder), "rename", lose)
  with pytest.raises(OSError, match="cannot be read back from"):
    saved.checkpoints.check_readable()


def test_interrupted_probe_is_ignored_and_removed(saved, saved_in, tmp_path):
  saved.save(1)
  (saved.folder / ".probe" / "0").mkdir(parents=True)
  second = saved_in(tmp_path)
  assert second.checkpoints.latest_step == 1
  assert open_checkpoint(tmp_path).step == 1
  second.checkpoints.check_readable()
  assert second.steps() == [1]

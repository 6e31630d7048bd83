import json
import math
import shutil

import chex
import jax
import pytest
from etils import epath

from ferjax.checkpoint import (
  CheckpointRemovedError,
  load_meta,
  load_variables,
  open_checkpoint,
)
from ferjax.checkpoint.reading import DamagedCheckpointError


def test_choosing_a_step(saved, tmp_path):
  saved.save_all([0.5, 0.1, 0.2])
  for path in (tmp_path, tmp_path / "checkpoints", str(tmp_path)):
    assert open_checkpoint(path).step == 1
    assert open_checkpoint(path, step="best").step == 1
    assert open_checkpoint(path, step="latest").step == 3
    assert open_checkpoint(path, step=2).step == 2
  opened = open_checkpoint(tmp_path / "checkpoints" / "3")
  assert (opened.step, opened.folder) == (3, saved.folder / "3")
  with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 9 .*steps: \[1, 2, 3\]"):
    open_checkpoint(tmp_path, step=9)


def test_meta(saved):
  saved.save(3, 0.2)
  meta = load_meta(saved.folder / "3")
  expected = {**saved.meta, "step": 3, "metric": "map50", "metrics": {"map50": 0.2, "loss": 1.0}}
  assert {field: meta[field] for field in expected} == expected


def test_moved_single_checkpoint(saved, tmp_path):
  saved.save_all([0.5, 0.1])
  moved = shutil.copytree(tmp_path / "checkpoints" / "2", tmp_path / "released_weights")
  chex.assert_trees_all_equal(load_variables(moved), load_variables(tmp_path, step=2))
  assert open_checkpoint(moved).step == 2
  for path in (moved, open_checkpoint(moved)):
    with pytest.raises(ValueError, match="of one step; remove step 2"):
      open_checkpoint(path, step=2)


def test_open_checkpoint_is_returned_unchanged(saved):
  saved.save(1)
  opened = open_checkpoint(saved.folder)
  saved.save(2, 0.9)
  assert open_checkpoint(opened) is opened
  chex.assert_trees_all_equal(opened.variables(), jax.device_get(saved.trees(1)[0]))


def test_variables_are_on_the_default_device(saved):
  saved.save(1)
  variables = load_variables(saved.folder)
  expected, _ = saved.trees(1)
  chex.assert_trees_all_equal(variables, expected)
  devices = {frozenset(leaf.sharding.device_set) for leaf in jax.tree.leaves(variables)}
  assert devices == {frozenset([jax.devices()[0]])}


def test_latest_of_equal_scores_is_best(saved):
  saved.save_all([0.5, 0.5, 0.1, 0.1])
  assert load_meta(saved.folder)["step"] == 2


def test_nan_score_is_never_best(saved):
  saved.save_all([0.5, math.nan, 0.1])
  assert load_meta(saved.folder)["step"] == 1


def test_latest_if_none_was_evaluated(saved, tmp_path):
  saved.save_all([None, None])
  assert load_meta(tmp_path)["step"] == 2
  with pytest.raises(FileNotFoundError, match="was evaluated"):
    load_meta(tmp_path, step="best")


def test_no_checkpoint(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"no such folder: .*expected a workdir"):
    load_variables(tmp_path / "missing")
  with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*expected a workdir"):
    load_variables(tmp_path)


def test_best_is_removed_while_it_is_opened(saved, monkeypatch):
  """As when a run saves a better one at that moment: the other is opened completely."""
  saved.save_all([0.5, 0.1])
  read_text = type(epath.Path()).read_text

  def read(path, *rest):
    if path.parent.parent == saved.folder / "1" and path.name == "metadata":
      shutil.rmtree(saved.folder / "1")
    return read_text(path, *rest)

  monkeypatch.setattr(type(epath.Path()), "read_text", read)
  opened = open_checkpoint(saved.folder, step="best")
  assert (opened.step, opened.meta["metrics"]["map50"]) == (2, 0.1)
  chex.assert_trees_all_equal(opened.variables(), jax.device_get(saved.trees(2)[0]))


def test_checkpoint_is_removed_before_its_variables_are_read(saved):
  saved.save_all([0.5, 0.1])
  opened = open_checkpoint(saved.folder)
  shutil.rmtree(opened.folder)
  with pytest.raises(CheckpointRemovedError, match=r"checkpoints/1 was removed while it was being"):
    opened.variables()


def test_incomplete_checkpoint(saved):
  """Left by a program that was killed while removing it."""
  saved.save(1)
  (saved.folder / "1" / "meta" / "metadata").unlink()
  with pytest.raises(CheckpointRemovedError, match="Open the workdir again"):
    open_checkpoint(saved.folder)


@pytest.mark.parametrize("content", [b"", b'{"step": 1', b"\xff\xfe", b"[1, 2]"])
@pytest.mark.parametrize("file", ["meta/metadata", "metrics/metrics"])
def test_a_damaged_description_is_named(saved, file, content):
  saved.save(1, 0.5)
  (saved.folder / "1" / file).write_bytes(content)
  with pytest.raises(ValueError, match=rf"1/{file} is damaged: .* delete the checkpoint .*/1$"):
    open_checkpoint(saved.folder)


@pytest.mark.parametrize("content", [b"{}", b'{"score": "high"}'])
def test_a_score_that_is_no_number_is_named(saved, content):
  saved.save(2, 0.5)
  (saved.folder / "2" / "metrics" / "metrics").write_bytes(content)
  with pytest.raises(ValueError, match=r"metrics/metrics is damaged: its score is .*Restore it"):
    open_checkpoint(saved.folder)


@pytest.mark.parametrize("name", ["manifest.ocdbt", "_METADATA", "d"])
@pytest.mark.parametrize("change", ["truncated", "overwritten", "missing"])
def test_damaged_arrays_are_named(saved, name, change):
  saved.save(2, 0.5)
  path = saved.folder / "2" / "variables" / name
  files = [path] if path.is_file() else list(path.iterdir())
  for file in files:
    content = file.read_bytes()
    if change == "missing":
      file.unlink()
    else:
      file.write_bytes(content[: len(content) // 2] if change == "truncated" else b"\xff" * 100)
  with pytest.raises(DamagedCheckpointError) as caught:
    load_variables(saved.folder)
  assert str(caught.value).startswith(f"the checkpoint {saved.folder / '2'} is damaged: ")
  assert str(caught.value).endswith(". Restore it, or choose another step")
  assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("opener", [open_checkpoint, load_meta, load_variables])
def test_newer_version_is_named(saved, opener):
  saved.save(1)
  file = saved.folder / "1" / "meta" / "metadata"
  file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
  with pytest.raises(
    ValueError, match=r"checkpoints/1 was written by ferjax 0\.0\.9.*format is 99"
  ):
    opener(saved.folder)


def test_unknown_network(saved):
  def create_model(name, *, num_classes, **options):
    if options != {"size": "atto"}:
      raise TypeError(f"{name} has no option 'depth'")
    return name, num_classes

  saved.save(1)
  opened = open_checkpoint(saved.folder)
  assert opened.build_model(create_model) == ("emonext", 2)
  opened.meta["model"]["depth"] = 3
  message = r"by ferjax 0\.0\.9, and ferjax .* cannot read it: emonext has no option 'depth'\. Use"
  with pytest.raises(ValueError, match=message):
    opened.build_model(create_model)


def test_path_with_glob_characters(saved, tmp_path):
  saved.save(1)
  moved = shutil.copytree(tmp_path / "checkpoints", tmp_path / "a [1]*?" / "checkpoints")
  chex.assert_trees_all_equal(load_variables(moved), jax.device_get(saved.trees(1)[0]))

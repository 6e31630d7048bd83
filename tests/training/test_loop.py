import json

import jax
import numpy as np
import pytest

from ferjax.checkpoint import Checkpoints, load_meta, load_variables
from ferjax.data.image import ImageError
from ferjax.training import inputs, loop
from ferjax.training.interruption import Interruption
from ferjax.training.step_log import NonFiniteError


def lines(workdir):
  return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def folders(workdir):
  return sorted(int(folder.name) for folder in (workdir / "checkpoints").iterdir())


def two_phases(tiny, **options):
  return tiny.config(freeze="backbone", freeze_epochs=1, freeze_batch_size=8, **options)


def test_hosts_synchronise_when_they_log(tiny, tmp_path, monkeypatch):
  """After the same steps, whichever host was interrupted."""
  synced, step = [], 0

  def should_stop(self, *, sync_hosts):
    nonlocal step
    if sync_hosts:
      synced.append(step)
    step += 1
    return False

  monkeypatch.setattr(Interruption, "should_stop", should_stop)
  tiny.train(tmp_path, tiny.config(log_every=3))
  assert synced == [0, 3, 4, 6, 8]  # epochs end at 4 and 8


@pytest.mark.parametrize("name", ["w [1]", "w*"])
def test_path_with_glob_characters(tiny, tmp_path, name):
  config = tiny.config(epochs=1)
  tiny.train(tmp_path / name, config)
  config.train.epochs = 2
  tiny.train(tmp_path / name, config)
  assert load_variables(tmp_path / name, step=8).keys() == {"params", "batch_stats"}
  assert folders(tmp_path / name) == [4, 8]


def test_unreadable_folder_is_refused_before_the_first_step(tiny, tmp_path, monkeypatch):
  def check_readable(self):
    raise OSError("checkpoints cannot be read back")

  monkeypatch.setattr(Checkpoints, "check_readable", check_readable)
  with pytest.raises(OSError, match="cannot be read back"):
    tiny.train(tmp_path)
  assert not (tmp_path / "metrics.jsonl").exists()


def test_config_is_written_when_a_run_resumes(tiny, tmp_path):
  tiny.train(tmp_path, tiny.config(epochs=1))
  tiny.train(tmp_path, tiny.config(epochs=2, log_every=3))
  settings = json.loads((tmp_path / "config.json").read_text())["train"]
  assert (settings["epochs"], settings["log_every"]) == (2, 3)


def test_each_phase_is_traced_once(tiny, tmp_path, monkeypatch):
  make, traced = loop.make_train_step, []

  def make_counted(model, *rest, **options):
    train_step = make(model, *rest, **options)

    def counted(*args):
      traced.append(model.frozen)
      return train_step(*args)

    return counted

  monkeypatch.setattr(loop, "make_train_step", make_counted)
  tiny.train(tmp_path, two_phases(tiny))
  assert traced == ["backbone", "none"]


def test_best_is_kept_even_if_not_due(tiny, tmp_path, monkeypatch):
  scores = iter([0.1, 0.7, 0.3, 0.2])
  monkeypatch.setattr(
    tiny.Metrics, "compute", lambda self: {"map50": next(scores), "num_images": 6.0}
  )
  config = tiny.config(epochs=4, checkpoint_every=4, keep_checkpoints=1)
  tiny.train(tmp_path, config)
  assert folders(tmp_path) == [8, 16]
  assert load_meta(tmp_path)["step"] == 8
  assert load_meta(tmp_path)["metrics"]["map50"] == 0.7


def test_evaluation_at_its_interval_and_at_the_end(tiny, tmp_path):
  tiny.train(tmp_path, tiny.config(epochs=3, eval_every=2))
  assert [x["step"] for x in lines(tmp_path) if "eval/map50" in x] == [8, 12]


def test_divergence_stops_without_saving(tiny, tmp_path):
  config = tiny.config(epochs=2, log_every=3)
  source = tiny.Source(16, poison=5)
  with pytest.raises(NonFiniteError, match=r"not finite after step \d .*of the steps \d\.\.\d"):
    tiny.train(tmp_path, config, source=source)
  assert folders(tmp_path) == []


def test_steps_that_are_not_finite_are_skipped_within_the_budget(tiny, tmp_path):
  """A record that makes the loss infinite is in one batch of each of the two epochs."""
  source = tiny.Source(16, poison=5)

  def train(name, budget):
    return tiny.train(tmp_path / name, tiny.config(skip_nonfinite=budget), source=source)

  train("whole", 2)
  last = [x for x in lines(tmp_path / "whole") if "train/learning_rate" in x][-1]
  assert last["train/skipped_steps"] == 2
  assert load_meta(tmp_path / "whole", step=4)["skipped_steps"] == 1
  with pytest.raises(NonFiniteError, match=r"after 1 skipped steps.*train\.py --replay"):
    train("parts", 1)
  assert folders(tmp_path / "parts") == [4]
  train("parts", 2)
  assert load_meta(tmp_path / "parts", step=8)["skipped_steps"] == 2
  found, expected = (load_variables(tmp_path / x, step=8) for x in ("parts", "whole"))
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_skipped_records_are_counted_and_named(tiny, tmp_path, caplog):
  class Broken(tiny.Source):
    def __getitem__(self, index):
      if index == 7:
        raise ImageError("record 7: broken")
      return super().__getitem__(index)

  config = tiny.config()
  with pytest.raises(ValueError, match="record 7: broken"):
    tiny.train(tmp_path / "strict", config, source=Broken(16))
  config.data.on_bad_record = "skip"
  tiny.train(tmp_path / "lenient", config, source=Broken(16))
  last = [x for x in lines(tmp_path / "lenient") if "train/loss" in x][-1]
  assert last["train/skipped_records"] == 2  # once an epoch
  assert "skipped bad record: record 7" in caplog.text


@pytest.mark.parametrize("freeze", ["backbone", "none"])
def test_warning_about_random_frozen_parts(tiny, tmp_path, capsys, freeze):
  tiny.train(tmp_path, tiny.config(epochs=1, freeze=freeze, freeze_epochs=1, freeze_batch_size=4))
  warned = "warning: the frozen parts (backbone) are random; pass --config.train.pretrained=FILE"
  assert (warned in capsys.readouterr().err) == (freeze == "backbone")


def test_batch_size_is_checked_first(tiny, tmp_path):
  with pytest.raises(ValueError, match=r"batch size \(5\) must be divisible"):
    tiny.trainer(tmp_path, tiny.config(batch_size=5))
  assert not (tmp_path / "checkpoints").exists()


def test_no_implicit_transfers_to_the_device(tiny, tmp_path, monkeypatch):
  """The loop's transfer guard refuses host arrays as arguments of a step."""
  monkeypatch.setattr(inputs, "to_global", lambda batch, mesh: batch)
  with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
    tiny.train(tmp_path)

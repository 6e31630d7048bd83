"""A run of two phases, whole and interrupted."""

import json
import os
import signal

import chex
import jax
import numpy as np
import pytest

from ferjax.checkpoint import load_meta, load_variables
from ferjax.config import OptimizerConfig
from ferjax.data.image import normalize
from ferjax.data.pipeline import eval_dataset
from ferjax.training import loop
from ferjax.training.loop import Interrupted
from ferjax.training.sharding import make_mesh
from ferjax.training.step_log import StepLog


def lines(workdir):
  return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def folders(workdir):
  return sorted(int(folder.name) for folder in (workdir / "checkpoints").iterdir())


def assert_same_log(a, b):
  """Compares metrics.jsonl of two runs, without the values that depend on the clock."""
  clock = "train/images_per_second"
  a, b = ([{k: v for k, v in x.items() if k != clock} for x in lines(run)] for run in (a, b))
  assert a == b


def interrupt_at(monkeypatch, step):
  """Sends the signal of a batch system during a step."""
  add = StepLog.add

  def add_and_signal(self, number, *rest):
    add(self, number, *rest)
    if number == step:
      os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(StepLog, "add", add_and_signal)


@pytest.fixture(scope="module")
def uninterrupted(tiny, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("uninterrupted")
  metrics = tiny.train(
    workdir, tiny.config(freeze="backbone", freeze_epochs=1, freeze_batch_size=8)
  )
  return workdir, metrics


def two_phases(tiny, **options):
  return tiny.config(freeze="backbone", freeze_epochs=1, freeze_batch_size=8, **options)


def test_files_of_a_run(uninterrupted, tiny):
  workdir, metrics = uninterrupted
  record = lines(workdir)
  # One frozen epoch of two steps of 8, then one of four steps of 4.
  assert [(x["step"], x["epoch"]) for x in record] == [
    (2, 1.0),
    (2, 1.0),
    (4, 1.5),
    (6, 2.0),
    (6, 2.0),
  ]
  train, evaluation = record[-2], record[-1]
  for name in ("loss", "loss_error", "learning_rate", "images_per_second", "skipped_records"):
    assert f"train/{name}" in train
  assert evaluation["eval/map50"] == metrics["map50"]
  assert evaluation["eval/loss"] == metrics["loss"]
  assert json.loads((workdir / "config.json").read_text())["train"]["freeze"] == "backbone"
  assert "jax" in json.loads((workdir / "environment.json").read_text())
  assert list((workdir / "tensorboard").glob("events*"))
  assert folders(workdir) == [2, 6]
  meta = load_meta(workdir, step="latest")
  assert (meta["step"], meta["epoch"], meta["task"]) == (6, 2.0, "detection")
  assert meta["class_names"] == list(tiny.Source.class_names)
  assert meta["metrics"] == metrics


def test_moving_averages_are_evaluated(uninterrupted, tiny):
  workdir, metrics = uninterrupted
  variables = load_variables(workdir, step="latest")
  dataset = eval_dataset(tiny.Source(6), tiny.config().data, batch_size=6)
  (batch,) = list(dataset)
  predicted = tiny.Model().apply(variables, normalize(batch["image"]), train=False)
  assert metrics["map50"] == pytest.approx(1 / (1 + np.square(predicted).mean()), rel=1e-5)
  errors = np.square(predicted - batch["label"][:, 0])
  assert metrics["loss"] == pytest.approx(errors.mean(), rel=1e-5)


def test_frozen_phase_does_not_change_the_backbone(uninterrupted, tiny):
  workdir, _ = uninterrupted
  init = jax.jit(
    lambda key: tiny.Model().init(key, np.zeros((1, 32, 32, 3)), train=False),
    compiler_options={"xla_backend_optimization_level": 0},  # as a run does on a CPU
  )
  fresh = init(jax.random.key(3))
  early, late = load_variables(workdir, step=2), load_variables(workdir, step=6)
  chex.assert_trees_all_equal(early["params"]["backbone"], fresh["params"]["backbone"])
  chex.assert_trees_all_equal(early["batch_stats"], fresh["batch_stats"])
  assert (early["params"]["head"]["kernel"] != fresh["params"]["head"]["kernel"]).any()
  kernels = [x["params"]["backbone"]["conv"]["kernel"] for x in (early, late)]
  assert (kernels[0] != kernels[1]).any()


@pytest.mark.parametrize("step", [1, 2, 4])
def test_interrupted_and_resumed_equals_uninterrupted(
  uninterrupted, tiny, tmp_path, monkeypatch, step
):
  reference, metrics = uninterrupted
  with monkeypatch.context() as patch:
    interrupt_at(patch, step)
    with pytest.raises(Interrupted, match=f"interrupted after step {step} of 6; the same command"):
      tiny.train(tmp_path, two_phases(tiny))
  assert folders(tmp_path)[-1] == step
  assert tiny.train(tmp_path, two_phases(tiny)) == metrics
  chex.assert_trees_all_equal(
    load_variables(tmp_path, step="latest"), load_variables(reference, step="latest")
  )
  if step in (2, 4):  # at other steps the logged means cover fewer steps
    assert_same_log(tmp_path, reference)


@pytest.mark.parametrize("step", [2, 6])
def test_interruption_at_the_end_of_an_epoch_saves_and_resuming_evaluates(
  uninterrupted, tiny, tmp_path, monkeypatch, step
):
  reference, metrics = uninterrupted
  with monkeypatch.context() as patch:
    interrupt_at(patch, step)
    with pytest.raises(Interrupted, match=f"interrupted after step {step} of 6"):
      tiny.train(tmp_path, two_phases(tiny))
  assert load_meta(tmp_path, step=step)["metrics"] == {}
  assert not [x for x in lines(tmp_path) if x["step"] == step and "eval/map50" in x]
  assert tiny.train(tmp_path, two_phases(tiny)) == metrics
  assert_same_log(tmp_path, reference)
  assert folders(tmp_path) == folders(reference)
  for chosen in (2, 6, "best"):
    ours, theirs = load_meta(tmp_path, step=chosen), load_meta(reference, step=chosen)
    assert (ours["step"], ours["metrics"]) == (theirs["step"], theirs["metrics"])


def test_adamw_clipping_and_rates_by_step_are_resumed(tiny, tmp_path, monkeypatch):
  config = tiny.config()
  config.optimizer = OptimizerConfig(
    name="adamw", learning_rate=0.16, momentum=0.9, clip_norm=0.5, schedule="warmup_cosine"
  )
  metrics = tiny.train(tmp_path / "whole", config)
  rates = [x["train/learning_rate"] for x in lines(tmp_path / "whole") if "train/loss" in x]
  assert len(set(rates[:3])) == 3
  with monkeypatch.context() as patch:
    interrupt_at(patch, 3)
    with pytest.raises(Interrupted):
      tiny.train(tmp_path / "parts", config)
  assert tiny.train(tmp_path / "parts", config) == metrics
  chex.assert_trees_all_equal(
    *(load_variables(tmp_path / run, step="latest") for run in ("parts", "whole"))
  )


def test_killed_after_its_last_checkpoint(uninterrupted, tiny, tmp_path, monkeypatch):
  reference, metrics = uninterrupted

  class Killed(BaseException):
    pass

  add = StepLog.add

  def fail_after_step_2(self, number, *rest):
    if number == 3:
      raise Killed
    add(self, number, *rest)

  with monkeypatch.context() as patch:
    patch.setattr(StepLog, "add", fail_after_step_2)
    with pytest.raises(Killed):
      tiny.train(tmp_path, two_phases(tiny))
  assert folders(tmp_path) == [2]
  assert tiny.train(tmp_path, two_phases(tiny)) == metrics
  assert_same_log(tmp_path, reference)


@pytest.mark.parametrize("devices", [(2, 1), (1, 2)])
def test_resumed_on_another_number_of_devices(uninterrupted, tiny, tmp_path, monkeypatch, devices):
  reference, _ = uninterrupted
  first, second = map(make_mesh, devices)
  with monkeypatch.context() as patch:
    interrupt_at(patch, 3)
    with pytest.raises(Interrupted):
      tiny.train(tmp_path, two_phases(tiny), mesh=first)
  tiny.train(tmp_path, two_phases(tiny), mesh=second)
  chex.assert_trees_all_close(
    load_variables(tmp_path, step="latest"), load_variables(reference, step="latest"), atol=1e-5
  )


def test_data_position_is_computed_if_the_saved_one_does_not_fit(
  uninterrupted, tiny, tmp_path, monkeypatch
):
  """As after a change of hosts or workers; twice, because the start must be kept."""
  _, metrics = uninterrupted
  describe = loop.describe
  for step, hosts in ((3, 1), (4, 2), (5, 2)):
    with monkeypatch.context() as patch:
      patch.setattr(loop, "describe", lambda *a, n=hosts, **k: describe(*a, **k) | {"num_hosts": n})
      interrupt_at(patch, step)
      with pytest.raises(Interrupted):
        tiny.train(tmp_path, two_phases(tiny))
  monkeypatch.setattr(loop, "describe", lambda *a, **k: describe(*a, **k) | {"num_hosts": 2})
  assert tiny.train(tmp_path, two_phases(tiny)) == metrics


def contents(workdir):
  return {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


@pytest.mark.parametrize("epochs", [2, 1])
def test_finished_run_is_left_unchanged(uninterrupted, tiny, capsys, epochs):
  """Also with changed settings, because no step would use them."""
  workdir, metrics = uninterrupted
  before = contents(workdir)
  assert tiny.train(workdir, two_phases(tiny, epochs=epochs, log_every=7)) == metrics
  assert contents(workdir) == before
  printed = capsys.readouterr().err
  total = 6 if epochs == 2 else 2
  assert f"is already at step 6 of {total}; nothing was done" in printed
  assert "Raise train.epochs to continue" in printed
  assert "Validation metrics:" in printed


def test_data_position_is_saved(tiny, tmp_path, monkeypatch):
  seen = []
  log_bad_records = loop.log_bad_records

  def record(source, batch):
    seen.append(batch["index"].tolist())
    return log_bad_records(source, batch)

  monkeypatch.setattr(loop, "log_bad_records", record)
  tiny.train(tmp_path / "whole")
  whole, seen[:] = list(seen), []
  with monkeypatch.context() as patch:
    interrupt_at(patch, 3)
    with pytest.raises(Interrupted):
      tiny.train(tmp_path / "parts")
  tiny.train(tmp_path / "parts")
  assert seen == whole
  assert [sorted(np.ravel(whole[i : i + 4])) for i in (0, 4)] == [list(range(16))] * 2

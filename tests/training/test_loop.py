import json
import os
import signal

import chex
import jax
import numpy as np
import pytest

from ferjax.checkpoint import Checkpoints, load_meta, load_variables
from ferjax.config import OptimizerConfig
from ferjax.data.image import ImageError
from ferjax.data.pipeline import eval_dataset
from ferjax.training import loop
from ferjax.training.interruption import Interruption
from ferjax.training.loop import Interrupted
from ferjax.training.sharding import make_mesh
from ferjax.training.step_log import NonFiniteError, StepLog


def lines(workdir):
  return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def folders(workdir):
  return sorted(int(folder.name) for folder in (workdir / "checkpoints").iterdir())


def same_record(a, b):
  """metrics.jsonl of two runs, without what depends on the clock."""
  clock = "train/images_per_second"
  a, b = ([{k: v for k, v in x.items() if k != clock} for x in lines(run)] for run in (a, b))
  assert a == b


def interrupt_at(monkeypatch, step):
  """The signal of a batch system while a step runs."""
  add = StepLog.add

  def add_and_signal(self, number, *rest):
    add(self, number, *rest)
    if number == step:
      os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(StepLog, "add", add_and_signal)


@pytest.fixture(scope="module")
def uninterrupted(tiny, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("uninterrupted")
  figures = tiny.train(
    workdir, tiny.config(freeze="backbone", freeze_epochs=1, freeze_batch_size=8)
  )
  return workdir, figures


def two_phases(tiny, **options):
  return tiny.config(freeze="backbone", freeze_epochs=1, freeze_batch_size=8, **options)


def test_what_a_run_leaves(uninterrupted, tiny):
  workdir, figures = uninterrupted
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
  assert evaluation["eval/map50"] == figures["map50"]
  assert evaluation["eval/loss"] == figures["loss"]
  assert json.loads((workdir / "config.json").read_text())["train"]["freeze"] == "backbone"
  assert "jax" in json.loads((workdir / "environment.json").read_text())
  assert list((workdir / "tensorboard").glob("events*"))
  assert folders(workdir) == [2, 6]
  meta = load_meta(workdir, step="latest")
  assert (meta["step"], meta["epoch"], meta["task"]) == (6, 2.0, "detection")
  assert meta["class_names"] == list(tiny.Source.class_names)
  assert meta["metrics"] == figures


def test_the_averages_are_evaluated(uninterrupted, tiny):
  workdir, figures = uninterrupted
  variables = load_variables(workdir, step="latest")
  dataset = eval_dataset(tiny.Source(6), tiny.config().data, batch_size=6)
  (batch,) = list(dataset)
  predicted = tiny.Model().apply(variables, batch["image"], train=False)
  assert figures["map50"] == pytest.approx(1 / (1 + np.square(predicted).mean()), rel=1e-5)
  errors = np.square(predicted - batch["label"][:, 0])
  assert figures["loss"] == pytest.approx(errors.mean(), rel=1e-5)


def test_frozen_phase_leaves_the_backbone(uninterrupted, tiny):
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
def test_interrupted_and_continued_equals_uninterrupted(
  uninterrupted, tiny, tmp_path, monkeypatch, step
):
  reference, figures = uninterrupted
  with monkeypatch.context() as patch:
    interrupt_at(patch, step)
    with pytest.raises(Interrupted, match=f"interrupted after step {step} of 6; the same command"):
      tiny.train(tmp_path, two_phases(tiny))
  assert folders(tmp_path)[-1] == step
  assert tiny.train(tmp_path, two_phases(tiny)) == figures
  chex.assert_trees_all_equal(
    load_variables(tmp_path, step="latest"), load_variables(reference, step="latest")
  )
  if step in (2, 4):  # elsewhere the means are over fewer steps
    same_record(tmp_path, reference)


@pytest.mark.parametrize("step", [2, 6])
def test_at_the_end_of_an_epoch_an_interruption_saves_and_continuing_evaluates(
  uninterrupted, tiny, tmp_path, monkeypatch, step
):
  reference, figures = uninterrupted
  with monkeypatch.context() as patch:
    interrupt_at(patch, step)
    with pytest.raises(Interrupted, match=f"interrupted after step {step} of 6"):
      tiny.train(tmp_path, two_phases(tiny))
  assert load_meta(tmp_path, step=step)["metrics"] == {}
  assert not [x for x in lines(tmp_path) if x["step"] == step and "eval/map50" in x]
  assert tiny.train(tmp_path, two_phases(tiny)) == figures
  same_record(tmp_path, reference)
  assert folders(tmp_path) == folders(reference)
  for chosen in (2, 6, "best"):
    ours, theirs = load_meta(tmp_path, step=chosen), load_meta(reference, step=chosen)
    assert (ours["step"], ours["metrics"]) == (theirs["step"], theirs["metrics"])


def test_adamw_clipping_and_rates_by_step_are_continued(tiny, tmp_path, monkeypatch):
  config = tiny.config()
  config.optimizer = OptimizerConfig(
    name="adamw", learning_rate=0.16, momentum=0.9, clip_norm=0.5, schedule="warmup_cosine"
  )
  figures = tiny.train(tmp_path / "whole", config)
  rates = [x["train/learning_rate"] for x in lines(tmp_path / "whole") if "train/loss" in x]
  assert len(set(rates[:3])) == 3
  with monkeypatch.context() as patch:
    interrupt_at(patch, 3)
    with pytest.raises(Interrupted):
      tiny.train(tmp_path / "parts", config)
  assert tiny.train(tmp_path / "parts", config) == figures
  chex.assert_trees_all_equal(
    *(load_variables(tmp_path / run, step="latest") for run in ("parts", "whole"))
  )


def test_hosts_meet_where_they_log(tiny, tmp_path, monkeypatch):
  """Each after the same steps, whichever of them was interrupted."""
  met, step = [], 0

  def agreed(self, *, hosts_meet):
    nonlocal step
    if hosts_meet:
      met.append(step)
    step += 1
    return False

  monkeypatch.setattr(Interruption, "agreed", agreed)
  tiny.train(tmp_path, tiny.config(log_every=3))
  assert met == [0, 3, 4, 6, 8]  # at 4 and 8 an epoch ends


def test_killed_after_its_last_checkpoint(uninterrupted, tiny, tmp_path, monkeypatch):
  reference, figures = uninterrupted

  class Killed(BaseException):
    pass

  to_global = loop.to_global

  def give_or_die(*batch_and_mesh):
    if (tmp_path / "checkpoints" / "2").exists():
      raise Killed
    return to_global(*batch_and_mesh)

  with monkeypatch.context() as patch:
    patch.setattr(loop, "to_global", give_or_die)
    with pytest.raises(Killed):
      tiny.train(tmp_path, two_phases(tiny))
  assert folders(tmp_path) == [2]
  assert tiny.train(tmp_path, two_phases(tiny)) == figures
  same_record(tmp_path, reference)


@pytest.mark.parametrize("devices", [(2, 1), (1, 2)])
def test_continued_on_another_number_of_devices(
  uninterrupted, tiny, tmp_path, monkeypatch, devices
):
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


def test_the_position_is_computed_where_none_fits(uninterrupted, tiny, tmp_path, monkeypatch):
  """As after a change of hosts or workers; twice, for the start must be kept."""
  _, figures = uninterrupted
  describe = loop.describe
  for step, hosts in ((3, 1), (4, 2), (5, 2)):
    with monkeypatch.context() as patch:
      patch.setattr(loop, "describe", lambda *a, n=hosts, **k: describe(*a, **k) | {"num_hosts": n})
      interrupt_at(patch, step)
      with pytest.raises(Interrupted):
        tiny.train(tmp_path, two_phases(tiny))
  monkeypatch.setattr(loop, "describe", lambda *a, **k: describe(*a, **k) | {"num_hosts": 2})
  assert tiny.train(tmp_path, two_phases(tiny)) == figures


def contents(workdir):
  return {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


@pytest.mark.parametrize("epochs", [2, 1])
def test_a_run_is_left_alone_at_its_end_and_beyond(uninterrupted, tiny, capsys, epochs):
  """Also where other settings are asked for: they would be those of no step."""
  workdir, figures = uninterrupted
  before = contents(workdir)
  assert tiny.train(workdir, two_phases(tiny, epochs=epochs, log_every=7)) == figures
  assert contents(workdir) == before
  told = capsys.readouterr().err
  total = 6 if epochs == 2 else 2
  assert f"is at step 6 already, of {total}: nothing is done or changed; raise train.ep" in told
  assert "Validation metrics:" in told


@pytest.mark.parametrize("name", ["w [1]", "w*"])
def test_a_path_with_the_characters_of_patterns(tiny, tmp_path, name):
  config = tiny.config(epochs=1)
  tiny.train(tmp_path / name, config)
  config.train.epochs = 2
  tiny.train(tmp_path / name, config)
  assert load_variables(tmp_path / name, step=8).keys() == {"params", "batch_stats"}
  assert folders(tmp_path / name) == [4, 8]


def test_a_folder_that_cannot_be_read_is_refused_before_the_first_step(tiny, tmp_path, monkeypatch):
  def check_readable(self):
    raise OSError("checkpoints cannot be read after they are written")

  monkeypatch.setattr(Checkpoints, "check_readable", check_readable)
  with pytest.raises(OSError, match="cannot be read after they are written"):
    tiny.train(tmp_path)
  assert not (tmp_path / "metrics.jsonl").exists()


def test_settings_are_written_when_a_run_goes_on(tiny, tmp_path):
  tiny.train(tmp_path, tiny.config(epochs=1))
  tiny.train(tmp_path, tiny.config(epochs=2, log_every=3))
  settings = json.loads((tmp_path / "config.json").read_text())["train"]
  assert (settings["epochs"], settings["log_every"]) == (2, 3)


def test_the_position_of_the_data_is_saved(tiny, tmp_path, monkeypatch):
  seen = []
  to_global = loop.to_global

  def look(batch, mesh):
    seen.append(batch["index"].tolist())
    return to_global(batch, mesh)

  monkeypatch.setattr(loop, "to_global", look)
  tiny.train(tmp_path / "whole")
  whole, seen[:] = list(seen), []
  with monkeypatch.context() as patch:
    interrupt_at(patch, 3)
    with pytest.raises(Interrupted):
      tiny.train(tmp_path / "parts")
  tiny.train(tmp_path / "parts")
  assert seen == whole
  assert [sorted(np.ravel(whole[i : i + 4])) for i in (0, 4)] == [list(range(16))] * 2


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


def test_the_best_is_kept_though_not_due(tiny, tmp_path, monkeypatch):
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


def test_divergence_stops_and_saves_nothing_of_it(tiny, tmp_path):
  config = tiny.config(epochs=2, log_every=3)
  source = tiny.Source(16, poison=5)
  with pytest.raises(NonFiniteError, match=r"not finite after step \d .*of the steps \d\.\.\d"):
    tiny.train(tmp_path, config, source=source)
  assert folders(tmp_path) == []


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
  assert "skipped the bad record record 7" in caplog.text


@pytest.mark.parametrize("freeze", ["backbone", "none"])
def test_random_frozen_parts_are_warned_of(tiny, tmp_path, capsys, freeze):
  tiny.train(tmp_path, tiny.config(epochs=1, freeze=freeze, freeze_epochs=1, freeze_batch_size=4))
  warned = "warning: the frozen parts (backbone) are random; pass --config.train.pretrained=FILE"
  assert (warned in capsys.readouterr().err) == (freeze == "backbone")


def test_batches_must_divide_before_anything_is_done(tiny, tmp_path):
  with pytest.raises(ValueError, match=r"batch size \(5\) must be divisible"):
    tiny.trainer(tmp_path, tiny.config(batch_size=5))
  assert not (tmp_path / "checkpoints").exists()


def test_nothing_moves_to_the_device_unasked(tiny, tmp_path, monkeypatch):
  """The guard that the loop sets would stop a step that is given host arrays."""
  monkeypatch.setattr(loop, "to_global", lambda batch, mesh: batch)
  with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
    tiny.train(tmp_path)

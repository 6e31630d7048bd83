import itertools
import json
import re
import shutil

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from ferjax.checkpoint import load_meta, load_variables


@pytest.fixture(scope="module")
def workdir(tiny, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("run")
  tiny.train(workdir, tiny.config(epochs=1))
  return workdir


@pytest.mark.parametrize(
  ("group", "field", "value", "message"),
  [
    ("model", "name", "fermam", "model.name is 'fermam', the checkpoint has 'fer_yolo_mamba'"),
    ("model", "size", "x", "model.size is 'x', the checkpoint has 's'"),
    (
      "model",
      "options",
      "drop_path_rate=0.5",
      "model.drop_path_rate is 0.5, the checkpoint has 0.0",
    ),
    ("data", "class_names", ("a", "b"), r"data.class_names is \('a', 'b'\), the checkpoint has"),
    ("data", "image_size", 64, "data.image_size is 64, the checkpoint has 32"),
    ("data", "sources", ("voc=1",), r"data.sources is \('voc=1',\), the checkpoint has \(\)"),
    ("train", "seed", 4, "train.seed is 4, the checkpoint has 3"),
    ("train", "teacher_weight", 0.25, "train.teacher_weight is 0.25, the checkpoint has 0.5"),
    ("train", "batch_size", 2, "train.batch_size is 2, the checkpoint has 4"),
    ("optimizer", "name", "adamw", "optimizer.name is 'adamw', the checkpoint has 'sgd'"),
  ],
)
def test_another_run_is_refused(workdir, tiny, group, field, value, message):
  config = tiny.config(epochs=1)
  setattr(getattr(config, group), field, value)
  with pytest.raises(
    ValueError, match=f"(?s)contains a different run.*{message}.*another --workdir"
  ):
    tiny.train(workdir, config)


def test_an_imported_network_is_no_run(workdir, tiny, tmp_path):
  """It has no config."""
  folder = tmp_path / "run"
  shutil.copytree(workdir, folder)
  for file in folder.glob("checkpoints/*/meta/metadata"):
    file.write_text(json.dumps(json.loads(file.read_text()) | {"config": {}}))
  message = "run contains an imported network, not a run; .*--config.train.pretrained=.*run"
  with pytest.raises(ValueError, match=message):
    tiny.train(folder, tiny.config(epochs=1))


def test_other_data_is_refused(workdir, tiny):
  message = "number of training examples is 20, the checkpoint has 16"
  with pytest.raises(ValueError, match=message):
    tiny.train(workdir, tiny.config(epochs=1), source=tiny.Source(20))


def test_other_parameters_are_refused(workdir, tiny):
  message = re.escape("params/neck/bias has shape (3,), not (4,)")
  with pytest.raises(ValueError, match=message):
    tiny.train(workdir, tiny.config(epochs=2), model=tiny.Model(width=4))


def test_checkpoint_without_model_options_resumes(tiny, tmp_path):
  tiny.train(tmp_path, tiny.config(epochs=1))
  for file in (tmp_path / "checkpoints").glob("*/meta/metadata"):
    meta = json.loads(file.read_text())
    del meta["config"]["model"]["options"]
    meta["model"] = meta["config"]["model"]
    file.write_text(json.dumps(meta))
  tiny.train(tmp_path, tiny.config(epochs=2))
  assert load_meta(tmp_path, step="latest")["step"] == 8


def test_run_of_the_first_format_resumes(tiny, tmp_path):
  """Its description has no format number, a renamed field, and lacks newer fields."""
  tiny.train(tmp_path / "whole", tiny.config(epochs=2))
  tiny.train(tmp_path / "run", tiny.config(epochs=1))
  file = tmp_path / "run" / "checkpoints" / "4" / "meta" / "metadata"
  meta = json.loads(file.read_text())
  for name in ("format", "skipped_records", "training_seconds"):
    del meta[name]
  meta["worse"] = meta.pop("evaluations_since_best")
  file.write_text(json.dumps(meta))
  tiny.train(tmp_path / "run", tiny.config(epochs=2))
  found, expected = (load_variables(tmp_path / run, step="latest") for run in ("run", "whole"))
  # Not bit by bit: the rates of a run of one epoch are constants of another program.
  chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)


def test_newer_version_is_named(tiny, tmp_path):
  tiny.train(tmp_path, tiny.config(epochs=1))
  file = tmp_path / "checkpoints" / "4" / "meta" / "metadata"
  meta = json.loads(file.read_text())
  meta["config"]["train"]["new_field"] = 1
  file.write_text(json.dumps(meta))
  before = (tmp_path / "config.json").read_text()
  with pytest.raises(ValueError, match=r"written by ferjax .*know: config\.train\.new_field"):
    tiny.train(tmp_path, tiny.config(epochs=2))
  assert (tmp_path / "config.json").read_text() == before


def test_longer_training_resumes(tiny, tmp_path):
  tiny.train(tmp_path, tiny.config(epochs=1))
  before = load_variables(tmp_path, step="latest")
  tiny.train(tmp_path, tiny.config(epochs=2))
  after = load_variables(tmp_path, step="latest")
  assert (tmp_path / "checkpoints" / "8").exists()
  assert (before["params"]["head"]["kernel"] != after["params"]["head"]["kernel"]).any()


def test_rates_of_parts_can_be_changed(tiny, tmp_path, capsys):
  """From a checkpoint without them, and from one with them."""
  configs = [tiny.config(epochs=epochs, ema_decay=0.0) for epochs in (1, 2, 3)]
  for config in configs[1:]:
    config.optimizer.group_rates = "backbone=0"
  tiny.train(tmp_path, configs[0])
  assert "group_rates" not in capsys.readouterr().err
  found = [load_variables(tmp_path, step="latest")["params"]]
  for config in configs[1:]:
    tiny.train(tmp_path, config)
    found.append(load_variables(tmp_path, step="latest")["params"])
  assert "warning: optimizer.group_rates is 0 for backbone: BatchNorm's" in capsys.readouterr().err
  for before, after in itertools.pairwise(found):
    chex.assert_trees_all_equal(after["backbone"], before["backbone"])
    assert (after["head"]["kernel"] != before["head"]["kernel"]).any()
  assert load_meta(tmp_path, step="latest")["config"]["optimizer"]["group_rates"] == "backbone=0"


def test_pretrained_parts_are_loaded_before_the_first_step(tiny, tmp_path, monkeypatch):
  """Checks that the result of the import is used; the import itself is tested elsewhere."""
  from ferjax.training import resume

  np.savez(tmp_path / "weights.npz", x=np.zeros(1))
  imported = {}

  def import_pretrained(model, weights, variables, parts):
    imported.update(names={part: set(x) for part, x in weights.items()}, parts=parts)
    variables["params"]["backbone"]["conv"]["kernel"] = jnp.full((4, 4, 3, 4), 0.25)
    return variables, ["all of it"]

  monkeypatch.setattr(resume, "import_pretrained", import_pretrained)
  config = tiny.config(
    epochs=1,
    freeze="backbone",
    freeze_epochs=1,
    freeze_batch_size=4,
    pretrained=str(tmp_path / "weights.npz"),
  )
  tiny.train(tmp_path / "run", config)
  assert imported == {"names": {"": {"x"}}, "parts": ("backbone",)}
  kernel = load_variables(tmp_path / "run")["params"]["backbone"]["conv"]["kernel"]
  np.testing.assert_array_equal(kernel, np.full((4, 4, 3, 4), 0.25, np.float32))

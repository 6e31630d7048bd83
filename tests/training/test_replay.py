"""A run that diverges, and the step that is computed again from its files."""

import json
import shutil

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ferjax.config import Config, DataConfig, EvalConfig, ModelConfig, OptimizerConfig, TrainConfig
from ferjax.models.registry import MODELS, ModelSpec, register_model
from ferjax.training.replay import replay
from ferjax.training.run import train
from ferjax.training.step_log import NonFiniteError
from ferjax.typing import ClassifierOutput


class Stem(nn.Module):
  @nn.compact
  def __call__(self, image):
    return nn.relu(nn.Conv(4, (8, 8), strides=8, padding="VALID", name="conv")(image))


class Network(nn.Module):
  num_classes: int
  frozen: str = "none"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, image, *, train):
    features = Stem(name="stem")(image).mean((1, 2))
    return ClassifierOutput(nn.Dense(self.num_classes, name="head")(features), features)


SPEC = ModelSpec(
  module=Network,
  task="classification",
  image_size=32,
  stride=8,
  parts=("stem", "head"),
  explain_layer=lambda image_size: "stem",
)


@pytest.fixture(scope="module", autouse=True)
def _registered():
  register_model("replayed", SPEC)
  yield
  del MODELS["replayed"]


def config_of(**train_options):
  return Config(
    model=ModelConfig(name="replayed"),
    data=DataConfig(source="synthetic_faces", image_size=32, train_examples=16, val_examples=4),
    optimizer=OptimizerConfig(
      name="sgd", learning_rate=1e-2, scale_by_batch=False, schedule="exponential", momentum=0.0
    ),
    train=TrainConfig(
      epochs=3, batch_size=4, freeze="none", ema_decay=0.0, log_every=3, **train_options
    ),
    eval=EvalConfig(batch_size=4),
  )


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
  """The message and the file of a run whose first update is far too large."""
  config, workdir = config_of(), tmp_path_factory.mktemp("diverged")
  config.optimizer.learning_rate = 1e20
  with pytest.raises(NonFiniteError) as raised:
    train(config, workdir)
  (file,) = (workdir / "incidents").glob("*.json")
  return str(raised.value), file


def test_the_message_names_groups_records_and_command(diverged):
  message, file = diverged
  assert "not finite after step 2" in message
  assert "; largest gradients: " in message
  for name in ("head/bias", "head/kernel", "stem/conv"):
    assert f"{name} (nan, " in message
  for record in json.loads(file.read_text())["records"][:3]:
    assert record["origin"] in message
  assert "and 1 more" in message
  assert f"train.py --replay {file}" in message
  assert "\n" not in message


def test_the_file_has_the_step(diverged):
  _, file = diverged
  assert file.name == "nonfinite_2.json"
  content = json.loads(file.read_text())
  assert (content["kind"], content["step"]) == ("nonfinite", 2)
  assert float(content["grad_norm"]) != 0
  assert set(content["groups"]) == {"head/bias", "head/kernel", "stem/conv"}
  assert len({record["index"] for record in content["records"]}) == 4
  assert all(len(record["origin"]) > 5 for record in content["records"])
  assert content["config"]["optimizer"]["learning_rate"] == 1e20


def test_the_step_is_reproduced(diverged, capsys):
  _, file = diverged
  content = json.loads(file.read_text())
  found = replay(file)
  assert not (np.isfinite(found.loss) and np.isfinite(found.grad_norm))
  assert found.records == content["records"]
  printed = capsys.readouterr().out
  assert f"recorded: {content['loss']}" in printed
  for record in content["records"]:
    assert record["origin"] in printed
  # The parameters are those before the step: of one update with the large rate.
  variables = flax.traverse_util.unflatten_dict(load_file(file.with_suffix(".safetensors")), "/")
  assert max(np.abs(x).max() for x in jax.tree.leaves(variables["params"])) > 1e15


def test_a_step_that_is_finite_is_not_reproduced(diverged, tmp_path):
  _, file = diverged
  shutil.copytree(file.parent, tmp_path / "incidents")
  copy = tmp_path / "incidents" / file.name
  tensors = load_file(file.with_suffix(".safetensors"))
  small = {name: np.sign(x) / 8 for name, x in tensors.items()}
  save_file(small, copy.with_suffix(".safetensors"))
  with pytest.raises(ValueError, match=r"step 2 is finite here \(loss .*computed on \d+ cpu"):
    replay(copy)


def test_data_that_have_changed_are_noticed(diverged, tmp_path):
  _, file = diverged
  shutil.copytree(file.parent, tmp_path / "incidents")
  copy = tmp_path / "incidents" / file.name
  content = json.loads(copy.read_text())
  content["records"][0]["origin"] = "another"
  copy.write_text(json.dumps(content))
  with pytest.raises(ValueError, match="other records in the data of its config"):
    replay(copy)


@pytest.mark.parametrize(
  ("change", "error", "message"),
  [
    (lambda file: file.unlink(), FileNotFoundError, "no file .*nonfinite_2.json; expected"),
    (lambda file: file.write_text("{}"), ValueError, "is damaged or does not describe"),
    (lambda file: file.write_bytes(b"\xff"), ValueError, "is damaged or does not describe"),
    (
      lambda file: file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 7})),
      ValueError,
      "has format 7; this version",
    ),
    (
      lambda file: file.write_text(json.dumps(json.loads(file.read_text()) | {"step": 13})),
      ValueError,
      "is of step 13, but its run has 12 steps",
    ),
    (
      lambda file: file.with_suffix(".safetensors").unlink(),
      FileNotFoundError,
      "is missing; it belongs to",
    ),
    (
      lambda file: file.with_suffix(".safetensors").write_bytes(b"short"),
      ValueError,
      "safetensors is damaged",
    ),
  ],
)
def test_other_files_are_refused(diverged, tmp_path, change, error, message):
  _, file = diverged
  shutil.copytree(file.parent, tmp_path / "incidents")
  copy = tmp_path / "incidents" / file.name
  change(copy)
  with pytest.raises(error, match=message):
    replay(copy)


def test_a_spike_is_replayed_from_a_checkpoint(tmp_path, capsys):
  config = config_of(keep_checkpoints=8, spike_deviations=0.01)
  config.train.epochs = config.train.eval_every = 8
  config.optimizer.learning_rate = 1e-3
  train(config, tmp_path)
  files = {int(x.stem.split("_")[1]): x for x in (tmp_path / "incidents").glob("spike_*.json")}
  assert files
  assert min(files) > 20
  assert "warning: loss spike at step" in capsys.readouterr().err
  replayed = []
  for step, file in files.items():
    content = json.loads(file.read_text())
    if step % 4 == 1 and step > 20:  # the checkpoint is of the step before
      assert replay(file).loss == pytest.approx(content["loss"], rel=1e-5)
      replayed.append(step)
  assert replayed

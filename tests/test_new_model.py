"""A network of another package is registered in one place and works in every part.

It follows the steps of `CONTRIBUTING.md`, A new model.
"""

import dataclasses
import json
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ferjax
from ferjax.checkpoint import load_meta
from ferjax.commands.main import main
from ferjax.config import (
  AugmentConfig,
  Config,
  DataConfig,
  EvalConfig,
  ModelConfig,
  OptimizerConfig,
  TrainConfig,
)
from ferjax.inference.explanation.explainer import load_explainer
from ferjax.models.registry import MODELS, DecayRule, ModelSpec, model_spec, register_model
from ferjax.training.evaluation import eval_checkpoint
from ferjax.training.run import train
from ferjax.typing import ClassifierOutput, DetectorOutput


class Stem(nn.Module):
  """A map of stride 8."""

  width: int

  @nn.compact
  def __call__(self, image):
    return nn.relu(nn.Conv(self.width, (8, 8), strides=8, padding="VALID", name="conv")(image))


class ToyClassifier(nn.Module):
  """Has no sizes, variants, BatchNorm or dropout, but a `width`."""

  num_classes: int
  width: int = 4
  frozen: str = "none"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, image, *, train):
    x = Stem(self.width, name="stem")(image)
    x = jax.lax.stop_gradient(x) if self.frozen == "stem" else x
    features = x.mean((1, 2))
    return ClassifierOutput(nn.Dense(self.num_classes, name="head")(features), features)


class ToyDetector(nn.Module):
  """One map of stride 8, in two sizes."""

  num_classes: int
  size: str = "small"
  frozen: str = "none"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, image, *, train):
    width = {"small": 4, "large": 8}[self.size]
    (x,) = Neck(width, name="neck")(image)
    return DetectorOutput((nn.Conv(5 + self.num_classes, (1, 1), name="head")(x),))


class Neck(nn.Module):
  """The maps of all levels: a single one."""

  width: int

  @nn.compact
  def __call__(self, image):
    return (Stem(self.width, name="stem")(image),)


def import_stem(model, state_dict, variables, parts):
  """The importer for `train.pretrained`."""
  assert parts == ("stem",)
  stem = {name: jnp.asarray(state_dict[name]) for name in ("kernel", "bias")}
  params = variables["params"] | {"stem": {"conv": stem}}
  return variables | {"params": params}, "the stem is used"


CLASSIFIER = ModelSpec(
  module=ToyClassifier,
  task="classification",
  image_size=32,
  stride=8,
  parts=("stem", "head"),
  frozen=("none", "stem"),
  explain_layer=lambda image_size: "stem",
  decay_rules={"head": DecayRule(lambda path: path[0] == "head")},
  importers={"stem": import_stem},
)
DETECTOR = ModelSpec(
  module=ToyDetector,
  task="detection",
  image_size=64,
  stride=8,
  parts=("neck", "head"),
  choices={"size": ("small", "large")},
  explain_layer=lambda image_size: "neck",
)


@pytest.fixture(autouse=True)
def _registered():
  register_model("toy_classifier", CLASSIFIER)
  register_model("toy_detector", DETECTOR)
  yield
  del MODELS["toy_classifier"], MODELS["toy_detector"]


def _config(name, source, **options):
  return Config(
    model=ModelConfig(name=name, **options),
    data=DataConfig(
      source=source,
      class_names=("neutral", "surprise"),
      image_size=40,
      train_examples=8,
      val_examples=4,
      min_faces=1,
      max_boxes=4,
      augment=AugmentConfig(mosaic=0.0),
    ),
    optimizer=OptimizerConfig(name="adamw", learning_rate=1e-2, scale_by_batch=False),
    train=TrainConfig(epochs=1, batch_size=4, freeze="none", ema_decay=0.0),
    eval=EvalConfig(batch_size=4, score_threshold=0.0),
  )


@pytest.fixture
def image():
  return np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)


def test_a_classifier(tmp_path, image, capsys):
  rng, weights = np.random.default_rng(1), tmp_path / "stem.npz"
  stem = {
    "kernel": rng.normal(0, 0.1, (8, 8, 3, 6)).astype(np.float32),
    "bias": np.full(6, 0.1, np.float32),
  }
  np.savez(weights, **stem)
  config = _config("toy_classifier", "synthetic_faces", options="width=6")
  config.optimizer.decay = "head"
  config.train.pretrained = f"stem={weights}"
  config.train.freeze, config.train.freeze_epochs, config.train.freeze_batch_size = "stem", 1, 4
  workdir = tmp_path / "run"
  metrics = train(config, workdir)

  assert load_meta(workdir)["model"] == {"name": "toy_classifier", "dtype": "float32", "width": 6}
  trained = ferjax.load_variables(workdir)["params"]
  for name, value in stem.items():
    np.testing.assert_array_equal(trained["stem"]["conv"][name], value)
  assert np.abs(trained["head"]["bias"]).min() > 0  # 0 before the first step

  # Training settings need not be valid any more.
  MODELS["toy_classifier"] = dataclasses.replace(CLASSIFIER, decay_rules={})
  report = eval_checkpoint(workdir)
  assert report.metrics["accuracy"] == metrics["accuracy"]
  assert (report.folder / "confusion.png").exists()

  (prediction,) = ferjax.load_predictor(workdir).predict([image])
  (face,) = prediction.faces
  (explained,) = load_explainer(workdir).explain([image])
  (explanation,) = explained.explanations
  assert explanation.face.scores == pytest.approx(face.scores, abs=1e-5)
  assert (explanation.layer, explanation.cells.shape) == ("stem", (5, 5))

  capsys.readouterr()
  assert main(["info", "toy_classifier", "--num-classes", "2"]) == 0
  title, header, line = (line.split() for line in capsys.readouterr().out.splitlines())
  assert " ".join(title) == "toy_classifier: 1 image of 32 x 32 pixels, 2 classes"
  assert header[:2] == ["parameters", "executed"]
  assert line[0] == str(4 * 8 * 8 * 3 + 4 + 2 * 4 + 2)


def test_a_detector(tmp_path, image, capsys):
  config = _config("toy_detector", "synthetic", size="large")
  metrics = train(config, tmp_path)
  report = eval_checkpoint(tmp_path)
  assert report.metrics["map50"] == pytest.approx(metrics["map50"])
  assert ferjax.load_variables(tmp_path)["params"]["neck"]["stem"]["conv"]["bias"].shape == (8,)

  predictor = ferjax.load_predictor(tmp_path, score_threshold=0.0, max_detections=2)
  (prediction,) = predictor.predict([image])
  explainer = load_explainer(tmp_path, score_threshold=0.0, max_detections=2)
  (explained,) = explainer.explain([image])
  assert [x.face for x in explained.explanations] == list(prediction.faces)
  assert {(x.layer, x.cells.shape) for x in explained.explanations} == {("neck/0", (5, 5))}

  capsys.readouterr()
  assert main(["info", "toy_detector", "--json"]) == 0
  rows = json.loads(capsys.readouterr().out)["networks"]
  assert [row["size"] for row in rows] == ["small", "large"]


def test_missing_fields_are_rejected():
  with pytest.raises(ValueError, match="variant is 'released', but toy_classifier has none"):
    ferjax.create_model("toy_classifier", num_classes=2, variant="released")
  with pytest.raises(ValueError, match="size is 's', but toy_classifier has none"):
    ferjax.create_model("toy_classifier", num_classes=2, size="s")
  with pytest.raises(ValueError, match="unknown size 's' of toy_detector; known: small, large"):
    ferjax.create_model("toy_detector", num_classes=2, size="s")


def test_an_installed_package_provides_its_network(tmp_path, monkeypatch):
  """The command `ferjax` finds a network that has not been imported."""
  (tmp_path / "installed_toy.py").write_text(
    "import dataclasses\n"
    "from ferjax.models.registry import model_spec\n"
    "SPEC = dataclasses.replace(model_spec('toy_classifier'), image_size=48)\n"
  )
  metadata = tmp_path / "installed_toy-1.0.dist-info"
  metadata.mkdir()
  (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: installed_toy\nVersion: 1.0\n")
  (metadata / "entry_points.txt").write_text("[ferjax.models]\ninstalled = installed_toy:SPEC\n")
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(ValueError, match=r"unknown model 'nope'; known: .*, toy_detector, installed"):
    model_spec("nope")
  assert "installed" not in MODELS
  assert model_spec("installed").image_size == 48
  del MODELS["installed"], sys.modules["installed_toy"]

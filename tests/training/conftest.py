"""A tiny network, task and data set, so that whole runs take seconds."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ferjax.config import (
  AugmentConfig,
  Config,
  DataConfig,
  EvalConfig,
  ModelConfig,
  OptimizerConfig,
  TrainConfig,
)
from ferjax.models.registry import MODELS, ModelSpec, register_model
from ferjax.tasks.base import Loss
from ferjax.training.loop import Trainer
from ferjax.typing import ClassifierOutput

POISON = 6  # a label that makes the loss infinite


class Backbone(nn.Module):
  @nn.compact
  def __call__(self, x, *, train):
    x = nn.Conv(4, (4, 4), strides=4, padding="VALID", use_bias=False, name="conv")(x)
    return nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, name="bn")(x))


class TinyModel(nn.Module):
  """Predicts one number per image."""

  width: int = 3
  dropout: float = 0.1
  frozen: str = "none"

  @nn.compact
  def __call__(self, image, *, train):
    x = Backbone(name="backbone")(image, train=train and self.frozen == "none")
    if self.frozen != "none":
      x = jax.lax.stop_gradient(x)
    x = nn.relu(nn.Dense(self.width, name="neck")(x.mean((1, 2))))
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return nn.Dense(1, name="head")(x)[:, 0]


class TinyClassifier(nn.Module):
  num_classes: int
  frozen: str = "none"

  def check(self):
    """Every setting is valid."""

  @nn.compact
  def __call__(self, image, *, train):
    x = Backbone(name="backbone")(image, train=train).mean((1, 2))
    return ClassifierOutput(nn.Dense(self.num_classes, name="head")(x), x)


class TinyMetrics:
  def __init__(self):
    self.rows = {}

  def add(self, predicted, truth):
    for i in np.flatnonzero(truth["mask"]):
      index = int(truth["index"][i])
      assert index not in self.rows
      self.rows[index] = float(predicted[i])

  def compute(self):
    values = np.array([self.rows[i] for i in sorted(self.rows)])
    return {"map50": float(1 / (1 + np.square(values).mean())), "num_images": float(len(values))}


@dataclasses.dataclass(frozen=True)
class TinyTask:
  """Regression to the label of the first box; it uses the batches of detection."""

  name: ClassVar[str] = "detection"
  selection_metrics: ClassVar[tuple[str, ...]] = ("map50",)
  shown_metrics: ClassVar[tuple[str, ...]] = ("map50",)
  class_names: tuple[str, ...] = ("a", "b", "c", "d", "e", "f", "poison")
  primary_metric: str = "map50"

  @classmethod
  def from_config(cls, config):
    return cls(tuple(config.data.class_names))

  def loss(self, output, batch):
    label = batch["label"][:, 0]
    target = jnp.where(label == POISON, jnp.inf, label.astype(jnp.float32))
    count = jnp.sum(batch["mask"], dtype=jnp.float32)
    error = jnp.sum(jnp.square(output - target), where=batch["mask"]) / jnp.maximum(count, 1)
    return Loss.of_parts({"error": error}, count, "num_matched")

  def predict(self, output, batch, *, image_size, config):
    assert batch["placement"].shape == (len(output), 6)
    return output

  def merge_views(self, output, num_views, *, probabilities=False):
    return output.reshape(-1, num_views).mean(axis=1)

  def write_report(self, metrics, source, folder):
    (folder / "report.txt").write_text(f"{len(metrics.rows)} of {len(source)}")

  def metrics(self):
    return TinyMetrics()


class TinySource:
  task = TinyTask.name
  class_names = TinyTask.class_names

  def __init__(self, count, *, poison=None):
    self.count, self.poison, self.skipped = count, poison, []

  def __len__(self):
    return self.count

  def __getitem__(self, index):
    rng = np.random.default_rng(index)
    label = POISON if index == self.poison else index % 3
    return {
      "image": rng.integers(0, 256, (32, 32, 3), np.uint8),
      "boxes": np.array([[4, 4, 20, 24]], np.float32),
      "label": np.array([label], np.int32),
    }

  def origin(self, index):
    return f"record {index}"


def tiny_config(**train):
  """Four steps per epoch for 16 images: the batch size is 4."""
  defaults = TrainConfig(
    epochs=2, batch_size=4, freeze="none", log_every=2, ema_ramp=5.0, seed=3, curves=False
  )
  return Config(
    model=ModelConfig(name="fer_yolo_mamba", size="s"),
    data=DataConfig(
      image_size=32,
      max_boxes=2,
      class_names=TinySource.class_names,
      augment=AugmentConfig(mosaic=0.0, scale=(0.9, 1.1)),
    ),
    optimizer=OptimizerConfig(learning_rate=0.16, min_learning_rate=0.0),
    train=dataclasses.replace(defaults, **train),
    eval=EvalConfig(batch_size=4),
  )


@pytest.fixture(scope="session")
def classifier():
  """A classifier of a few parameters."""
  return TinyClassifier


@pytest.fixture(scope="module")
def small(classifier):
  """The classifier, registered as "small"."""

  @dataclasses.dataclass
  class Small(classifier):
    dtype: type = np.float32

  spec = ModelSpec(module=Small, task="classification", image_size=32, parts=("backbone", "head"))
  register_model("small", spec)
  yield Small
  del MODELS["small"]


@pytest.fixture(scope="session")
def tiny():
  """The classes of this file, for tests that do not import it."""

  class Tiny:
    Model, Task, Source, Metrics, config = TinyModel, TinyTask, TinySource, TinyMetrics, tiny_config

    @staticmethod
    def trainer(workdir, config=None, *, source=None, model=None, mesh=None):
      return Trainer(
        tiny_config() if config is None else config,
        workdir,
        TinyModel() if model is None else model,
        TinyTask(),
        TinySource(16) if source is None else source,
        TinySource(6),
        mesh=mesh,
      )

    @staticmethod
    def train(workdir, config=None, **parts):
      trainer = Tiny.trainer(workdir, config, **parts)
      try:
        return trainer.run()
      finally:
        trainer.close()

  return Tiny

"""A small classifier on synthetic faces, for `benchmarks/kills.py`: it compiles in seconds.

Its run has everything that has to survive: BatchNorm, dropout, a frozen phase, AdamW, moving
averages, random augmentation, an evaluation and a checkpoint each epoch.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ferjax.config import (
  Config,
  DataConfig,
  EvalConfig,
  FaceAugmentConfig,
  ModelConfig,
  OptimizerConfig,
  TrainConfig,
)
from ferjax.models.registry import MODELS, ModelSpec, register_model
from ferjax.typing import ClassifierOutput


class Stem(nn.Module):
  """A map of stride 8."""

  @nn.compact
  def __call__(self, image, *, train):
    x = nn.Conv(16, (8, 8), strides=8, padding="VALID", use_bias=False, name="conv")(image)
    return nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, name="bn")(x))


class SmallClassifier(nn.Module):
  """Two layers, BatchNorm and dropout."""

  num_classes: int
  frozen: str = "none"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, image, *, train):
    x = Stem(name="stem")(image, train=train and self.frozen == "none")
    x = jax.lax.stop_gradient(x) if self.frozen == "stem" else x
    features = nn.relu(nn.Dense(64, name="neck")(x.reshape(len(x), -1)))
    features = nn.Dropout(0.2, deterministic=not train)(features)
    return ClassifierOutput(nn.Dense(self.num_classes, name="head")(features), features)


if "small_run" not in MODELS:
  register_model(
    "small_run",
    ModelSpec(
      module=SmallClassifier,
      task="classification",
      image_size=32,
      stride=8,
      parts=("stem", "neck", "head"),
      frozen=("none", "stem"),
      explain_layer=lambda image_size: "stem",
    ),
  )


def get_config(variant: str = "") -> Config:
  """The config; there is no variant."""
  if variant:
    raise ValueError(f"unknown variant {variant!r}; there is none")
  return Config(
    model=ModelConfig(name="small_run"),
    data=DataConfig(
      source="synthetic_faces",
      image_size=32,
      train_examples=160,
      val_examples=20,
      face_augment=FaceAugmentConfig(rotation=10.0, brightness=0.3, erasing=0.3),
    ),
    optimizer=OptimizerConfig(
      name="adamw",
      learning_rate=2e-3,
      scale_by_batch=False,
      schedule="warmup_cosine",
      momentum=0.9,
      clip_norm=5.0,
    ),
    train=TrainConfig(
      epochs=60,
      batch_size=8,
      freeze="stem",
      freeze_epochs=5,
      freeze_batch_size=16,
      ema_decay=0.98,
      ema_ramp=100.0,
      log_every=1,
      keep_checkpoints=2,
    ),
    eval=EvalConfig(batch_size=20),
  )

"""Configurations as users write them: checked before anything is computed, kept as JSON."""

import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from ferjax.config import Config
from ferjax.data.augment import check_ranges
from ferjax.data.datasets.records import ON_BAD_RECORD
from ferjax.models.fer_yolo_mamba import COARSEST_STRIDE, FROZEN
from ferjax.training.optimizers import BY_EPOCH, BY_STEP

_CHOICES = {
  "optimizer.name": ("sgd", "adamw"),
  "optimizer.schedule": (*BY_EPOCH, *BY_STEP),
  "optimizer.decay": ("kernels", "all", "released"),
  "train.freeze": FROZEN,
  "data.on_bad_record": ON_BAD_RECORD,
}
_AT_LEAST_ONE = (
  "data.max_boxes",
  "train.epochs",
  "train.batch_size",
  "optimizer.cycle_steps",
  "train.freeze_batch_size",
  "train.log_every",
  "train.eval_every",
  "train.checkpoint_every",
  "train.keep_checkpoints",
  "eval.batch_size",
  "eval.max_detections",
)
_NOT_NEGATIVE = (
  "data.num_workers",
  "data.train_examples",
  "data.val_examples",
  "optimizer.weight_decay",
  "optimizer.clip_norm",
  "optimizer.warmup_steps",
  "optimizer.min_learning_rate",
  "train.seed",
  "train.freeze_epochs",
)
_POSITIVE = (
  "data.image_size",
  "optimizer.learning_rate",
  "optimizer.max_learning_rate",
  "optimizer.final_fraction",
  "optimizer.epoch_decay",
  "train.ema_ramp",
)
_BELOW_ONE = ("optimizer.momentum", "train.ema_decay")
_FRACTIONS = ("eval.score_threshold", "eval.iou_threshold")


def validate(config: Config) -> None:
  """Raises a ValueError that names every field with an impossible value, and what is possible."""
  problems = list(_problems(config))
  if problems:
    raise ValueError("config: " + "\n  ".join(problems))


def _problems(config: Config) -> Iterator[str]:
  values = flatten(to_dict(config))
  for field, known in _CHOICES.items():
    if values[field] not in known:
      yield f"{field} is {values[field]!r}; known: {', '.join(known)}"
  ranges = (
    (_AT_LEAST_ONE, lambda x: x >= 1, "it must be at least 1"),
    (_NOT_NEGATIVE, lambda x: x >= 0, "it must not be negative"),
    (_POSITIVE, lambda x: x > 0, "it must be above 0"),
    (_BELOW_ONE, lambda x: 0 <= x < 1, "it must be at least 0 and below 1"),
    (_FRACTIONS, lambda x: 0 <= x <= 1, "it must be in 0..1"),
  )
  for fields, fits, expected in ranges:
    for field in fields:
      if not (math.isfinite(values[field]) and fits(values[field])):
        yield f"{field} is {values[field]}; {expected}"
  if config.data.image_size % COARSEST_STRIDE:
    yield f"data.image_size is {config.data.image_size}; it must be divisible by {COARSEST_STRIDE}"
  if config.optimizer.min_learning_rate > config.optimizer.max_learning_rate:
    yield (
      f"optimizer.min_learning_rate is {config.optimizer.min_learning_rate}; it must not be above "
      f"max_learning_rate, {config.optimizer.max_learning_rate}"
    )
  names = config.data.class_names
  if not names or len(set(names)) < len(names):
    yield f"data.class_names is {names}; expected at least one name, none twice"
  try:
    check_ranges(config.data.augment)
  except ValueError as error:
    yield f"data.{error}"


def to_dict(config: Config) -> dict[str, Any]:
  """Nested dicts of plain values, which JSON keeps apart from tuples becoming lists."""
  return dataclasses.asdict(config)


def from_dict(values: Mapping[str, Any]) -> Config:
  """The inverse of `to_dict`, also after JSON.

  Raises:
    ValueError: a field that this version does not know.
  """
  return _build(values, Config)


def _build(values: Mapping[str, Any], kind: type) -> Any:
  types = typing.get_type_hints(kind)
  unknown = values.keys() - types.keys()
  if unknown:
    raise ValueError(f"{kind.__name__} has no {sorted(unknown)}; known: {', '.join(types)}")
  fields = {}
  for name, value in values.items():
    if dataclasses.is_dataclass(types[name]):
      value = _build(value, types[name])
    fields[name] = tuple(value) if isinstance(value, list) else value
  return kind(**fields)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """{"train": {"epochs": 3}} to {"train.epochs": 3}."""
  flat = {}
  for name, value in values.items():
    if isinstance(value, Mapping):
      flat |= flatten(value, f"{prefix}{name}.")
    else:
      flat[prefix + name] = value
  return flat

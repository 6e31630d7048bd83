"""Configurations as users write them: checked before anything is computed, kept as JSON."""

import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from ferjax.config import Config
from ferjax.data.classification import augment as classification_augment
from ferjax.data.datasets.base import RULES
from ferjax.data.detection import augment as detection_augment
from ferjax.data.loading import source_names
from ferjax.data.sources import ON_BAD_RECORD
from ferjax.models import TASKS, emonext, fer_yolo_mamba, fermam
from ferjax.models.fer_yolo_mamba import COARSEST_STRIDE
from ferjax.tasks.classification.task import PRIMARY_METRICS, check_loss_config
from ferjax.training.optimizers import BY_EPOCH, BY_STEP, check_group_rates
from ferjax.training.selection import check_selection

_CHOICES = {
  "model.name": tuple(TASKS),
  "optimizer.name": ("sgd", "adamw"),
  "optimizer.schedule": (*BY_EPOCH, *BY_STEP),
  "optimizer.decay": ("kernels", "all", "released"),
  "train.ema_rule": ("ramp", "power"),
  "data.on_bad_record": ON_BAD_RECORD,
  "data.rule": RULES,
}
_AT_LEAST_ONE = (
  "data.max_boxes",
  "train.epochs",
  "train.batch_size",
  "train.accumulate",
  "train.ema_every",
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
  "data.test_examples",
  "data.resize",
  "data.margin",
  "optimizer.weight_decay",
  "optimizer.clip_norm",
  "optimizer.sam_rho",
  "optimizer.warmup_steps",
  "loss.smoothed_weight",
  "loss.regularizer_weight",
  "train.patience",
  "optimizer.min_learning_rate",
  "train.seed",
  "train.freeze_epochs",
)
_POSITIVE = (
  "data.image_size",
  "optimizer.learning_rate",
  "optimizer.max_learning_rate",
  "optimizer.epoch_decay",
  "train.ema_ramp",
)
_BELOW_ONE = ("optimizer.momentum", "train.ema_decay", "loss.label_smoothing")
_FRACTIONS = ("eval.score_threshold", "eval.iou_threshold", "optimizer.final_fraction")


_FREEZE = {
  "fer_yolo_mamba": fer_yolo_mamba.FROZEN,
  "emonext": emonext.FROZEN,
  "fermam": fermam.FROZEN,
}
_PARTS = {
  "fer_yolo_mamba": fer_yolo_mamba.PARTS,
  "emonext": emonext.PARTS,
  "fermam": fermam.PARTS,
}
# By task: the figures that can choose a checkpoint.
_FIGURES = {"detection": ("map50", "map"), "classification": PRIMARY_METRICS}


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
  if config.optimizer.schedule == "step" and config.optimizer.final_fraction == 0:
    yield 'optimizer.final_fraction is 0; it must be above 0 for the schedule "step"'
  if config.train.batch_size % config.train.accumulate:
    yield (
      f"train.batch_size is {config.train.batch_size}; it must be divisible by train.accumulate, "
      f"{config.train.accumulate}"
    )
  if (
    len(set(config.train.seeds)) < len(config.train.seeds) or min(config.train.seeds, default=0) < 0
  ):
    yield f"train.seeds is {config.train.seeds}; expected numbers from 0 on, none twice"
  if 0 in config.data.std or not all(map(math.isfinite, (*config.data.mean, *config.data.std))):
    yield f"data.mean and data.std are {config.data.mean}, {config.data.std}; std must not be 0"
  yield from _problems_of_the_task(config)
  try:
    check_selection(config.train.select_on, config.train.select_on_test_reason)
  except ValueError as error:
    yield str(error)
  for check in (
    lambda: detection_augment.check_ranges(config.data.augment),
    lambda: classification_augment.check_ranges(config.data.face_augment),
  ):
    try:
      check()
    except ValueError as error:
      yield f"data.{error}"


def _problems_of_the_task(config: Config) -> Iterator[str]:
  task = TASKS.get(config.model.name)
  if task is None:
    return  # told as an unknown model.name
  known = _FREEZE[config.model.name]
  if config.train.freeze not in known:
    yield f"train.freeze is {config.train.freeze!r}; known: {', '.join(known)}"
  try:
    check_group_rates(config.optimizer.group_rates, _PARTS[config.model.name])
  except ValueError as error:
    yield str(error)
  if config.data.source not in source_names(task):
    yield (
      f"data.source is {config.data.source!r}; the model {config.model.name} is for {task}, "
      f"whose sources are: {', '.join(source_names(task))}"
    )
  if config.train.select_by not in ("", *_FIGURES[task]):
    yield f"train.select_by is {config.train.select_by!r}; known: {', '.join(_FIGURES[task])}"
  if config.loss.regularizer_weight > 0 and config.model.name != "emonext":
    yield (
      f"loss.regularizer_weight is {config.loss.regularizer_weight}, but {config.model.name} has "
      "no attention to regularise; set it to 0"
    )
  if task == "classification":
    try:
      check_loss_config(config.loss, tuple(config.data.class_names))
    except ValueError as error:
      yield str(error)


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

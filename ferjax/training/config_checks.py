"""Validation of configs before anything is computed, and their JSON form."""

import dataclasses
import math
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ferjax.config import Config, flatten
from ferjax.data.classification import augment as classification_augment
from ferjax.data.composed import scenes as composed_scenes
from ferjax.data.datasets.base import RULES
from ferjax.data.detection import augment as detection_augment
from ferjax.data.loading import source_names
from ferjax.data.mixture import parse_sources
from ferjax.data.sources import ON_BAD_RECORD
from ferjax.models.options import model_arguments
from ferjax.models.registry import ModelSpec, check_image_size, model_spec
from ferjax.tasks import TASKS, task_name
from ferjax.training.config_types import type_problems
from ferjax.training.optimizers import BY_EPOCH, BY_STEP, check_group_rates, decay_rules
from ferjax.training.pretrained import check_pretrained
from ferjax.training.selection import check_selection

_CHOICES = {
  "optimizer.name": ("sgd", "adamw"),
  "optimizer.schedule": (*BY_EPOCH, *BY_STEP),
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
  "loss.logit_adjustment",
  "eval.logit_adjustment",
  "train.patience",
  "train.skip_nonfinite",
  "train.spike_deviations",
  "optimizer.min_learning_rate",
  "train.seed",
  "train.freeze_epochs",
)
_POSITIVE = (
  "data.image_size",
  "data.on_device_limit",
  "optimizer.learning_rate",
  "optimizer.max_learning_rate",
  "optimizer.epoch_decay",
  "train.ema_ramp",
  "eval.temperature",
)
_BELOW_ONE = ("optimizer.momentum", "train.ema_decay", "loss.label_smoothing")
_FRACTIONS = (
  "data.balance_power",
  "train.teacher_weight",
  "eval.score_threshold",
  "eval.iou_threshold",
  "optimizer.final_fraction",
)
# Fields that change only the training or evaluation of classifiers.
_OF_CLASSIFIERS = (
  "data.face_augment.mixup",
  "data.face_augment.cutmix",
  "train.teachers",
  "loss.logit_adjustment",
  "eval.flip",
  "eval.logit_adjustment",
  "eval.temperature",
)


def validate(config: Config) -> None:
  """Raises a ValueError that lists every field with an invalid value, and the valid values.

  Types are checked first; values are checked only if all types are correct.
  """
  _raise_if_any(type_problems(config))
  _raise_if_any(_problems(config))


def _raise_if_any(problems: Iterable[str]) -> None:
  text = "\n  ".join(problems)
  if text:
    raise ValueError(f"config: {text}")


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
  if config.optimizer.min_learning_rate > config.optimizer.max_learning_rate:
    yield (
      f"optimizer.min_learning_rate is {config.optimizer.min_learning_rate}; it must not be above "
      f"max_learning_rate, {config.optimizer.max_learning_rate}"
    )
  names = config.data.class_names
  if not names or len(set(names)) < len(names):
    yield f"data.class_names is {names}; expected at least one name, without duplicates"
  if config.optimizer.schedule == "step" and config.optimizer.final_fraction == 0:
    yield 'optimizer.final_fraction is 0; it must be above 0 for the schedule "step"'
  if config.train.accumulate > 0 and config.train.batch_size % config.train.accumulate:
    yield (
      f"train.batch_size is {config.train.batch_size}; it must be divisible by train.accumulate, "
      f"{config.train.accumulate}"
    )
  if (
    len(set(config.train.seeds)) < len(config.train.seeds) or min(config.train.seeds, default=0) < 0
  ):
    yield f"train.seeds is {config.train.seeds}; expected different numbers of at least 0"
  if 0 in config.data.std or not all(map(math.isfinite, (*config.data.mean, *config.data.std))):
    yield f"data.mean and data.std are {config.data.mean}, {config.data.std}; std must not be 0"
  try:
    spec = model_spec(config.model.name)
  except ValueError as error:
    yield f"model.name: {error}"
  else:
    yield from _model_problems(config, spec)
  try:
    check_selection(config.train.select_on, config.train.select_on_test_reason)
  except ValueError as error:
    yield str(error)
  for check in (
    lambda: detection_augment.check_ranges(config.data.augment),
    lambda: classification_augment.check_ranges(config.data.face_augment),
    lambda: composed_scenes.check_ranges(config.data.compose),
  ):
    try:
      check()
    except ValueError as error:
      yield f"data.{error}"


def _model_problems(config: Config, spec: ModelSpec) -> Iterator[str]:
  try:
    check_image_size(config.data.image_size, spec.stride)
  except ValueError as error:
    yield f"data.{error}"
  rules = decay_rules(config.model.name)
  if config.optimizer.decay not in rules:
    yield (
      f"optimizer.decay is {config.optimizer.decay!r}; known for {config.model.name}: "
      f"{', '.join(rules)}"
    )
  if config.train.freeze not in spec.frozen:
    yield f"train.freeze is {config.train.freeze!r}; known: {', '.join(spec.frozen)}"
  if config.loss.regularizer_weight > 0 and not spec.has_attention:
    yield (
      f"loss.regularizer_weight is {config.loss.regularizer_weight}, but {config.model.name} has "
      "no attention to regularise; set it to 0"
    )
  for check in (
    lambda: model_arguments(config.model),
    lambda: check_group_rates(config.optimizer.group_rates, spec.parts),
    lambda: check_pretrained(config.model.name, config.train.pretrained),
  ):
    try:
      check()
    except ValueError as error:
      yield str(error)
  yield from _task_problems(config)


def _task_problems(config: Config) -> Iterator[str]:
  task = TASKS[task_name(config)]
  sources, named = source_names(task.name), [("data.source is", config.data.source)]
  try:
    named += [("data.sources has", part.config.source) for part in parse_sources(config.data)]
  except ValueError as error:
    yield str(error)
  for field, source in named:
    if source not in sources:
      yield (
        f"{field} {source!r}; the model {config.model.name} is for {task.name}; known sources: "
        f"{', '.join(sources)}"
      )
  yield from _on_device_problems(config, task.name)
  if task.name != "classification":
    values, defaults = (flatten(to_dict(x)) for x in (config, Config()))
    for field in _OF_CLASSIFIERS:
      if values[field] != defaults[field]:
        yield (
          f"{field} is {values[field]}, which is for classifiers, but the model "
          f"{config.model.name} is for {task.name}; leave it out"
        )
  if config.train.select_by not in ("", *task.selection_metrics):
    yield (
      f"train.select_by is {config.train.select_by!r}; known: {', '.join(task.selection_metrics)}"
    )
  try:
    task.from_config(config)
  except ValueError as error:
    yield str(error)


def _on_device_problems(config: Config, task: str) -> Iterator[str]:
  if not config.data.on_device:
    return
  if task != "classification":
    yield (
      f"data.on_device is True, but the model {config.model.name} is for {task}, whose images have "
      "different sizes and are combined on the host (mosaic, mixup); turn it off"
    )
  if config.data.num_workers > 0:
    yield (
      f"data.num_workers is {config.data.num_workers}, but with data.on_device no process prepares "
      "images; set it to 0"
    )


def to_dict(config: Config) -> dict[str, Any]:
  """Nested dicts of plain values; JSON only turns the tuples into lists."""
  return dataclasses.asdict(config)


def from_dict(values: Mapping[str, Any]) -> Config:
  """The inverse of `to_dict`, also after JSON.

  Raises:
    ValueError: an unknown field, or a value of the wrong type.
  """
  config = _build(values, Config)
  _raise_if_any(type_problems(config))
  return config


def _build(values: Any, kind: type) -> Any:
  if not isinstance(values, Mapping):
    return values  # `type_problems` reports the wrong type
  types = typing.get_type_hints(kind)
  unknown = values.keys() - types.keys()
  if unknown:
    raise ValueError(f"{kind.__name__} has no {sorted(unknown)}; known: {', '.join(types)}")
  built = kind()
  for name, value in values.items():
    if dataclasses.is_dataclass(types[name]):
      value = _build(value, types[name])
    setattr(built, name, tuple(value) if isinstance(value, list) else value)
  return built

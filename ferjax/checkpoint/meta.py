"""What a checkpoint says of itself, whichever version of the package wrote it."""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypedDict

from ferjax._version import __version__
from ferjax.config import Config
from ferjax.models.options import unknown_arguments

FORMAT = 2


class Meta(TypedDict):
  """The JSON item `meta` of a checkpoint.

  `model` is what `create_model` takes, but the number of classes; `mean` and `std` are of RGB in
  0..1; `image_size` and `resize` are pixels. `config` is that of the run, as nested dicts.
  `metrics` are those of evaluating this very step, or none; `metric` names the one that the best
  checkpoint is chosen by. From `step` on, the fields are the position of the run.
  """

  format: int
  model: dict[str, Any]
  task: str
  class_names: list[str]
  image_size: int
  mean: list[float]
  std: list[float]
  grey: bool
  resize: int
  config: dict[str, Any]
  selection: str  # what every report says of a checkpoint that was selected on test data; or ""
  num_examples: int  # of the training split
  num_hosts: int
  versions: dict[str, str]
  metric: str
  metrics: dict[str, float]
  step: int
  epoch: float
  data_start: int  # number of the first example that the saved iterator has made
  evaluations_since_best: int
  skipped_records: int
  training_seconds: float


# Format 1 had no number, and a word for one field that nobody understood.
_RENAMED = {1: {"worse": "evaluations_since_best"}}
# What older versions did not write, and what they did. A missing field of `config` has the
# default of `ferjax.config`.
_DEFAULTS: dict[str, Any] = {
  "format": 1,
  "grey": False,
  "resize": 0,
  "selection": "",
  "evaluations_since_best": 0,
  "skipped_records": 0,
  "training_seconds": 0.0,
}


def read_meta(saved: Mapping[str, Any], name: str) -> Meta:
  """The `meta` of this version from that of a checkpoint.

  Args:
    saved: the content of the JSON file.
    name: of the checkpoint, for messages.

  Raises:
    ValueError: it has a newer format or fields that this version does not know, or lacks fields
      that every version writes; the message names both versions.
  """
  number = saved.get("format", 1)
  renamed = _RENAMED.get(number, {})
  meta = _DEFAULTS | {renamed.get(field, field): value for field, value in saved.items()}
  if number > FORMAT:
    problem = f"its format is {number}, and this version reads formats up to {FORMAT}"
  elif unknown := list(_unknown(meta)):
    problem = f"it has fields that this version does not know: {', '.join(unknown)}"
  elif missing := Meta.__required_keys__ - meta.keys():
    problem = f"it lacks fields that this version needs: {', '.join(sorted(missing))}"
  else:
    return typing.cast(Meta, meta)
  writer = meta.get("versions", {}).get("ferjax", "of an unknown version")
  raise ValueError(
    f"the checkpoint {name} was written by ferjax {writer}, and ferjax {__version__} cannot read "
    f"it: {problem}. Use the ferjax that wrote it, or a newer one"
  )


def _unknown(meta: Mapping[str, Any]) -> Iterator[str]:
  yield from sorted(meta.keys() - Meta.__annotations__.keys())
  yield from (f"model.{field}" for field in unknown_arguments(meta.get("model", {})))
  yield from _unknown_fields(meta.get("config", {}), Config, "config")


def _unknown_fields(values: Mapping[str, Any], kind: type, prefix: str) -> Iterator[str]:
  types = typing.get_type_hints(kind)
  for field, value in values.items():
    if field not in types:
      yield f"{prefix}.{field}"
    elif dataclasses.is_dataclass(types[field]):
      yield from _unknown_fields(value, typing.cast(type, types[field]), f"{prefix}.{field}")

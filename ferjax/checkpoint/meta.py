"""The description in a checkpoint, read from any older version of the package."""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any, NotRequired

from ferjax.config import Config
from ferjax.trained import NetworkMeta, check_network_meta, version_error

FORMAT = 2


class Meta(NetworkMeta):
  """The JSON item `meta` of a checkpoint.

  `config` is the run's, as nested dicts. `metrics` are from evaluating this step, or empty;
  `metric` names the one that selects the best checkpoint. The fields from `step` to
  `training_seconds` are the position of the run. An imported network has an empty `config`, and
  `settings` of prediction, `data` and `licence`, if the file had them.
  """

  format: int
  config: dict[str, Any]
  selection: str  # the note in every report if selected on test data; or ""
  num_examples: int  # of the training split
  num_hosts: int
  versions: dict[str, str]
  metric: str
  metrics: dict[str, float]
  step: int
  epoch: float
  data_start: int  # number of the example that the saved iterator started from
  evaluations_since_best: int
  skipped_records: int
  skipped_steps: int
  training_seconds: float
  settings: NotRequired[dict[str, Any]]
  data: NotRequired[str]
  licence: NotRequired[str]


# Format 1 had no format number, and another name for one field.
_RENAMED = {1: {"worse": "evaluations_since_best"}}
# Values of fields that older versions did not write. Missing fields of `config` get the defaults of
# `ferjax.config`.
_DEFAULTS: dict[str, Any] = {
  "format": 1,
  "grey": False,
  "resize": 0,
  "class_prior": [],
  "selection": "",
  "evaluations_since_best": 0,
  "skipped_records": 0,
  "skipped_steps": 0,
  "training_seconds": 0.0,
}


def read_meta(saved: Mapping[str, Any], name: str) -> Meta:
  """Converts the `meta` of a checkpoint to the current format.

  Args:
    saved: the content of the JSON file.
    name: of the checkpoint, for error messages.

  Raises:
    ValueError: a newer format, unknown fields, or fields missing that every version writes; the
      message names both versions.
  """
  number = saved.get("format", 1)
  if not isinstance(number, int):
    raise ValueError(f"the checkpoint {name} is damaged: its format is {number!r:.80}")
  renamed = _RENAMED.get(number, {})
  meta = _DEFAULTS | {renamed.get(field, field): value for field, value in saved.items()}
  if number > FORMAT:
    problem = f"its format is {number}, and this version reads formats up to {FORMAT}"
  elif unknown := list(_unknown(meta)):
    problem = f"it has fields that this version does not know: {', '.join(unknown)}"
  elif missing := Meta.__required_keys__ - meta.keys():
    problem = f"it lacks fields that this version needs: {', '.join(sorted(missing))}"
  else:
    return typing.cast(Meta, check_network_meta(meta, f"the checkpoint {name}"))
  raise version_error(meta, name, problem)


def _unknown(meta: Mapping[str, Any]) -> Iterator[str]:
  yield from sorted(meta.keys() - Meta.__annotations__.keys())
  yield from _unknown_fields(meta.get("config", {}), Config, "config")


def _unknown_fields(values: Any, kind: type, prefix: str) -> Iterator[str]:
  if not isinstance(values, Mapping):
    yield f"{prefix} that is {type(values).__name__}"
    return
  types = typing.get_type_hints(kind)
  for field, value in values.items():
    if field not in types:
      yield f"{prefix}.{field}"
    elif dataclasses.is_dataclass(types[field]):
      yield from _unknown_fields(value, typing.cast(type, types[field]), f"{prefix}.{field}")

"""What a checkpoint of a run and a weights file have in common: a trained network."""

import abc
import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, NotRequired, TypedDict, TypeVar

from ferjax._version import __version__
from ferjax.output import one_line

Model = TypeVar("Model")


class NetworkMeta(TypedDict):
  """Describes a trained network and its input.

  `model` has the arguments of `create_model` except the number of classes; `mean` and `std` are of
  RGB in 0..1; `image_size` and `resize` are pixels; `class_prior` are the classes' frequencies
  in training, or [] if they are not known. `initialised` names the modules that have random values,
  in a network that was imported from a part of its weights.
  """

  model: dict[str, Any]
  task: str
  class_names: list[str]
  image_size: int
  mean: list[float]
  std: list[float]
  grey: bool
  resize: int
  class_prior: list[float]
  initialised: NotRequired[list[str]]


def network_meta(meta: Mapping[str, Any]) -> NetworkMeta:
  """The fields of `NetworkMeta` in a longer description."""
  return {field: meta[field] for field in NetworkMeta.__annotations__ if field in meta}  # pyright: ignore


class WeightsError(ValueError):
  """Variables do not fit the network that their description names."""


def check_network_meta(meta: Mapping[str, Any], name: str) -> dict[str, Any]:
  """Checks the types and ranges in the description of a file, which anyone can have written.

  Args:
    meta: with all required fields of `NetworkMeta`.
    name: of the file, for the message.

  Returns:
    The description; numbers that may have fractions are floats.

  Raises:
    ValueError: the message names the first field that is wrong.
  """
  for field, (fits, expected) in _EXPECTED.items():
    if field in meta and not fits(meta[field]):
      raise ValueError(
        f"{name} is damaged: its {field} is {meta[field]!r:.80}; expected {expected}"
      )
  return {field: _floats(x) if field in _FRACTIONS else x for field, x in meta.items()}


_FRACTIONS = ("mean", "std", "class_prior", "epoch", "settings")


def _floats(x: Any) -> Any:
  if isinstance(x, Mapping):
    return {name: y if name == "max_detections" else _floats(y) for name, y in x.items()}
  if isinstance(x, list | tuple):
    return [_floats(y) for y in x]
  return float(x) if isinstance(x, int) and not isinstance(x, bool) else x


def _is_number(x: Any) -> bool:
  is_number = isinstance(x, int | float) and not isinstance(x, bool)
  return is_number and abs(x) <= sys.float_info.max  # NaN is not


def _is_size(x: object, least: int) -> bool:
  return isinstance(x, int) and not isinstance(x, bool) and least <= x <= _LARGEST_SIDE


def _is_list(x: object, fits: Callable[[Any], bool]) -> bool:
  return isinstance(x, list | tuple) and all(map(fits, x))


def _is_text(x: object) -> bool:
  return isinstance(x, str)


def _is_name(x: object) -> bool:
  return isinstance(x, str) and x != "" and one_line(x) == x


def _is_fraction(x: Any) -> bool:
  return _is_number(x) and 0 <= x <= 1


def _has_settings(x: object) -> bool:
  return isinstance(x, Mapping) and all(
    _is_text(name) and (name not in _SETTINGS or _SETTINGS[name](value))
    for name, value in x.items()
  )


def _has_names(x: object) -> bool:
  return isinstance(x, Mapping) and all(map(_is_text, x))


_SETTINGS: dict[str, Callable[[Any], bool]] = {
  "score_threshold": _is_fraction,
  "iou_threshold": _is_fraction,
  "max_detections": lambda x: isinstance(x, int) and not isinstance(x, bool) and x > 0,
  "crop_margin": lambda x: _is_number(x) or (_is_list(x, _is_number) and len(x) == 4),
  "flip": lambda x: isinstance(x, bool),
  "logit_adjustment": _is_number,
  "temperature": lambda x: _is_number(x) and x > 0,
}
_LARGEST_SIDE = 2**13  # pixels of a network's input
# Field of a description -> whether a value is right, and what is.
_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
  "model": (lambda x: _has_names(x) and _is_text(x.get("name")), "arguments with a name"),
  "task": (_is_text, "text"),
  "class_names": (
    lambda x: _is_list(x, _is_name) and len(set(x)) == len(x) > 0,
    "a list of different names, without line breaks",
  ),
  "image_size": (lambda x: _is_size(x, 1), f"1..{_LARGEST_SIDE}"),
  "resize": (lambda x: _is_size(x, 0), f"0..{_LARGEST_SIDE}"),
  "mean": (lambda x: _is_list(x, _is_number) and len(x) == 3, "three numbers"),
  "std": (lambda x: _is_list(x, _is_number) and len(x) == 3 and all(x), "three numbers, not 0"),
  "grey": (lambda x: isinstance(x, bool), "true or false"),
  "class_prior": (lambda x: _is_list(x, _is_number), "a list of numbers"),
  "initialised": (lambda x: _is_list(x, _is_text), "a list of names"),
  "settings": (_has_settings, "settings of prediction in their ranges"),
  "metrics": (_has_names, "an object"),
  "versions": (_has_names, "an object"),
  "step": (lambda x: isinstance(x, int) and not isinstance(x, bool), "a whole number"),
  "epoch": (_is_number, "a number"),
  "selection": (_is_text, "text"),
  "data": (_is_text, "text"),
  "licence": (_is_text, "text"),
}


class TrainedNetwork(abc.ABC):
  """The interface of `ferjax.checkpoint.Checkpoint` and `ferjax.weights.WeightsFile`.

  Attributes:
    name: of the weights, or the path, for messages.
    meta: its description; at least the fields of `NetworkMeta`, `step`, `epoch`, `selection` and
      `versions`.
  """

  name: Any  # a str; a property or a field in the subclasses
  meta: Any

  @property
  def step(self) -> int:
    """The number of the training step."""
    return self.meta["step"]

  @property
  def settings(self) -> Mapping[str, Any]:
    """Settings of prediction that replace its defaults."""
    return {}

  @property
  def digest(self) -> str:
    """SHA-256 of the description, which has a checksum of the variables or the time of training."""
    return hashlib.sha256(json.dumps(self.meta, sort_keys=True, default=str).encode()).hexdigest()

  @abc.abstractmethod
  def variables(self) -> dict[str, Any]:
    """The variables for `model.apply`, as float32 arrays on the default device."""

  def build_model(self, create_model: Callable[..., Model]) -> Model:
    """The network, without its variables.

    Args:
      create_model: `ferjax.create_model`.

    Raises:
      ValueError: this version does not have the network; the message names both versions.
    """
    names = self.meta["class_names"]
    try:
      return create_model(num_classes=len(names), **self.meta["model"])
    except (TypeError, ValueError) as error:
      raise version_error(self.meta, self.name, str(error)) from error

  def check_task(self, task: str) -> None:
    """Raises a ValueError if the model is for another task."""
    if self.meta["task"] != task:
      raise ValueError(
        f"the checkpoint's model is for the task {self.meta['task']!r}; expected {task!r}"
      )


def version_error(
  meta: Mapping[str, Any], name: str, problem: str, kind: str = "checkpoint"
) -> ValueError:
  """The error for a network that another version of the package wrote; it names both versions."""
  versions = meta.get("versions")
  writer = versions.get("ferjax") if isinstance(versions, Mapping) else None
  writer = "of an unknown version" if writer is None else writer
  return ValueError(
    one_line(
      f"the {kind} {name} was written by ferjax {writer}, and ferjax {__version__} cannot read "
      f"it: {problem}. Use the ferjax that wrote it, or a newer one"
    )
  )

"""What a checkpoint of a run and a weights file have in common: a trained network."""

import abc
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, NotRequired, TypedDict, TypeVar

from ferjax._version import __version__

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


def version_error(meta: Mapping[str, Any], name: str, problem: str) -> ValueError:
  """The error for a network that another version of the package wrote; it names both versions."""
  writer = meta.get("versions", {}).get("ferjax", "of an unknown version")
  return ValueError(
    f"the checkpoint {name} was written by ferjax {writer}, and ferjax {__version__} cannot read "
    f"it: {problem}. Use the ferjax that wrote it, or a newer one"
  )

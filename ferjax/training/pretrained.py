"""Starts a run from trained weights: those of ferjax, or released ones of the networks' authors."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from ferjax.config import Config
from ferjax.interop import pretrained as released
from ferjax.interop.torch_weights import StateDict
from ferjax.models.options import model_arguments
from ferjax.trained import TrainedNetwork
from ferjax.training.state import Variables, init_variables
from ferjax.weights.file import SUFFIX, has_description
from ferjax.weights.known import known_weights
from ferjax.weights.opening import open_weights

_SHOWN = 8  # variables named in a log line


def check_pretrained(model_name: str, pretrained: str) -> None:
  """Raises a ValueError for malformed `train.pretrained`, or a part that cannot be imported."""
  if not _is_of_ferjax(pretrained):
    released.check_pretrained(model_name, pretrained)


def read_pretrained(pretrained: str) -> TrainedNetwork | dict[str, StateDict]:
  """Opens what `train.pretrained` names.

  Returns:
    A network of ferjax for the name of known weights, a weights file, or a checkpoint. State dicts
    with the released names for "FILE" (under the name "") or "part=FILE,part=FILE"; none for "".

  Raises:
    OSError, ImportError, ValueError: as `open_weights` and
      `ferjax.interop.pretrained.read_pretrained`.
  """
  if _is_of_ferjax(pretrained):
    return open_weights(pretrained)
  return released.read_pretrained(pretrained)


def _is_of_ferjax(pretrained: str) -> bool:
  """Whether it names weights of ferjax; so does a misspelt name, which has no suffix."""
  path = pathlib.Path(pretrained).expanduser()
  if not pretrained:
    return False
  if pretrained in known_weights() or path.is_dir():
    return True
  if path.is_file():
    return path.suffix == SUFFIX and has_description(path)
  return "=" not in pretrained and not path.suffix


def transfer(
  source: TrainedNetwork, model: nn.Module, config: Config, variables: Variables
) -> tuple[Variables, list[str]]:
  """`variables` with those of a trained network, as far as they fit.

  Variables whose shape depends on the number of classes are taken only if the classes are the same,
  in the same order. Variables of another shape, such as those that depend on the size of EmoNeXt's
  images, keep their values.

  Args:
    source: the trained network.
    model: the network of the config.
    config: of the run.
    variables: of the model, as initialised.

  Returns:
    The variables, and log lines on which ones were used.

  Raises:
    ValueError: `source` is another network, or another size of it.
  """
  _check_same_network(source, config)
  ours, theirs = _flat(variables), _flat(source.variables())
  before, now = source.meta["class_names"], list(config.data.class_names)
  of_classes = set() if before == now else _of_classes(model, config.data.image_size)
  used = {
    name
    for name, value in ours.items()
    if name in theirs and theirs[name].shape == value.shape and name not in of_classes
  }
  merged = {name: theirs[name] if name in used else value for name, value in ours.items()}
  other = sorted(ours.keys() - used - of_classes)
  lines = [
    f"pretrained weights {source.name}: {len(used)} variables used, {len(ours) - len(used)} "
    f"initialised anew, {len(theirs.keys() - ours.keys())} ignored"
  ]
  if of_classes:
    lines.append(
      f"initialised anew, because the classes are {', '.join(now)} instead of {', '.join(before)}: "
      f"{_first_few(sorted(of_classes))}"
    )
  if other:
    lines.append(f"initialised anew, because their shape differs: {_first_few(other)}")
  if initialised := source.meta.get("initialised"):
    lines.append(f"pretrained weights: random values in {', '.join(initialised)}, as imported")
  return unflatten_dict(merged, sep="/"), [*lines, *_other_input(source.meta, config)]


def _check_same_network(source: TrainedNetwork, config: Config) -> None:
  theirs, ours = source.meta["model"], model_arguments(config.model)
  for field in ("name", "size"):
    if theirs.get(field) != ours.get(field):
      raise ValueError(
        f"train.pretrained is {source.name}, a network with the {field} {theirs.get(field)!r}, but "
        f"model.{field} is {ours.get(field)!r}; set it to {theirs.get(field)!r}, or choose other "
        "weights"
      )


def _of_classes(model: nn.Module, image_size: int) -> set[str]:
  """The variables whose shape depends on the number of classes."""

  def shapes(network: Any) -> dict[str, tuple[int, ...]]:
    abstract = jax.eval_shape(
      lambda key: init_variables(network, key, image_size), jax.random.key(0)
    )
    return {name: x.shape for name, x in _flat(abstract).items()}

  network: Any = model
  more = shapes(network.clone(num_classes=network.num_classes + 1))
  return {name for name, shape in shapes(network).items() if more[name] != shape}


def _flat(variables: Any) -> dict[str, Any]:
  return dict(flatten_dict(variables, sep="/"))


def _other_input(meta: Mapping[str, Any], config: Config) -> list[str]:
  """A line for each setting of the input that differs from that of the weights."""
  lines = []
  for field in ("image_size", "mean", "std", "grey", "resize"):
    theirs, ours = meta[field], getattr(config.data, field)
    ours = list(ours) if isinstance(ours, tuple) else ours
    if theirs != ours:
      lines.append(f"pretrained weights: data.{field} was {theirs} in their training, now {ours}")
  return lines


def _first_few(names: Sequence[str]) -> str:
  more = len(names) - _SHOWN
  return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")

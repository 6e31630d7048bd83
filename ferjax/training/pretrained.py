"""Starts a run from trained weights: those of ferjax, or released ones of the networks' authors."""

import pathlib
from collections.abc import Container, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
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

  Of variables with an axis of classes, the values of those classes are taken that both have, by
  name; the others keep theirs. So do variables of another shape, such as those that depend on the
  size of EmoNeXt's images.

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
  class_axes = {} if before == now else _class_axes(model, config.data.image_size)
  merged = dict(ours)
  for name in ours.keys() & theirs.keys():
    if name in class_axes:
      merged[name] = _with_classes(ours[name], theirs[name], class_axes[name], now, before)
    elif theirs[name].shape == ours[name].shape:
      merged[name] = theirs[name]
  kept = sorted(name for name, value in ours.items() if merged[name] is value)
  lines = [
    f"pretrained weights {source.name}: {len(ours) - len(kept)} variables used, {len(kept)} "
    f"initialised anew, {len(theirs.keys() - ours.keys())} ignored"
  ]
  if new := [name for name in now if name not in before]:
    lines.append(
      f"initialised anew, because the weights do not know {', '.join(new)}: their values in "
      f"{_first_few(sorted(class_axes))}"
    )
  if other := [name for name in kept if name not in class_axes]:
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


def _class_axes(model: nn.Module, image_size: int) -> dict[str, set[int]]:
  """The variables whose shape depends on the number of classes, and the axes that do."""

  def shapes(network: Any) -> dict[str, tuple[int, ...]]:
    abstract = jax.eval_shape(
      lambda key: init_variables(network, key, image_size), jax.random.key(0)
    )
    return {name: x.shape for name, x in _flat(abstract).items()}

  network: Any = model
  more, axes = shapes(network.clone(num_classes=network.num_classes + 1)), {}
  for name, shape in shapes(network).items():
    if more[name] != shape:
      axes[name] = {i for i, size in enumerate(shape) if more[name][i] != size}
  return axes


def _with_classes(
  ours: Any, theirs: Any, axes: Container[int], now: Sequence[str], before: Sequence[str]
) -> Any:
  """`ours` with the values of `theirs` for the classes that both have, along the axes of classes.

  Just `ours` if they have no class in common, or if the shapes do not fit.
  """
  shared = [name for name in now if name in before]

  def shape(classes: Sequence[str]) -> tuple[int, ...]:
    return tuple(len(classes) if i in axes else size for i, size in enumerate(ours.shape))

  def places(classes: Sequence[str]) -> tuple[np.ndarray, ...]:
    ids = [classes.index(name) for name in shared]
    return np.ix_(*(ids if i in axes else range(size) for i, size in enumerate(ours.shape)))

  if not shared or ours.shape != shape(now) or theirs.shape != shape(before):
    return ours
  merged = np.array(ours)
  merged[places(now)] = np.asarray(theirs)[places(before)]
  return merged


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

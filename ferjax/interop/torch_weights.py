"""Converts released PyTorch checkpoints to variables, and back.

A state dict is a flat dict of NumPy arrays under the released program's names. Every entry must
match a variable or be listed as ignored, and every variable must get a value.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ferjax.interop import released_names
from ferjax.interop.state_dict_files import StateDict
from ferjax.interop.state_dict_files import load_state_dict as load_state_dict

Variables = dict


def import_state_dict(model: nn.Module, state_dict: StateDict) -> Variables:
  """The variables of `model` with the weights of a released checkpoint.

  Args:
    model: as `ferjax.create_model` returns it.
    state_dict: released name -> array, in torch's layouts. The counters of torch's BatchNorm
      (`num_batches_tracked`) and layers that the released program does not use are ignored.

  Raises:
    ValueError: entries that match no variable, variables without an entry, or an entry of another
      shape, all named.
    TypeError: a model without a table of released names.
  """
  return _fill(model, state_dict, selected=lambda path: True)


def import_parts(
  model: nn.Module, state_dict: StateDict, variables: Variables, parts: tuple[str, ...]
) -> Variables:
  """`variables` with the weights of some parts, such as ("backbone",), from a checkpoint.

  Entries of other parts are ignored. For the selected parts, the import is as strict as
  `import_state_dict` and raises the same errors, and a ValueError for an unknown part.
  """
  known = sorted(variables["params"])
  for part in parts:
    if part not in known:
      raise ValueError(f"unknown part {part!r} of the model; known: {', '.join(known)}")
  imported = flatten_dict(_fill(model, state_dict, selected=lambda path: path[1] in parts))
  merged = flatten_dict(variables)
  merged.update({path: jnp.asarray(value) for path, value in imported.items()})
  return unflatten_dict(merged)


def export_state_dict(model: nn.Module, variables: Variables) -> dict[str, np.ndarray]:
  """The inverse of `import_state_dict`; the released program loads the result with strict=True.

  Torch's BatchNorm counters, and weights that the released program does not use, are zeros.
  """
  flat, naming = flatten_dict(variables), released_names.table_of(model)
  state_dict: dict[str, np.ndarray] = {
    name: np.zeros(shape, np.float32) for name, shape in naming.unused.items()
  }
  for path, name in _names(model).items():
    if path not in flat:
      raise KeyError(f"the variables have no {'/'.join(path)}, which {name!r} needs")
    state_dict[name] = to_torch(
      path, np.asarray(flat[path], np.float32), naming.flattened_channels(path)
    )
  variances = [name for name in state_dict if name.endswith("running_var")]
  for name in variances:
    counter = name.removesuffix("running_var") + "num_batches_tracked"
    state_dict[counter] = np.zeros((), np.int64)
  return state_dict


def _fill(model, state_dict, *, selected: Callable[[tuple[str, ...]], bool]) -> Variables:
  """The selected variables, with the values of their entries."""
  naming = released_names.table_of(model)
  abstract = abstract_variables(model, naming.image_size(state_dict))
  shapes: dict[tuple[str, ...], Any] = dict(flatten_dict(abstract))
  names = {path: naming(path) for path in shapes if selected(path)}
  missing = [name for name in names.values() if name not in state_dict]
  if missing:
    raise ValueError(
      f"{len(missing)} entries are missing from the state dict: {_first_few(missing)}"
    )
  used = set(names.values())
  modules, whole = {_module(name) for name in used}, len(names) == len(shapes)
  extra = [
    name
    for name in state_dict
    if name not in used and not naming.ignores(name) and (whole or _module(name) in modules)
  ]
  if extra:
    raise ValueError(
      f"{len(extra)} entries of the state dict match no variable: {_first_few(extra)}"
    )
  values = {}
  for path, name in names.items():
    expected = to_torch(path, np.broadcast_to(np.float32(0), shapes[path].shape)).shape
    if state_dict[name].shape != expected:
      raise ValueError(f"{name!r} has shape {state_dict[name].shape}; the model needs {expected}")
    channels = naming.flattened_channels(path)
    values[path] = jnp.asarray(from_torch(path, state_dict[name], shapes[path].shape, channels))
  return unflatten_dict(values)


def _module(name: str) -> str:
  """The released module of an entry, down to the second level, such as "backbone.backbone"."""
  return ".".join(name.split(".")[:2])


@functools.lru_cache(maxsize=8)
def abstract_variables(model: nn.Module, image_size: int) -> Mapping[str, Any]:
  """The shapes of a network's variables for images of `image_size` pixels.

  Kept for the next calls, because tracing a network takes a second.
  """
  image = jnp.zeros((1, image_size, image_size, 3))
  init = lambda key: model.init(key, image, train=False)  # noqa: E731
  return jax.eval_shape(init, jax.random.key(0))


def _names(model) -> dict[tuple[str, ...], str]:
  """Variable path -> released name, for every variable of the model."""
  naming = released_names.table_of(model)
  abstract = abstract_variables(model, naming.image_size({}))
  return {path: naming(path) for path in flatten_dict(abstract)}


def to_torch(
  path: tuple[str, ...], value: np.ndarray, flattened_channels: int | None = None
) -> np.ndarray:
  """A variable in torch's layout: conv [out, in, h, w], dense [out, in], A_log [p * d, n].

  With `flattened_channels`, the inputs of a Dense kernel are a square map with that many channels.
  """
  if flattened_channels:
    rows, out = value.shape
    side = _side(path, rows // flattened_channels)
    value = value.reshape(side, side, flattened_channels, out).transpose(2, 0, 1, 3)
    value = value.reshape(rows, out)
  if path[-1] == "kernel":
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
  if path[-1] in ("A_log", "D"):
    return value.reshape(-1, *value.shape[2:])
  return value


def from_torch(
  path: tuple[str, ...],
  value: np.ndarray,
  shape: tuple[int, ...],
  flattened_channels: int | None = None,
) -> np.ndarray:
  """The inverse of `to_torch`: float32, for a variable of this shape."""
  if path[-1] == "kernel":
    value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
  if flattened_channels:
    side = _side(path, len(value) // flattened_channels)
    value = value.reshape(flattened_channels, side, side, -1).transpose(1, 2, 0, 3)
  return np.ascontiguousarray(value, np.float32).reshape(shape)


def _side(path: tuple[str, ...], area: int) -> int:
  side = math.isqrt(area)
  if side * side != area:
    raise ValueError(
      f"{'/'.join(path)} takes a map of {area} positions, which is not square; released weights "
      "are for square images"
    )
  return side


def _first_few(names: list[str], limit: int = 8) -> str:
  more = len(names) - limit
  return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")

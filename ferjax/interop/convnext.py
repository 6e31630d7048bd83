"""Imports ConvNeXt's ImageNet weights, in its authors' naming, into `EmoNeXt`."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from ferjax.interop.torch_weights import export_state_dict, import_state_dict
from ferjax.models.emonext import EmoNeXt

# The shared modules, under the names of both networks.
_TRUNK = re.compile(r"(downsample_layers\.\d\.[01]|stages\.\d\.\d+|norm)\.")


class ConvNeXtReport(NamedTuple):
  """How the weights were used, by released name.

  `used` entries were copied to the variables; `ignored` ones belong to a head for other classes;
  `kept` variables are not in the checkpoint and keep their initial values.
  """

  used: tuple[str, ...]
  ignored: tuple[str, ...]
  kept: tuple[str, ...]

  def __str__(self) -> str:
    modules = dict.fromkeys(x.rsplit(".", 1)[0] for x in self.kept)
    return (
      f"{len(self.used)} entries of a ConvNeXt checkpoint are used; "
      f"ignored: {', '.join(self.ignored) or 'none'}; as initialised: {', '.join(modules)}"
    )


def import_convnext(
  model: nn.Module, state_dict: Mapping[str, Any], variables: dict
) -> tuple[dict, ConvNeXtReport]:
  """`variables` with a ConvNeXt's trunk, and its head if it has the same number of classes.

  The spatial transformer, squeeze-and-excitation and the attention have no counterpart in a
  ConvNeXt.

  Args:
    model: an `EmoNeXt`.
    state_dict: name -> array in torch's layouts, or a dict that has it under "model". ImageNet-1k
      and 22k checkpoints only differ in the head.
    variables: of `model`, as initialised.

  Raises:
    ValueError: missing trunk entries, entries that no such ConvNeXt has, or an entry of another
      shape, such as from another network size; all are listed.
    TypeError: the model is not an `EmoNeXt`.
  """
  if not isinstance(model, EmoNeXt):
    raise TypeError(f"ConvNeXt weights fit EmoNeXt only, not {type(model).__name__}")
  if isinstance(state_dict.get("model"), Mapping):
    state_dict = state_dict["model"]
  merged = export_state_dict(model, variables)
  trunk = [name for name in merged if _TRUNK.match(name)]
  head = ("head.weight", "head.bias")
  missing = [name for name in trunk if name not in state_dict]
  unknown = [name for name in state_dict if name not in (*trunk, *head)]
  if missing or unknown:
    raise ValueError(
      f"this is not a ConvNeXt checkpoint for size {model.size!r}: missing {_first_few(missing)}; "
      f"unknown {_first_few(unknown)} (import a checkpoint of EmoNeXt with import_state_dict)"
    )
  ignored = tuple(name for name in head if _has_other_classes(name, state_dict, merged))
  used = tuple(name for name in state_dict if name not in ignored)
  merged |= {name: np.asarray(state_dict[name]) for name in used}
  kept = tuple(x for x in merged if x not in used and not x.endswith(".num_batches_tracked"))
  return import_state_dict(model, merged), ConvNeXtReport(used, ignored, kept)


def import_emonext_or_convnext(
  model: nn.Module, state_dict: Mapping[str, Any], variables: dict, parts: tuple[str, ...]
) -> tuple[dict, Any]:
  """The whole of an EmoNeXt checkpoint, or the trunk of a ConvNeXt one."""
  del parts  # every matching part is imported
  if any(name.startswith("fc_loc") for name in state_dict):
    return import_state_dict(model, state_dict), "all entries are used"
  return import_convnext(model, state_dict, variables)


def _has_other_classes(name: str, state_dict: Mapping[str, Any], own: Mapping) -> bool:
  """Whether an entry of the head differs from ours in its first axis only."""
  if name not in state_dict:
    return False
  shape, own_shape = np.shape(state_dict[name]), own[name].shape
  return shape[:1] != own_shape[:1] and shape[1:] == own_shape[1:]


def _first_few(names: list[str], limit: int = 6) -> str:
  more = len(names) - limit
  return (", ".join(names[:limit]) or "none") + (f" and {more} more" if more > 0 else "")

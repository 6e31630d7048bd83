"""Imports ConvNeXt's ImageNet weights, in its authors' naming, into `EmoNeXt`."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from ferjax.interop.torch_weights import export_state_dict, import_state_dict
from ferjax.models.emonext import EmoNeXt

# The shared modules, in the names of each network.
_TRUNK = re.compile(r"(downsample_layers\.\d\.[01]|stages\.\d\.\d+|norm)\.")


class ConvNeXtReport(NamedTuple):
  """How the weights were used, by released name.

  `used` entries were copied to the variables; `ignored` ones, of a head for other classes, were
  not; `kept` variables are not in the checkpoint and keep their initial values.
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
  """`variables` with the trunk (and the head, if it is for as many classes) of a ConvNeXt.

  The spatial transformer, squeeze-and-excitation and the attention have no counterpart in a
  ConvNeXt.

  Args:
    model: an `EmoNeXt`.
    state_dict: name -> array in torch's layouts, or a dict with it under "model". ImageNet-1k
      and 22k checkpoints differ in the head only.
    variables: of `model`, as initialised.

  Raises:
    ValueError: trunk entries that are missing, entries that no ConvNeXt of this kind has, or an
      entry of another shape, such as that of another size of network; all listed.
    TypeError: another model.
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
      f"this is not a ConvNeXt checkpoint for size {model.size!r}: missing {_some(missing)}; "
      "unknown "
      f"{_some(unknown)} (a checkpoint of EmoNeXt is read with import_state_dict)"
    )
  ignored = tuple(name for name in head if _is_of_other_classes(name, state_dict, merged))
  used = tuple(name for name in state_dict if name not in ignored)
  merged |= {name: np.asarray(state_dict[name]) for name in used}
  kept = tuple(x for x in merged if x not in used and not x.endswith(".num_batches_tracked"))
  return import_state_dict(model, merged), ConvNeXtReport(used, ignored, kept)


def import_emonext_or_convnext(
  model: nn.Module, state_dict: Mapping[str, Any], variables: dict, parts: tuple[str, ...]
) -> tuple[dict, Any]:
  """All of a checkpoint of the network itself, else the trunk of a ConvNeXt."""
  del parts  # all that is there is taken
  if any(name.startswith("fc_loc") for name in state_dict):
    return import_state_dict(model, state_dict), "all of it is used"
  return import_convnext(model, state_dict, variables)


def _is_of_other_classes(name: str, state_dict: Mapping[str, Any], own: Mapping) -> bool:
  """Whether an entry of the head differs from ours in its first axis, and in nothing else."""
  if name not in state_dict:
    return False
  shape, own_shape = np.shape(state_dict[name]), own[name].shape
  return shape[:1] != own_shape[:1] and shape[1:] == own_shape[1:]


def _some(names: list[str], limit: int = 6) -> str:
  more = len(names) - limit
  return (", ".join(names[:limit]) or "none") + (f" and {more} more" if more > 0 else "")

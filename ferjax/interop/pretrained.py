"""Weights that a run starts from, as a config names them."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from ferjax.interop.branches import import_branch
from ferjax.interop.convnext import import_convnext
from ferjax.interop.torch_weights import (
  StateDict,
  Variables,
  import_parts,
  import_state_dict,
  load_state_dict,
)
from ferjax.models.emonext import EmoNeXt
from ferjax.models.fermam import FERMam


def read_pretrained(files: str) -> dict[str, StateDict]:
  """The state dicts of "FILE" (under the name ""), or of "part=FILE,part=FILE".

  Raises:
    ValueError: a part is named twice, or only some of several files are.
    OSError, ImportError: as `load_state_dict`.
  """
  weights: dict[str, StateDict] = {}
  entries = [entry.rpartition("=") for entry in files.split(",") if entry]
  for part, _, file in entries:
    if part in weights or (not part and len(entries) > 1):
      raise ValueError(
        f"train.pretrained is {files!r}; expected one file, or part=FILE,part=FILE with every part "
        "named once"
      )
    weights[part] = load_state_dict(file)
  return weights


def import_pretrained(
  model: nn.Module,
  weights: Mapping[str, StateDict],
  variables: Variables,
  parts: tuple[str, ...],
) -> tuple[Variables, list[str]]:
  """`variables` with what was read, and a line for each file on what was used of it.

  Args:
    model: the network to start.
    weights: as `read_pretrained` returns them.
    variables: of the model, as initialised.
    parts: of a checkpoint of the whole network that are wanted; EmoNeXt takes all of it, and also
      ConvNeXt's ImageNet weights. FERMam takes a file for each branch ("image", "landmark").

  Raises:
    ValueError: a checkpoint does not fit; what is wrong is named.
  """
  lines = []
  for part, state_dict in weights.items():
    report: Any
    if part and isinstance(model, FERMam):
      variables, report = import_branch(model, state_dict, variables, part)
    elif part:
      raise ValueError(
        f"train.pretrained names the part {part!r}; only fermam takes a file for each part"
      )
    elif isinstance(model, EmoNeXt) and not any(name.startswith("fc_loc") for name in state_dict):
      variables, report = import_convnext(model, state_dict, variables)
    elif isinstance(model, EmoNeXt):
      variables, report = import_state_dict(model, state_dict), "all of it is used"
    else:
      variables = import_parts(model, state_dict, variables, parts)
      report = f"used for {', '.join(parts)}"
    lines.append(f"pretrained weights{f' of {part}' if part else ''}: {report}")
  return variables, lines

"""Imports separately trained networks as FERMam's branches."""

import dataclasses

import flax.linen as nn
from flax.traverse_util import flatten_dict

from ferjax.interop import released_names, torch_weights
from ferjax.interop.fermam_names import BRANCHES


@dataclasses.dataclass(frozen=True)
class BranchReport:
  """How each entry of a checkpoint is used.

  `used` entries match the branch, `ignored` ones belong to layers that the branch lacks by design,
  `unknown` ones match nothing, and `missing` ones are required but absent.
  """

  used: tuple[str, ...]
  ignored: tuple[str, ...]
  unknown: tuple[str, ...]
  missing: tuple[str, ...]

  def __str__(self) -> str:
    counts = [f"{len(names)} {kind}" for kind, names in dataclasses.asdict(self).items()]
    details = [
      f"{kind}: {', '.join(names)}"
      for kind, names in dataclasses.asdict(self).items()
      if names and kind != "used"
    ]
    return "; ".join([", ".join(counts), *details])


def compare_branch(
  model: nn.Module,
  state_dict: torch_weights.StateDict,
  variables: torch_weights.Variables,
  part: str,
) -> BranchReport:
  """How a checkpoint fits a branch, without importing it; arguments as for `import_branch`."""
  naming, prefix = released_names.table_of(model), _prefix(part)
  needed = {
    naming(path).removeprefix(prefix) for path in flatten_dict(variables) if path[1] == part
  }
  ignored = {x for x in state_dict if x not in needed and naming.ignores(prefix + x)}
  return BranchReport(
    used=tuple(x for x in state_dict if x in needed),
    ignored=tuple(x for x in state_dict if x in ignored),
    unknown=tuple(x for x in state_dict if x not in needed and x not in ignored),
    missing=tuple(sorted(needed - set(state_dict))),
  )


def import_branch(
  model: nn.Module,
  state_dict: torch_weights.StateDict,
  variables: torch_weights.Variables,
  part: str,
) -> tuple[torch_weights.Variables, BranchReport]:
  """`variables` of a `FERMam`, with one branch taken from a checkpoint of its network.

  Args:
    model: as `ferjax.create_model("fermam", ...)` returns it.
    state_dict: as `load_state_dict` returns it, with names such as "body.0.res_layer.1.weight"
      (IR-50) or "conv_23.conv.conv.weight" (MobileFaceNet). The embeddings and IR-50's fourth
      stage are ignored.
    variables: of the model.
    part: "image" for IR-50, "landmark" for MobileFaceNet.

  Raises:
    ValueError: an unknown part, missing or unknown entries, or a wrong shape.
  """
  report = compare_branch(model, state_dict, variables, part)
  if report.unknown or report.missing:
    raise ValueError(f"the checkpoint does not fit the {part} branch: {report}")
  whole = {_prefix(part) + name: value for name, value in state_dict.items()}
  return torch_weights.import_parts(model, whole, variables, (part,)), report


def import_part(
  model: nn.Module,
  state_dict: torch_weights.StateDict,
  variables: torch_weights.Variables,
  parts: tuple[str, ...],
) -> tuple[torch_weights.Variables, BranchReport]:
  """`import_branch` with the signature of the registry's importers."""
  (part,) = parts
  return import_branch(model, state_dict, variables, part)


def _prefix(part: str) -> str:
  if part not in BRANCHES:
    raise ValueError(f"unknown branch {part!r}; known: {', '.join(BRANCHES)}")
  return BRANCHES[part]

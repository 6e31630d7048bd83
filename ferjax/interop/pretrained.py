"""Loads the pretrained weights that a config names."""

from collections.abc import Mapping

import flax.linen as nn

from ferjax.interop.torch_weights import StateDict, Variables, import_parts, load_state_dict
from ferjax.models.registry import model_spec, resolve, spec_of


def read_pretrained(files: str) -> dict[str, StateDict]:
  """The state dicts of "FILE" (under the name ""), or of "part=FILE,part=FILE".

  Raises:
    ValueError: a part is named twice, or one of several files has no part.
    OSError, ImportError: as `load_state_dict`.
  """
  return {part: load_state_dict(file) for part, file in files_by_part(files).items()}


def check_pretrained(model_name: str, files: str) -> None:
  """Raises a ValueError for malformed `files`, or a part that the network cannot import."""
  for part in files_by_part(files):
    _importer(model_name, model_spec(model_name).importers, part)


def import_pretrained(
  model: nn.Module,
  weights: Mapping[str, StateDict],
  variables: Variables,
  parts: tuple[str, ...],
) -> tuple[Variables, list[str]]:
  """`variables` with the weights, and a log line per file on which weights were used.

  Args:
    model: a registered network.
    weights: as `read_pretrained` returns them.
    variables: of the model, as initialised.
    parts: the parts to import from a whole network's checkpoint, if its importer can choose.

  Raises:
    ValueError: a checkpoint does not match; the message lists the differences.
  """
  spec, lines = spec_of(model), []
  importers = {} if spec is None else spec.importers
  for part, state_dict in weights.items():
    importer = _importer(type(model).__name__, importers, part)
    variables, report = importer(model, state_dict, variables, (part,) if part else parts)
    lines.append(f"pretrained weights{f' of {part}' if part else ''}: {report}")
  return variables, lines


def import_selected(
  model: nn.Module, state_dict: StateDict, variables: Variables, parts: tuple[str, ...]
) -> tuple[Variables, str]:
  """`import_parts`, and the list of parts: the importer of ordinary networks."""
  return import_parts(model, state_dict, variables, parts), f"used for {', '.join(parts)}"


def files_by_part(files: str) -> dict[str, str]:
  """The files of "FILE" (under the name ""), or of "part=FILE,part=FILE".

  Raises:
    ValueError: a part is named twice, or one of several files has no part.
  """
  found: dict[str, str] = {}
  entries = [entry.rpartition("=") for entry in files.split(",") if entry]
  for part, _, file in entries:
    if part in found or (not part and len(entries) > 1):
      raise ValueError(
        f"the pretrained weights are {files!r}; expected one file, or part=FILE,part=FILE with "
        "each part named once"
      )
    found[part] = file
  return found


def _importer(name: str, importers: Mapping, part: str):
  if part not in importers:
    forms = [f"{x}=FILE" if x else "FILE" for x in importers]
    raise ValueError(
      f"train.pretrained names {f'the part {part!r}' if part else 'one file'}, which {name} cannot "
      f"import; expected: {', '.join(forms) or 'none'}"
    )
  return resolve(importers[part])

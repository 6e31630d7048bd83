"""Imports checkpoints of the networks' authors as checkpoints of ferjax."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn

from ferjax._version import __version__
from ferjax.checkpoint import FOLDER, Checkpoint, Checkpoints
from ferjax.interop.import_options import Description, ImportOptions, describe
from ferjax.interop.matching import (
  ABSENT,
  Match,
  match_entries,
  matched_variables,
  reverse_channels,
)
from ferjax.interop.naming import Naming
from ferjax.interop.pretrained import files_by_part
from ferjax.interop.state_dict_files import StateDict, StateDictFile, read_state_dict
from ferjax.interop.torch_weights import Variables
from ferjax.models import create_model
from ferjax.models.registry import MODELS, ModelSpec, model_spec, resolve

_SHOWN = 6  # names in a message


@dataclasses.dataclass(frozen=True)
class Import:
  """The contents of files, compared with a network.

  Attributes:
    files: part of the network -> its file; a file of the whole network has the name "".
    entries: name in the whole released network -> array.
    model: the network.
    description: of the network and its input.
    match: which entries are used, and for what.
    options: with which the files were read.
  """

  files: Mapping[str, StateDictFile]
  entries: StateDict
  model: nn.Module
  description: Description
  match: Match
  options: ImportOptions

  def check(self) -> None:
    """Raises a ValueError if the network cannot be filled; the message has the way out."""
    name, match, file = self.description.meta["model"]["name"], self.match, _paths(self.files)
    if match.missing:
      raise ValueError(f"{file} lacks {self._missing()}")
    if self.description.problem:
      raise ValueError(f"{file}: {self.description.problem}")
    if match.unknown:
      raise ValueError(
        f"{file} has {len(match.unknown)} entries of layers that {name} does not have: "
        f"{_first_few(match.unknown)}. If its network works without them, pass --ignore PATTERN"
      )

  def _missing(self) -> str:
    """What is missing, and the ways out."""
    match, description = self.match, self.description
    modules = match.modules(match.missing)
    misfits = [why for why in match.missing.values() if not why.endswith(ABSENT)]
    files = ",".join(f"{part}={x.path}" if part else x.path for part, x in self.files.items())
    count, named = description.num_classes, len(description.meta["class_names"])
    return (
      f"{len(match.missing)} of the {match.num_variables} variables of "
      f"{description.meta['model']['name']}: {_first_few(misfits[:3] or modules)}. "
      + (f"Its head is for {count} classes, not {named}. " if count not in (None, named) else "")
      + f"Get the whole file. If this is a backbone, start a training from it with "
      f"--config.train.pretrained={files}, or initialise the rest at random with --initialise "
      f"{','.join((*self.options.initialise, *modules))}"
      + (" and --classes NAMES" if description.problem else "")
    )

  def variables(self) -> Variables:
    """The variables for `model.apply`.

    Raises:
      ValueError: as `check`, or an entry is not of finite floating-point numbers.
    """
    self.check()
    size = self.description.meta["image_size"]
    values = matched_variables(self.model, self.entries, self.match, size, seed=self.options.seed)
    return reverse_channels(self.model, values) if self.options.bgr else values

  def write(self, folder: str | os.PathLike) -> Checkpoint:
    """Writes a checkpoint to a new workdir, of step 0 unless `ferjax export` wrote the file.

    Raises:
      FileExistsError: as `check_new`.
      ValueError: as `variables`.
      OSError: the checkpoint cannot be written.
    """
    folder = pathlib.Path(folder).expanduser()
    check_new(folder)
    variables = self.variables()
    meta: dict[str, Any] = {
      **self.description.meta,
      **_BEFORE_TRAINING,
      "versions": {"ferjax": __version__},
    }
    exported = self.description.exported
    meta |= {field: exported[field] for field in _KEPT if field in exported}
    if initialised := self.initialised():
      meta["initialised"] = initialised
    checkpoints = Checkpoints(folder, keep=1, metric="")
    try:
      checkpoints.save(meta["step"], variables=variables, meta=meta)
    finally:
      checkpoints.close()
    return checkpoints.open(meta["step"])

  def initialised(self) -> list[str]:
    """The modules with random values, also those of a network that was exported with them."""
    before = self.description.exported.get("initialised", ())
    return sorted({*self.match.modules(self.match.initialised), *before})


def check_new(folder: str | os.PathLike) -> None:
  """Raises a FileExistsError for a folder with checkpoints."""
  folder = pathlib.Path(folder).expanduser()
  steps = folder / FOLDER
  if steps.is_dir() and any(x.name.isdecimal() for x in steps.iterdir()):
    raise FileExistsError(f"{folder} has checkpoints already; name another folder")


# Fields of a checkpoint's `meta` that `ferjax export` keeps.
_KEPT = ("selection", "step", "epoch", "settings", "data", "licence")
# Fields of a checkpoint's `meta` for a network that was not trained here.
_BEFORE_TRAINING = {
  "config": {},
  "selection": "",
  "num_examples": 0,
  "num_hosts": 1,
  "step": 0,
  "epoch": 0.0,
  "data_start": 0,
  "evaluations_since_best": 0,
  "skipped_records": 0,
  "training_seconds": 0.0,
}


def compare_files(name: str, files: str, options: ImportOptions | None = None) -> Import:
  """Reads checkpoints of the networks' authors, and compares them with a network.

  Args:
    name: of the network.
    files: "FILE" of the whole network or of one of its parts, which the names tell; or
      "part=FILE,part=FILE", such as "image=ir50.pth,landmark=mobilefacenet.pth".
    options: what the files do not say.

  Raises:
    OSError, ImportError, ValueError: as `read_state_dict`.
    ValueError: the file is of another network or size, or an option is out of range.
  """
  options = options or ImportOptions()
  spec = model_spec(name)
  naming = _naming(name, spec)
  read = {
    part: read_state_dict(file, averages=options.averages)
    for part, file in files_by_part(files).items()
  }
  if not read:
    raise ValueError("no file is named; expected FILE, or part=FILE,part=FILE")
  read, entries = _whole_names(name, naming, read)
  description = describe(name, naming, entries, options, _exported(name, read))
  meta = description.meta
  model = create_model(num_classes=len(meta["class_names"]), **meta["model"])
  match = match_entries(
    model, entries, meta["image_size"], initialise=options.initialise, ignore=options.ignore
  )
  return Import(read, entries, model, description, match, options)


def _naming(name: str, spec: ModelSpec) -> Naming:
  if spec.module not in spec.released_names:
    raise ValueError(f"no released names are known for {name}; nothing can be imported for it")
  return resolve(spec.released_names[spec.module])


def _whole_names(
  name: str, naming: Naming, read: Mapping[str, StateDictFile]
) -> tuple[dict[str, StateDictFile], dict[str, Any]]:
  """The files by part, which is found out if it is not given; and all entries."""
  files, entries = {}, {}
  for part, file in read.items():
    part = part or _part_of(name, naming, file)
    if part and part not in naming.branches:
      known = ", ".join(f"{x}=FILE" for x in naming.branches)
      raise ValueError(f"{name} has no file for the part {part!r}; expected {known or 'FILE'}")
    prefix = naming.branches[part] if part else ""
    files[part] = file
    own = {prefix + entry: value for entry, value in file.entries.items()}
    if not _recognises(naming, own, file.path):
      raise ValueError(_unknown_network(f"{name}, part {part}", file))
    entries |= own
  return files, entries


def _part_of(name: str, naming: Naming, file: StateDictFile) -> str:
  """The part whose released names the entries have; "" for the whole network."""
  for part, prefix in {"": "", **naming.branches}.items():
    if _recognises(naming, {prefix + entry: x for entry, x in file.entries.items()}, file.path):
      return part
  for other, spec in MODELS.items():
    table = (
      resolve(spec.released_names[spec.module]) if spec.module in spec.released_names else None
    )
    if other != name and table and table.size and _recognises(table, file.entries, file.path):
      raise ValueError(
        f"{file.path} is a checkpoint of {other}, not of {name}; import it with `ferjax weights "
        f"import {other}`"
      )
  raise ValueError(_unknown_network(name, file))


def _unknown_network(name: str, file: StateDictFile) -> str:
  if any(entry.startswith("params/") for entry in file.entries):
    return f"{file.path} has the variables of ferjax itself, and needs no import: use it as it is"
  return (
    f"{file.path} is not a checkpoint of {name}: its {len(file.entries)} entries have other names, "
    f"such as {_first_few(list(file.entries))}; expected those of its authors' "
    "program, or of a backbone of it"
  )


def _recognises(naming: Naming, entries: StateDict, path: str) -> bool:
  """Whether the entries have names of the network."""
  try:
    return naming.size is None or naming.size(entries) != ""
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error


def _exported(name: str, read: Mapping[str, StateDictFile]) -> Mapping[str, Any]:
  """The description in a file of `ferjax export`; empty for other files."""
  for file in read.values():
    if file.description is not None:
      theirs = file.description["model"]["name"]
      if theirs != name:
        raise ValueError(f"{file.path} has a network {theirs}, not {name}")
      return file.description
  return {}


def _paths(files: Mapping[str, StateDictFile]) -> str:
  return " and ".join(file.path for file in files.values())


def _first_few(names: Sequence[str]) -> str:
  more = len(names) - _SHOWN
  return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")

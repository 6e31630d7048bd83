"""Reads state dicts, in the forms in which programs save them.

A checkpoint may have the state dict inside, under a name such as "model", next to other entries;
it may also have moving averages of the weights; and all names may have a prefix that a wrapper of
the network added, such as "module.".
"""

import argparse
import contextlib
import dataclasses
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ferjax.archives import DAMAGED_ARCHIVE, check_archive
from ferjax.output import one_line
from ferjax.trained import NetworkMeta, version_error

StateDict = Mapping[str, np.ndarray]

_ZIP = b"PK\x03\x04"  # the first bytes of an archive
DESCRIPTION = "ferjax"  # the entry that `ferjax export` adds
FORMAT = 1  # of the description
# Names under which programs save moving averages, and the weights themselves.
_AVERAGES = ("ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict", "model_ema_state")
_WEIGHTS = ("state_dict", "model_state_dict", "model", "net", "network", "module")
# Prefixes of wrappers: DataParallel, torch.compile, and modules that have the network as a field.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
# ema-pytorch saves the network twice, and both its state and torch's AveragedModel have counters.
_BOTH = ("ema_model.", "online_model.")
_COUNTERS = ("initted", "step", "n_averaged")


@dataclasses.dataclass(frozen=True)
class StateDictFile:
  """A state dict, and what else is in its file.

  Attributes:
    path: of the file.
    entries: name -> array, without the prefixes of wrappers.
    place: where the entries were, such as "model" or "ema/module.*"; "" for the whole file.
    others: name -> why it is not part of the state dict.
    description: of the network, if `ferjax export` wrote the file.
  """

  path: str
  entries: StateDict
  place: str = ""
  others: Mapping[str, str] = dataclasses.field(default_factory=dict)
  description: Mapping[str, Any] | None = None


def load_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """The entries of `read_state_dict`, without moving averages if the file also has the weights."""
  return dict(read_state_dict(path, averages=False).entries)


def read_state_dict(path: str | os.PathLike, *, averages: bool = True) -> StateDictFile:
  """Reads a state dict from a .safetensors, .npz, .pth, .pt or .pth.tar file.

  A torch file (old ones are named `.tar`, but are not archives) is the state dict itself, or has it
  inside, as in `{"model": ...}` or `{"ema": {"module": ...}}`. A prefix of all names, such as
  "module.", is removed. Torch files need the extra `ferjax[torch]`, and are read with
  `weights_only=True`, so no code in them is executed.

  Args:
    path: of the file.
    averages: which to take from a file with both: the moving averages, or the weights.

  Raises:
    FileNotFoundError: the file does not exist.
    ValueError: an unknown suffix, or content that does not match it.
    ImportError: a torch file, but PyTorch is not installed.
  """
  path = os.fspath(path)
  if not os.path.isfile(path):
    raise FileNotFoundError(f"no weights at {path!r}")
  suffix = os.path.splitext(path)[1]
  if suffix not in _READERS:
    raise ValueError(
      f"{path!r} ends in {suffix!r}; weights are read from .safetensors, .npz, .pth, .pt "
      "or .pth.tar files"
    )
  try:
    content = _READERS[suffix](path)
    return _find(path, content, averages)
  except _UNREADABLE as error:
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    raise ValueError(f"{path!r} cannot be read: {one_line(reason)}") from error


def _find(path: str, content: Any, averages: bool) -> StateDictFile:
  """The state dict in the content of a file; its values are tensors of any library."""
  description = _description(path, content)
  place, others = [], {}
  keys = (*_AVERAGES, *_WEIGHTS) if averages else (*_WEIGHTS, *_AVERAGES)
  while isinstance(content, Mapping):
    key = next((key for key in keys if isinstance(content.get(key), Mapping)), None)
    if key is None:
      break
    others |= {"/".join((*place, str(x))): _reason(x) for x in content if x != key}
    place.append(key)
    content = content[key]
  if not isinstance(content, Mapping) or not all(isinstance(x, str) for x in content):
    raise ValueError("it contains no state dict; expected a dict from names to tensors")
  entries, prefix, dropped = _without_wrappers(content, averages)
  if prefix:
    place.append(f"{prefix}*")
  others |= {"/".join((*place[: -1 if prefix else None], x)): why for x, why in dropped.items()}
  return StateDictFile(path, _arrays(entries), "/".join(place), others, description)


def _description(path: str, content: Any) -> Mapping[str, Any] | None:
  """What `ferjax export` adds to a file; None in other files."""
  found = content.get(DESCRIPTION) if isinstance(content, Mapping) else None
  if not isinstance(found, Mapping):
    return None
  if not _is_description(found):
    raise ValueError("its description is damaged; export it again")
  if found["format"] > FORMAT:
    problem = f"its format is {found['format']}, and this version reads formats up to {FORMAT}"
  elif missing := NetworkMeta.__required_keys__ - found.keys():
    problem = f"its description lacks {', '.join(sorted(missing))}"
  else:
    return found
  raise version_error(found, path, problem)


def _is_description(found: Mapping[str, Any]) -> bool:
  """Whether the fields on which reading depends have the right types."""
  model, lists = found.get("model"), [found.get(x) for x in ("class_names", "mean", "std")]
  return (
    isinstance(found.get("format"), int)
    and isinstance(found.get("image_size"), int)
    and isinstance(model, Mapping)
    and isinstance(model.get("name"), str)
    and all(isinstance(x, list) for x in lists)
    and all(isinstance(x, str) for x in found["class_names"])
    and all(isinstance(x, int | float) for x in (*found["mean"], *found["std"]))
  )


def _reason(name: Any) -> str:
  if name == DESCRIPTION:
    return "the description of the network"
  if name in _AVERAGES:
    return "moving averages, which were not asked for"
  return "the weights before averaging" if name in _WEIGHTS else "not weights of the network"


def _without_wrappers(
  content: Mapping[str, Any], averages: bool
) -> tuple[dict[str, Any], str, dict[str, str]]:
  """The entries without the prefix of all names, the prefix, and why others are left out."""
  entries, prefix = dict(content), ""
  dropped: dict[str, str] = {}
  wanted, other = _BOTH if averages else _BOTH[::-1]
  if any(name.startswith(_BOTH) for name in entries):
    has_wanted = any(name.startswith(wanted) for name in entries)
    prefix = wanted if has_wanted else other
    why = dict.fromkeys(entries, "the other of weights and moving averages")
    why |= dict.fromkeys(_COUNTERS, "a counter of the averaging")
    dropped = {name: why[name] for name in entries if not name.startswith(prefix)}
    entries = {x.removeprefix(prefix): y for x, y in entries.items() if x.startswith(prefix)}
  while found := next((x for x in _PREFIXES if _is_prefix(x, entries)), ""):
    counters = [name for name in entries if name in _COUNTERS]
    dropped |= dict.fromkeys(counters, "a counter of the averaging")
    entries = {x.removeprefix(found): y for x, y in entries.items() if x not in counters}
    prefix += found
  return entries, prefix, dropped


def _is_prefix(prefix: str, entries: Mapping[str, Any]) -> bool:
  names = [name for name in entries if name not in _COUNTERS]
  return bool(names) and all(name.startswith(prefix) for name in names)


def _arrays(entries: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The entries as NumPy arrays; a ValueError for one that is no tensor."""
  arrays = {}
  for name, value in entries.items():
    if not isinstance(value, np.ndarray):
      if not hasattr(value, "detach"):
        raise ValueError(
          f"it contains no state dict; expected a dict from names to tensors, but {name!r} is "
          f"{type(value).__name__}"
        )
      value = _torch_array(value)
    arrays[name] = value
  return arrays


def _torch_array(tensor: Any) -> np.ndarray:
  tensor = tensor.detach().cpu()
  try:
    return tensor.numpy()
  except TypeError:  # NumPy has no bfloat16
    return tensor.float().numpy()


def _load_safetensors(path: str) -> dict[str, np.ndarray]:
  try:
    return load_file(path)
  except SafetensorError as error:
    raise ValueError(_damage(f"not a safetensors file ({error})")) from error


def _load_npz(path: str) -> dict[str, np.ndarray]:
  check_archive(path)
  try:
    with warnings.catch_warnings(), np.load(path, allow_pickle=False) as archive:
      warnings.simplefilter("ignore")  # about damaged headers
      arrays = dict(archive)
  except DAMAGED_ARCHIVE as error:
    if "Object arrays" in str(error):  # NumPy's words for a pickle
      raise ValueError(_refusal("a Python object")) from error
    raise ValueError(_damage(f"not a file of numpy.savez ({error})")) from error
  others = [name for name, x in arrays.items() if not isinstance(x, np.ndarray)]
  if others:
    raise ValueError(f"{others[0]} is no array")
  return arrays


def _load_torch(path: str) -> Any:
  try:
    import torch  # pyright: ignore[reportMissingImports]
  except ImportError as error:
    raise ImportError(f"reading {path!r} needs PyTorch: pip install 'ferjax[torch]'") from error
  with open(path, "rb") as file:
    is_archive = file.read(len(_ZIP)) == _ZIP  # old files of torch are not
  # Many programs save their options with the weights; a Namespace only has attributes.
  serialization = getattr(torch, "serialization", None)
  allowed = getattr(serialization, "safe_globals", contextlib.nullcontext)
  try:
    if is_archive:
      check_archive(path)
      _check_sums(path)
    with allowed([argparse.Namespace]), warnings.catch_warnings():
      warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
      return torch.load(path, map_location="cpu", weights_only=True)
  except _BROKEN_PICKLE as error:
    # One line: torch's own advises to run the file's code.
    (name,) = re.findall(r"GLOBAL (\S+)", str(error))[:1] or [""]
    reason = "".join(str(error).splitlines()[:1]).split(". ")[0]
    reason = f"not a file of torch.save ({type(error).__name__}: {reason})"
    raise ValueError(_refusal(name) if name else _damage(reason)) from error


def _check_sums(path: str) -> None:
  """Raises a ValueError for a damaged archive: torch does not compare its checksums."""
  with zipfile.ZipFile(path) as archive:
    if name := archive.testzip():
      raise ValueError(f"the checksum of {name} does not match its content")


def _refusal(name: str) -> str:
  return (
    f"it contains {name}, which is no tensor: loading it could run code, so it is refused. Save "
    "the network's state_dict() alone, or convert the file to .safetensors"
  )


def _damage(reason: object) -> str:
  return f"it is damaged, or {reason}; get the file again"


_READERS = {
  ".safetensors": _load_safetensors,
  ".npz": _load_npz,
  ".pth": _load_torch,
  ".pt": _load_torch,
  ".tar": _load_torch,
}
# Raised by unpickling a file that is damaged or has another format.
_BROKEN_PICKLE = (*DAMAGED_ARCHIVE, pickle.UnpicklingError)
# Raised by the readers for a broken file or another format.
_UNREADABLE = (ValueError, RuntimeError, EOFError, SafetensorError, KeyError)

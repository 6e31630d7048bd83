"""The format of a weights file: the variables of a network, and its description.

The file is a safetensors file. Its tensors are named after the variables, such as
`params/head/kernel`. Kernels are float16, unless float32 is asked for; vectors, the scan's `A_log`
and values out of float16's range are float32 (docs/weights.md has what this costs). The description
is JSON in the metadata, under `ferjax`. It has a checksum of itself and of the tensors.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NotRequired, Protocol, runtime_checkable

import jax
import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError

from ferjax.output import one_line
from ferjax.trained import NetworkMeta, TrainedNetwork, check_network_meta, version_error

SUFFIX = ".safetensors"
FORMAT = 1
DTYPES = ("float16", "float32")  # of kernels
_KEY = "ferjax"  # of the metadata
_SEPARATOR = "/"
_FLOAT32 = {"A_log"}  # an exponent: its rounding error grows along the sequence
_SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)


class Description(NetworkMeta):
  """The description in a weights file.

  `settings` replace defaults of prediction: `score_threshold` and `iou_threshold` of a detector;
  `crop_margin`, `flip`, `logit_adjustment` and `temperature` of a classifier. `data` names the
  training data. `metrics` has those of each evaluated set. `selection` is the note if the step was
  selected on test data, or "". `step` and `epoch` are the position in the training run. `sha256` is
  of the tensors and the other fields.
  """

  format: int
  name: str
  settings: dict[str, Any]
  data: str
  licence: str
  metrics: dict[str, dict[str, float]]
  selection: str
  step: int
  epoch: float
  versions: dict[str, str]
  sha256: NotRequired[str]


@runtime_checkable
class Bytes(Protocol):
  """A path, or a file of an installed package (`importlib.resources.abc.Traversable`)."""

  def read_bytes(self) -> bytes: ...


@dataclasses.dataclass(frozen=True)
class WeightsFile(TrainedNetwork):
  """An open weights file.

  Attributes:
    name: of known weights, or the path.
    meta: its description.
    tensors: variable -> array of float16 or float32.
    size: of the file, bytes.
  """

  name: str
  meta: Description
  tensors: Mapping[str, np.ndarray] = dataclasses.field(repr=False)
  size: int

  @property
  def settings(self) -> Mapping[str, Any]:
    """Settings of prediction that replace its defaults."""
    return self.meta["settings"]

  @property
  def num_parameters(self) -> int:
    """The number of trained values, without statistics."""
    return sum(x.size for name, x in self.tensors.items() if name.startswith("params/"))

  def variables(self) -> dict[str, Any]:
    """The variables for `model.apply`, as float32 arrays on the default device."""
    arrays = {name: x.astype(np.float32) for name, x in self.tensors.items()}
    return jax.device_put(unflatten_dict(arrays, sep=_SEPARATOR))


def write_weights(
  path: str | os.PathLike,
  description: Description,
  variables: Mapping[str, Any],
  *,
  dtype: str = "float16",
) -> WeightsFile:
  """Writes a weights file, atomically, and returns it as read back; creates its folder.

  Args:
    path: of the file.
    description: without its `sha256`.
    variables: of the network, for `model.apply`.
    dtype: of the kernels: "float16" or "float32".

  Raises:
    OSError: the file cannot be written.
    ValueError: a variable is not finite, or another dtype.
  """
  if dtype not in DTYPES:
    raise ValueError(f"the dtype is {dtype!r}; expected {' or '.join(DTYPES)}")
  path = pathlib.Path(path)
  tensors = {
    name: _stored(name, np.asarray(x, np.float32), dtype)
    for name, x in flatten_dict(variables, sep=_SEPARATOR).items()
  }
  # As after reading: lists instead of tuples.
  described = json.loads(json.dumps(description, allow_nan=False))
  described["sha256"] = _checksum(described, tensors)
  data = safetensors.numpy.save(tensors, {_KEY: json.dumps(described, allow_nan=False)})
  partial = path.with_name(f".{path.name}.partial")
  path.parent.mkdir(parents=True, exist_ok=True)
  try:
    partial.write_bytes(data)
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)
  return read_weights(path, str(path))


def read_weights(file: Bytes, name: str) -> WeightsFile:
  """Reads and checks a weights file.

  Args:
    file: a path, or a file of an installed package, also of a zipped one.
    name: of the weights, for messages and as `WeightsFile.name`.

  Raises:
    OSError: the file cannot be read.
    ValueError: it is damaged, has no description, or a newer version wrote it.
  """
  data = file.read_bytes()
  description = _description(data, name)
  try:
    tensors = safetensors.numpy.load(data)
  except (SafetensorError, KeyError, ValueError) as error:  # a type that NumPy does not have
    raise _damaged(name, f"it is truncated or has extra bytes ({error})") from error
  if description["format"] > FORMAT:
    problem = (
      f"its format is {description['format']}, and this version reads formats up to {FORMAT}"
    )
    raise version_error(description, name, problem, "weights file")
  if description.get("sha256") != _checksum(description, tensors):
    raise _damaged(name, "its checksum does not match its content")
  if missing := Description.__required_keys__ - description.keys():
    raise _damaged(name, f"its description lacks {', '.join(sorted(missing))}")
  checked: Any = check_network_meta(description, f"the weights file {name}")
  return WeightsFile(name, checked, tensors, len(data))


def has_description(path: str | os.PathLike) -> bool:
  """Whether a file is a safetensors file with the description of ferjax's weights."""
  with open(path, "rb") as file:
    size = int.from_bytes(file.read(8), "little")
    if size > os.path.getsize(path):
      return False
    try:
      return _KEY in json.loads(file.read(size)).get("__metadata__", {})
    except (ValueError, AttributeError, TypeError, RecursionError):
      return False


def _description(data: bytes, name: str) -> Description:
  """The description in the header."""
  size = int.from_bytes(data[:8], "little")
  if len(data) < 8 or size > len(data) - 8:
    raise _damaged(name, "it ends within its header, or is not a safetensors file")
  try:
    metadata = json.loads(data[8 : 8 + size]).get("__metadata__", {})
    text = metadata.get(_KEY)
    description = None if text is None else json.loads(text)
  except (ValueError, AttributeError, TypeError, RecursionError) as error:
    raise _damaged(name, f"its header is not valid ({error})") from error
  if description is None:
    raise ValueError(
      f"{name} is a safetensors file without the description of ferjax's weights; `ferjax weights "
      "save` writes files with one. `ferjax weights import` makes a checkpoint of those of the "
      "networks' authors"
    )
  if not isinstance(description, dict) or not isinstance(description.get("format"), int):
    raise _damaged(name, "its description has no format")
  return description  # pyright: ignore[reportReturnType]


def _damaged(name: str, problem: str) -> ValueError:
  return ValueError(one_line(f"the weights file {name} is damaged: {problem}. Get it again"))


def _stored(name: str, value: np.ndarray, dtype: str) -> np.ndarray:
  """The variable in the precision of the file."""
  if not np.isfinite(value).all():
    raise ValueError(f"the variable {name} has values that are not finite; choose another step")
  if dtype == "float32" or value.ndim < 2 or name.rpartition(_SEPARATOR)[2] in _FLOAT32:
    return value
  largest = np.abs(value).max(initial=0)
  in_range = largest == 0 or _SMALLEST_NORMAL <= largest <= np.finfo(np.float16).max
  return value.astype(np.float16) if in_range else value


def _checksum(description: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
  """SHA-256 of the tensors and of the description without its checksum."""
  described = {field: value for field, value in description.items() if field != "sha256"}
  digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
  for name, value in sorted(tensors.items()):
    digest.update(f"{name} {value.dtype.name} {value.shape}".encode())
    digest.update(np.ascontiguousarray(value).tobytes())
  return digest.hexdigest()

"""Compares a state dict with a network: which entry belongs to which variable."""

import dataclasses
import fnmatch
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ferjax.interop import released_names
from ferjax.interop.naming import Naming, Path
from ferjax.interop.state_dict_files import StateDict
from ferjax.interop.torch_weights import (
  Variables,
  abstract_variables,
  from_torch,
  to_torch,
)

ABSENT = "not in the file"  # why a variable is missing; the other reason is a shape
# Buffers that a profiler of torch adds to every layer.
_PROFILER = ("total_ops", "total_params")


@dataclasses.dataclass(frozen=True)
class Match:
  """How the entries of a state dict fit a network.

  Entries have their released names, and variables their path, such as "params/head/kernel".

  Attributes:
    used: entry -> variable.
    ignored: entry -> why it is not used.
    unknown: entries beside the network's own layers, without a counterpart.
    missing: variable -> why no entry has its values.
    initialised: the same for variables that may be initialised at random.
  """

  used: Mapping[str, str]
  ignored: Mapping[str, str]
  unknown: tuple[str, ...]
  missing: Mapping[str, str]
  initialised: Mapping[str, str]

  @property
  def num_variables(self) -> int:
    return len(self.used) + len(self.missing) + len(self.initialised)

  def by_part(self) -> dict[str, dict[str, int]]:
    """Part of the network -> how many of its variables are used, initialised and missing."""
    kinds = {"used": self.used.values(), "initialised": self.initialised, "missing": self.missing}
    parts: dict[str, dict[str, int]] = {}
    for kind, variables in kinds.items():
      for variable in variables:
        counts = parts.setdefault(variable.split("/")[1], dict.fromkeys(kinds, 0))
        counts[kind] += 1
    return dict(sorted(parts.items()))

  def modules(self, variables: Iterable[str]) -> list[str]:
    """The largest modules, such as "head" or "neck/vss_p4", all of whose variables are given."""
    given = set(variables)
    others = [x for x in (*self.used.values(), *self.missing, *self.initialised) if x not in given]
    mixed = {prefix for variable in others for prefix in _prefixes(variable)}
    found = (next(x for x in _prefixes(variable) if x not in mixed) for variable in given)
    return sorted(set(found))


def match_entries(
  model: nn.Module,
  state_dict: StateDict,
  image_size: int,
  *,
  initialise: Sequence[str] = (),
  ignore: Sequence[str] = (),
) -> Match:
  """Finds the entry of each variable, by name and shape.

  Args:
    model: a network with a table of released names.
    state_dict: released name -> array.
    image_size: pixels; the shapes of some networks depend on it.
    initialise: modules, such as "head", whose variables may be initialised at random if the state
      dict lacks them.
    ignore: patterns, such as "aux.*", of entries without a counterpart that may be left out.

  Raises:
    ValueError: the network has no module of that name.
  """
  naming = released_names.table_of(model)
  shapes: dict[Path, Any] = dict(flatten_dict(abstract_variables(model, image_size)))
  _check_modules(initialise, shapes)
  names = {path: naming(path) for path in shapes}
  used, missing, initialised = {}, {}, {}
  for path, entry in names.items():
    why = _misfit(path, state_dict.get(entry), shapes[path].shape)
    if not why:
      used[entry] = "/".join(path)
    elif any(_is_within(path, module) for module in initialise):
      initialised["/".join(path)] = f"{entry}: {why}"
    else:
      missing["/".join(path)] = f"{entry}: {why}"
  lacking = set(names.values()) - used.keys()
  ignored, unknown = {}, []
  for entry in (x for x in state_dict if x not in used):
    if entry in lacking:
      ignored[entry] = "another shape"
    elif why := _reason(entry, naming, ignore) or _reason_beside(entry, names.values(), lacking):
      ignored[entry] = why
    else:
      unknown.append(entry)
  return Match(used, ignored, tuple(unknown), missing, initialised)


def matched_variables(
  model: nn.Module,
  state_dict: StateDict,
  match: Match,
  image_size: int,
  *,
  seed: int = 0,
) -> Variables:
  """The variables of a network with the matching entries, and random values where there are none.

  Args:
    model, state_dict, image_size: as for `match_entries`.
    match: what it returned, without missing variables.
    seed: of the random values.

  Raises:
    ValueError: an entry is not of floating-point numbers, or not finite.
  """
  naming = released_names.table_of(model)
  shapes: dict[Path, Any] = dict(flatten_dict(abstract_variables(model, image_size)))
  values = _random_values(model, list(match.initialised), image_size, seed)
  for entry, variable in match.used.items():
    path = tuple(variable.split("/"))
    value = state_dict[entry]
    if not jnp.issubdtype(value.dtype, jnp.floating):
      raise ValueError(
        f"{entry!r} is {value.dtype}; expected floating-point numbers: save the network before it "
        "is quantised"
      )
    array = from_torch(path, value, shapes[path].shape, naming.flattened_channels(path))
    if not np.isfinite(array).all():
      raise ValueError(f"{entry!r} has values that are not finite; get another checkpoint")
    values[path] = jnp.asarray(array)
  return unflatten_dict(values)


def _random_values(
  model: nn.Module, variables: Sequence[str], image_size: int, seed: int
) -> dict[Path, Any]:
  """The initial values of some variables."""
  paths = [tuple(variable.split("/")) for variable in variables]
  # Many small programs of random numbers take longer to optimise than to run.
  options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None

  @functools.partial(jax.jit, compiler_options=options)
  def initialise(key):
    image = jnp.zeros((1, image_size, image_size, 3))
    flat = flatten_dict(model.init(key, image, train=False))
    # Nothing else is compiled: neither the other variables nor the network.
    return {"/".join(path): flat[path] for path in paths}

  values = initialise(jax.random.key(seed)) if paths else {}
  return {tuple(variable.split("/")): x for variable, x in values.items()}


def reverse_channels(model: nn.Module, variables: Variables) -> Variables:
  """`variables` for images whose three channels are in the reverse order."""
  flat: dict[Path, Any] = dict(flatten_dict(variables))
  for module in released_names.table_of(model).first_kernels:
    path = ("params", *module.split("."), "kernel")
    height, width, inputs, features = flat[path].shape
    kernel = flat[path].reshape(height, width, inputs // 3, 3, features)
    flat[path] = kernel[:, :, :, ::-1].reshape(flat[path].shape)
  return unflatten_dict(flat)


def _prefixes(variable: str) -> list[str]:
  """The modules of a variable from the outermost on, and the variable itself."""
  names = variable.split("/")[1:]
  return ["/".join(names[: i + 1]) for i in range(len(names))]


def _is_within(path: Path, module: str) -> bool:
  return module in _prefixes("/".join(path))


def _check_modules(modules: Sequence[str], paths: Iterable[Path]) -> None:
  known = {prefix for path in paths for prefix in _prefixes("/".join(path))}
  for module in modules:
    if module not in known:
      parts = sorted(name for name in known if "/" not in name)
      raise ValueError(
        f"the network has no part {module!r} to initialise; its parts: {', '.join(parts)}, and "
        "what is inside them, such as head/kernel"
      )


def _misfit(path: Path, value: np.ndarray | None, shape: tuple[int, ...]) -> str:
  """Why an entry does not have the values of a variable; "" if it does."""
  if value is None:
    return ABSENT
  expected = to_torch(path, np.broadcast_to(np.float32(0), shape)).shape
  return "" if value.shape == expected else f"shape {value.shape}, the network needs {expected}"


def _reason(entry: str, naming: Naming, ignore: Sequence[str]) -> str:
  """Why an entry without a counterpart is not used; "" if this is not known."""
  leaf = entry.rpartition(".")[2]
  if leaf == "num_batches_tracked":
    return "a counter of BatchNorm"
  if leaf in _PROFILER:
    return "a count of a profiler"
  if naming.ignores(entry):
    return "a layer whose output is not used"
  return next((f"matches {x!r}" for x in ignore if fnmatch.fnmatchcase(entry, x)), "")


def _reason_beside(entry: str, names: Iterable[str], lacking: set[str]) -> str:
  """The reason for an entry of a part that the file does not have as the network needs it.

  Another entry would change a part that is complete otherwise.
  """
  beside = list(names)
  prefix = ""
  for name in entry.split("."):
    prefix += f"{name}."
    closer = [x for x in beside if x.startswith(prefix)]
    if not closer:
      break
    beside = closer
  return "a layer that the network does not have" if lacking.intersection(beside) else ""

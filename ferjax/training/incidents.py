"""Steps that went wrong: what is written about them, and how they are computed again.

`<workdir>/incidents/<kind>_<step>.json` describes a step: its loss, the norms of its gradient by
groups of parameters, the records of its batch, and the config. For a step that was not finite, the
parameters that it started from are next to it, in a file with the suffix .safetensors.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any, Literal, cast

import flax.linen as nn
import flax.struct
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ferjax.config import Config
from ferjax.data.pipeline import close
from ferjax.data.sources import Source
from ferjax.output import atomic_path, atomic_writer
from ferjax.tasks.base import Task
from ferjax.training.inputs import TrainingData, preprocess_of
from ferjax.training.joined import global_norm
from ferjax.training.phases import Phase
from ferjax.training.sharding import replicated
from ferjax.training.state import TrainState, Variables
from ferjax.training.step import make_gradient

FOLDER = "incidents"
FORMAT = 1
_GROUP_DEPTH = 2  # of the path of a group: "backbone/stage1"
_LISTED = 3  # groups and records in a message; the file has all

Kind = Literal["nonfinite", "spike"]


@flax.struct.dataclass
class Group:
  """A group of parameters: scalars on the device or host.

  Attributes:
    squares: f32[], the sum of the squares of its gradient.
    nonfinite: i32[], the number of values of its gradient that are not finite.
    values: f32[], the sum of the squares of its parameters.
  """

  squares: Any
  nonfinite: Any
  values: Any


@dataclasses.dataclass(frozen=True)
class Diagnosis:
  """A step, computed again without the update.

  Attributes:
    loss: of the batch.
    grad_norm: global norm of the gradient.
    groups: for each group of parameters, `grad_norm`, `param_norm` and `nonfinite`; those with
      values that are not finite first, then by the norm of the gradient.
    records: `index` in the source and `origin` of each record of the batch. The partners of mosaics
      are not listed; they follow from the step.
  """

  loss: float
  grad_norm: float
  groups: dict[str, dict[str, float]]
  records: list[dict[str, Any]]

  def summary(self) -> str:
    """The largest groups and the first records, in one line."""
    groups = [
      f"{name} ({x['grad_norm']:.3g}"
      + (f", {x['nonfinite']:.0f} values not finite)" if x["nonfinite"] else ")")
      for name, x in list(self.groups.items())[:_LISTED]
    ]
    origins = [record["origin"] for record in self.records]
    more = [f"and {len(origins) - _LISTED} more"] if len(origins) > _LISTED else []
    return (
      f"largest gradients: {', '.join(groups)}; records: {', '.join([*origins[:_LISTED], *more])}"
    )


def diagnose(
  config: Config,
  model: nn.Module,
  task: Task,
  source: Source,
  data: TrainingData,
  phase: Phase,
  step: int,
  variables: Variables,
  mesh: jax.sharding.Mesh,
) -> Diagnosis:
  """Computes loss and gradient of step number `step` (1 is the first) for given variables.

  The batch is read from the data again, so all hosts must call this together.

  Args:
    config: of the run.
    model: of the run.
    task: of the run.
    source: the training records.
    data: their batches.
    phase: of the step.
    step: its number.
    variables: params and batch_stats before the step, replicated over the mesh.
    mesh: the devices.
  """
  gradient = make_gradient(
    model.clone(frozen=phase.frozen),
    task,
    config.train,
    sam_rho=config.optimizer.sam_rho,
    preprocess=preprocess_of(config.data),
  )

  def compute(state, batch, key):
    key = jax.random.fold_in(key, state.step)
    grads, _, loss = gradient(state.params, state.batch_stats, batch, key)
    return state, (loss.total, global_norm(grads), _groups(grads, state.params))

  def make_state(variables):
    nothing = {"opt_state": {}, "ema": {}, "skipped": jnp.int32(0)}
    return TrainState(step=jnp.int32(step - 1), **jax.tree.map(jnp.copy, variables), **nothing)

  everywhere = replicated(mesh)
  state = jax.jit(make_state, out_shardings=everywhere)(variables)
  key = jax.jit(lambda: run_key(config.train.seed), out_shardings=everywhere)()
  iterator = data.batches(phase.batch_size, phase.example(step - 1))
  try:
    batch = next(iterator)
    _, results = data.compile(cast(Any, compute))(state, batch.arrays, key)
  finally:
    close(iterator, config.data)
  loss, grad_norm, groups = jax.device_get(results)
  indices = np.ravel(multihost_utils.process_allgather(batch.host["index"]))
  return Diagnosis(float(loss), float(grad_norm), _sorted(groups), records_of(source, indices))


def records_of(source: Source, indices: np.ndarray) -> list[dict[str, Any]]:
  """`index` and `origin` of the records of a batch; [n] -> n dicts."""
  return [{"index": int(index), "origin": source.origin(int(index))} for index in indices]


def run_key(seed: int) -> jax.Array:
  """The key of a run, from which each step derives its own."""
  return jax.random.fold_in(jax.random.key(seed), 1)


def _groups(grads: Any, params: Any) -> dict[str, Group]:
  groups: dict[str, Group] = {}
  values: dict[tuple[str, ...], Any] = flax.traverse_util.flatten_dict(params)
  flat: dict[tuple[str, ...], Any] = flax.traverse_util.flatten_dict(grads)
  for path, grad in flat.items():
    name = "/".join(path[:_GROUP_DEPTH])
    one = Group(
      jnp.square(grad).sum(),
      jnp.sum(~jnp.isfinite(grad), dtype=jnp.int32),
      jnp.square(values[path]).sum(),
    )
    groups[name] = jax.tree.map(jnp.add, groups[name], one) if name in groups else one
  return groups


def _sorted(groups: Mapping[str, Group]) -> dict[str, dict[str, float]]:
  rows = {
    name: {
      "grad_norm": math.sqrt(x.squares),
      "param_norm": math.sqrt(x.values),
      "nonfinite": float(x.nonfinite),
    }
    for name, x in groups.items()
  }

  def rank(item):
    norm = item[1]["grad_norm"]
    return item[1]["nonfinite"], math.inf if math.isnan(norm) else norm

  return dict(sorted(rows.items(), key=rank, reverse=True))


def write_incident(
  workdir: pathlib.Path,
  kind: Kind,
  step: int,
  config: Mapping[str, Any],
  diagnosis: Mapping[str, Any],
  variables: Variables | None = None,
) -> pathlib.Path:
  """Writes a step to a file for `read_incident`, and its parameters next to it; returns its path.

  Args:
    workdir: of the run.
    kind: why it is written.
    step: the number of the step.
    config: of the run, as nested dicts.
    diagnosis: the fields of a `Diagnosis`, and any others that JSON has.
    variables: params and batch_stats before the step, or None.
  """
  file = workdir / FOLDER / f"{kind}_{step}.json"
  file.parent.mkdir(parents=True, exist_ok=True)
  if variables is not None:
    tensors = flax.traverse_util.flatten_dict(jax.device_get(variables), sep="/")
    with atomic_path(file.with_suffix(".safetensors")) as path:
      save_file({name: np.asarray(x) for name, x in tensors.items()}, path)
  content = {"format": FORMAT, "kind": kind, "step": step, **diagnosis, "config": dict(config)}
  with atomic_writer(file) as output:
    json.dump(_as_json(content), output, indent=2, allow_nan=False)
  return file


def _as_json(value: Any) -> Any:
  """The same with numbers that are not finite as text: JSON has none."""
  if isinstance(value, Mapping):
    return {name: _as_json(x) for name, x in value.items()}
  if isinstance(value, list | tuple):
    return [_as_json(x) for x in value]
  return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def read_incident(file: pathlib.Path) -> tuple[dict[str, Any], Variables | None]:
  """The content of a file of `write_incident`, and its parameters if it has any.

  Raises:
    FileNotFoundError: no such file.
    ValueError: it is damaged, another file, or of a newer version.
  """
  if not file.is_file():
    raise FileNotFoundError(
      f"no file {file}; expected one of a workdir's {FOLDER}/, such as {FOLDER}/nonfinite_120.json"
    )
  try:
    content = json.loads(file.read_text("utf-8"))
    number, kind, step = content["format"], content["kind"], content["step"]
    readable = kind in ("nonfinite", "spike") and type(number) is int and type(step) is int
    if not readable or not isinstance(content["config"], dict) or not _has_records(content):
      raise TypeError("unexpected fields")
  except (ValueError, KeyError, TypeError) as error:
    raise ValueError(
      f"{file} is damaged or does not describe a step of a run; expected a file of a workdir's "
      f"{FOLDER}/"
    ) from error
  if number > FORMAT:
    raise ValueError(
      f"{file} has format {number}; this version of ferjax reads formats up to {FORMAT}"
    )
  tensors = file.with_suffix(".safetensors")
  if not tensors.is_file():
    if kind == "nonfinite":
      raise FileNotFoundError(f"{tensors} is missing; it belongs to {file}: keep both together")
    return content, None
  try:
    return content, _unflatten(load_file(tensors))
  except SafetensorError as error:
    raise ValueError(f"{tensors} is damaged: {error}") from error


def _unflatten(tensors: dict[str, np.ndarray]) -> Variables:
  """A network without BatchNorm has no arrays of batch_stats."""
  return {"batch_stats": {}, **flax.traverse_util.unflatten_dict(tensors, sep="/")}


def _has_records(content: dict[str, Any]) -> bool:
  return {"loss", "grad_norm"} <= content.keys() and isinstance(content.get("records"), list)

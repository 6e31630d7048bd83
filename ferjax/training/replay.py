"""`train.py --replay FILE`: computes a step again that went wrong in a run."""

import math
import os
import pathlib
from typing import Any

import jax

from ferjax.checkpoint import open_checkpoint, steps_of
from ferjax.models import create_model
from ferjax.models.options import model_arguments
from ferjax.tasks import create_task
from ferjax.training.config_checks import from_dict, validate
from ferjax.training.incidents import Diagnosis, diagnose, read_incident
from ferjax.training.inputs import TrainingData
from ferjax.training.phases import make_phases, phase_of
from ferjax.training.run import load_split
from ferjax.training.sharding import check_batch_size, make_mesh, replicated
from ferjax.training.state import Variables, init_variables


def replay(file: str | os.PathLike) -> Diagnosis:
  """Computes loss and gradient of a recorded step again, from its data, and prints them.

  A step that was not finite starts from the parameters that were written with it. A spike starts
  from those of the newest checkpoint before it, so its loss is the same only if that checkpoint is
  of the step before.

  Args:
    file: in the folder `incidents` of a workdir.

  Raises:
    FileNotFoundError: no such file, or no checkpoint before a spike.
    ValueError: a damaged file, data that have changed, or a step that is finite here.
  """
  path = pathlib.Path(file).expanduser().absolute()
  content, variables = read_incident(path)
  config, step = from_dict(content["config"]), content["step"]
  validate(config)
  source = load_split(config, "train")
  task, mesh = create_task(config), make_mesh()
  model = create_model(num_classes=len(task.class_names), **model_arguments(config.model))
  phases = make_phases(config.train, len(source))
  if not 1 <= step <= phases[-1].end_step:
    raise ValueError(f"{path} is of step {step}, but its run has {phases[-1].end_step} steps")
  phase = phase_of(phases, step - 1)
  check_batch_size(phase.batch_size, mesh)
  start = "the parameters before this step"
  if variables is None:
    variables, before = _from_checkpoint(path.parent.parent, step)
    start = f"the parameters of step {before}"
  _check_shapes(path, variables, model, config.data.image_size)
  variables = jax.device_put(variables, replicated(mesh))
  data = TrainingData(source, config, mesh)
  found = diagnose(config, model, task, source, data, phase, step, variables, mesh)
  if jax.process_index() == 0:
    print(_report(content, found, start))
  _check_reproduced(path, content, found)
  return found


def _from_checkpoint(workdir: pathlib.Path, step: int) -> tuple[Variables, int]:
  before = [x for x in steps_of(workdir) if x < step]
  if not before:
    raise FileNotFoundError(
      f"no checkpoint before step {step} is left in {workdir}; a spike is replayed from the newest "
      "one before it. Keep more with train.keep_checkpoints"
    )
  train = open_checkpoint(workdir, step=before[-1]).training_state()
  return {name: train[name] for name in ("params", "batch_stats")}, before[-1]


def _check_shapes(path: pathlib.Path, variables: Variables, model: Any, image_size: int) -> None:
  wanted = jax.eval_shape(lambda key: init_variables(model, key, image_size), jax.random.key(0))
  shapes = [jax.tree.map(lambda x: (x.shape, x.dtype.name), tree) for tree in (wanted, variables)]
  if shapes[0] != shapes[1]:
    raise ValueError(
      f"{path}: the parameters are not those of {type(model).__name__}; use the version of ferjax "
      "that wrote the file"
    )


def _report(content: dict[str, Any], found: Diagnosis, start: str) -> str:
  groups = found.groups
  width = max(map(len, groups))
  rows = [
    f"  {name:<{width}}  {x['grad_norm']:>12.5g}  {x['param_norm']:>12.5g}  {x['nonfinite']:>10.0f}"
    for name, x in groups.items()
  ]
  title = f"  {'group':<{width}}  {'gradient':>12}  {'parameters':>12}  {'not finite':>10}"
  return "\n".join(
    [
      f"Step {content['step']} ({content['kind']}), from {start}:",
      f"  loss           {found.loss:.7g} (recorded: {content['loss']})",
      f"  gradient norm  {found.grad_norm:.7g} (recorded: {content['grad_norm']})",
      title,
      *rows,
      "Records:",
      *(f"  {record['index']}: {record['origin']}" for record in found.records),
    ]
  )


def _check_reproduced(path: pathlib.Path, content: dict[str, Any], found: Diagnosis) -> None:
  if found.records != content["records"]:
    raise ValueError(
      f"the batch of {path} has other records in the data of its config; use the data as they were"
    )
  if (
    content["kind"] == "nonfinite" and math.isfinite(found.loss) and math.isfinite(found.grad_norm)
  ):
    written = content.get("versions", {})
    raise ValueError(
      f"step {content['step']} is finite here (loss {found.loss:.7g}, gradient norm "
      f"{found.grad_norm:.7g}). Other devices and versions round differently; it was computed on "
      f"{written.get('num_devices')} {written.get('device')} with jax {written.get('jax')}"
    )

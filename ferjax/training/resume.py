"""The initial state of a run: from scratch, from trained weights, or from a checkpoint."""

import importlib.metadata
import platform
from typing import Any

import flax.linen as nn
import jax
import optax
from absl import logging

from ferjax._version import __version__
from ferjax.checkpoint import FOLDER, Checkpoint
from ferjax.config import Config
from ferjax.data.mixture import without_folders
from ferjax.interop.pretrained import import_pretrained
from ferjax.models.options import model_arguments
from ferjax.models.registry import model_spec
from ferjax.trained import TrainedNetwork
from ferjax.training.config_checks import flatten, from_dict, to_dict
from ferjax.training.pretrained import read_pretrained, transfer
from ferjax.training.selection import check_selection
from ferjax.training.sharding import replicated, state_shardings
from ferjax.training.state import TrainState, create_state, init_variables

# These fields and the network must not change during a run.
_FIXED_FIELDS = (
  "data.class_names",
  "data.image_size",
  "data.source",
  "data.sources",
  "data.csv",
  "data.train",
  "data.mean",
  "data.std",
  "data.grey",
  "data.resize",
  "data.balance",
  "data.balance_power",
  "train.select_on",
  "train.teachers",
  "train.teacher_weight",
  "optimizer.name",
  "train.seed",
  "train.batch_size",
  "train.freeze",
  "train.freeze_epochs",
  "train.freeze_batch_size",
)


def describe(config: Config, *, num_examples: int) -> dict[str, Any]:
  """The part of a checkpoint's `meta` that is constant during a run."""
  return {
    "model": model_arguments(config.model),
    "task": model_spec(config.model.name).task,
    "class_names": list(config.data.class_names),
    "image_size": config.data.image_size,
    "mean": list(config.data.mean),
    "std": list(config.data.std),
    "grey": config.data.grey,
    "resize": config.data.resize,
    "class_prior": list(config.loss.class_prior),
    "config": to_dict(config),
    "selection": check_selection(config.train.select_on, config.train.select_on_test_reason),
    "num_examples": num_examples,
    "num_hosts": jax.process_count(),
    "versions": versions(),
  }


def versions() -> dict[str, str]:
  """Versions of Python and of the libraries that results depend on, and the devices."""
  names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pillow")
  return {
    "ferjax": __version__,
    "python": platform.python_version(),
    **{name: importlib.metadata.version(name) for name in names},
    "backend": jax.default_backend(),
    "device": jax.devices()[0].device_kind,
    "num_devices": str(jax.device_count()),
  }


def initial_state(
  config: Config,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  mesh: jax.sharding.Mesh,
) -> TrainState:
  """The state before the first step, with pretrained weights, on the devices of the mesh."""
  # Read first: an unreadable file is reported before anything is compiled.
  pretrained = read_pretrained(config.train.pretrained)
  everywhere = replicated(mesh)
  # Many small random initialisations: on a CPU, compiling them at full optimisation takes much
  # longer than running them.
  options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
  initialise = jax.jit(
    lambda key: init_variables(model, key, config.data.image_size),
    out_shardings=everywhere,
    compiler_options=options,
  )
  variables = initialise(jax.random.key(config.train.seed))
  if pretrained:
    if isinstance(pretrained, TrainedNetwork):
      variables, lines = transfer(pretrained, model, config, variables)
    else:
      parts = tuple(config.train.pretrained_parts)
      variables, lines = import_pretrained(model, pretrained, variables, parts)
    for line in lines if jax.process_index() == 0 else ():
      logging.warning("%s", line)
    variables = jax.device_get(variables)  # its arrays are local to this host; the state is global

  def create(variables):
    return create_state(variables, optimizer, ema=config.train.ema_decay > 0)

  shapes = jax.eval_shape(create, variables)
  shardings = state_shardings(shapes, mesh, shard=config.train.shard_state)
  return jax.jit(create, out_shardings=shardings)(variables)


def abstract_state(
  config: Config,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  mesh: jax.sharding.Mesh,
) -> TrainState:
  """Shapes and shardings of `initial_state`; nothing is computed."""

  def create(key):
    variables = init_variables(model, key, config.data.image_size)
    return create_state(variables, optimizer, ema=config.train.ema_decay > 0)

  shapes = jax.eval_shape(create, jax.random.key(config.train.seed))
  return jax.tree.map(
    lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    shapes,
    state_shardings(shapes, mesh, shard=config.train.shard_state),
  )


def check_same_run(checkpoint: Checkpoint, config: Config, num_examples: int) -> None:
  """Raises a ValueError that lists the differences if a checkpoint is from another run."""
  meta = checkpoint.meta
  if not meta["config"]:
    workdir = checkpoint.folder.parent.parent
    raise ValueError(
      f"{workdir} contains an imported network, not a run; choose another --workdir, and start "
      f"from the network with --config.train.pretrained={workdir}"
    )
  before, now = _fixed_settings(from_dict(meta["config"])), _fixed_settings(config)
  before["number of training examples"] = meta["num_examples"]
  now["number of training examples"] = num_examples
  differences = [
    f"{name} is {value!r}, the checkpoint has {before[name]!r}"
    for name, value in now.items()
    if name in before and value != before[name]  # other networks have other options
  ]
  if differences:
    listed = "\n  ".join(differences)
    raise ValueError(
      f"{checkpoint.folder.parent.parent} contains a different run (step {checkpoint.step}):\n"
      f"  {listed}\n"
      f"Choose another --workdir, resume with the same values, or delete {FOLDER}/ in it to start "
      "again"
    )


def _fixed_settings(config: Config) -> dict[str, Any]:
  """The values that must not change during a run."""
  # The others change neither the parameters nor what the network computes.
  free = ("dtype", "remat")
  network = {name: x for name, x in model_arguments(config.model).items() if name not in free}
  values = flatten(to_dict(config))
  values["data.sources"] = without_folders(config.data.sources)
  return flatten({"model": network}) | {name: values[name] for name in _FIXED_FIELDS}

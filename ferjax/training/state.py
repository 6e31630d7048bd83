"""The training state."""

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from ferjax.config import TrainConfig

COPY_UNTIL = 100  # the rule "power" copies the values up to this number of calls

Variables = dict[str, Any]


@flax.struct.dataclass
class TrainState:
  """Everything that a step reads and writes; everything else is a function of `step`.

  The leaves are arrays, or their shapes. `ema` holds the moving averages of params and
  batch_stats, or is empty if there are none. `skipped` is the number of steps that changed nothing
  because their gradient was not finite.
  """

  step: Any  # i32[]
  params: Any
  batch_stats: Any
  opt_state: Any
  ema: Variables
  skipped: Any  # i32[]

  def as_dict(self) -> dict[str, Any]:
    """The arrays of a checkpoint: all fields but `skipped`, which its description has."""
    names = [field.name for field in dataclasses.fields(self) if field.name != "skipped"]
    return {name: getattr(self, name) for name in names}

  def inference_variables(self) -> Variables:
    """The variables for evaluation and checkpoints: the moving averages if there are any."""
    return self.ema or {"params": self.params, "batch_stats": self.batch_stats}


def init_variables(model: nn.Module, key: jax.Array, image_size: int) -> Variables:
  """Freshly initialised variables of a model for images of `image_size` pixels."""
  image = jnp.zeros((1, image_size, image_size, 3), jnp.float32)
  variables = model.init(key, image, train=False)
  return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


def create_state(
  variables: Variables, optimizer: optax.GradientTransformation, *, ema: bool
) -> TrainState:
  """The state before the first step."""
  # Copies, because a step donates its state, and a buffer cannot be donated twice.
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables["params"],
    batch_stats=variables["batch_stats"],
    opt_state=optimizer.init(variables["params"]),
    ema=jax.tree.map(jnp.copy, variables) if ema else {},
    skipped=jnp.zeros((), jnp.int32),
  )


def update_ema(
  ema: Variables, variables: Variables, updates: Int[Array, ""], config: TrainConfig
) -> Variables:
  """Moving averages after update number `updates` (1 is the first).

  `config.ema_rule` is "ramp": the effective decay is ema_decay * (1 - exp(-updates / ema_ramp)),
  so early averages forget the initial values (spec: fer_yolo_mamba, Recipe as published);
  or "power": at every `ema_every`-th update, a copy at first and then an average whose decay
  grows towards ema_decay (spec: emonext, recipe as published).
  """
  if config.ema_rule == "power":
    return _power_average(ema, variables, updates - 1, config)
  weight = 1 - config.ema_decay * (1 - jnp.exp(-updates / config.ema_ramp))
  return jax.tree.map(lambda average, value: average + weight * (value - average), ema, variables)


def _power_average(
  ema: Variables, variables: Variables, call: Int[Array, ""], config: TrainConfig
) -> Variables:
  """The rule "power" at calls counted from 0."""
  since = jnp.maximum(call - COPY_UNTIL, 0).astype(jnp.float32)
  decay = jnp.clip(1 - (1 + since) ** (-2 / 3), 0, config.ema_decay)
  is_due = call % config.ema_every == 0

  def average(old, value):
    mean = old + (1 - decay) * (value - old)
    return jnp.where(is_due, jnp.where(call <= COPY_UNTIL, value, mean), old)

  return jax.tree.map(average, ema, variables)

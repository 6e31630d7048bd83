"""Learning rates and update rules (spec: all three networks, Recipe as published)."""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from ferjax.config import OptimizerConfig
from ferjax.models.registry import DecayRule, model_spec
from ferjax.models.ssm import SCAN_KERNELS
from ferjax.training.joined import global_norm

BASE_BATCH_SIZE = 64  # the batch size of `learning_rate`, if it is scaled
BY_EPOCH = ("cosine", "step", "exponential")
BY_STEP = ("warmup_cosine", "warm_restarts")
STEP_LEVELS = 10  # rates of the "step" schedule

Schedule = Callable[[Any], Any]

# Kernels: of convolutions and dense layers, and the projections of the selective scan.
DECAY_RULES = {
  "kernels": DecayRule(lambda path: path[-1] in ("kernel", *SCAN_KERNELS)),
  "all": DecayRule(lambda path: True),
}


def scaled_learning_rate(config: OptimizerConfig, batch_size: int) -> float:
  """The peak learning rate of a run: proportional to the batch size, within the configured bounds.

  Without `config.scale_by_batch` it is the configured rate.
  """
  if not config.scale_by_batch:
    return config.learning_rate
  rate = config.learning_rate * batch_size / BASE_BATCH_SIZE
  return min(max(rate, config.min_learning_rate), config.max_learning_rate)


def learning_rates(
  config: OptimizerConfig, epoch: Float[np.ndarray, "n"], *, batch_size: int, epochs: int
) -> Float[np.ndarray, "n"]:
  """The learning rates after the given numbers of epochs, in a run of `epochs` epochs.

  "cosine": quadratic warm-up, cosine, and a tail at the final rate. "step": ten constant rates
  in geometric sequence. "exponential": a factor for each whole epoch (spec: fermam).
  """
  highest = scaled_learning_rate(config, batch_size)
  final = highest * config.final_fraction
  if config.schedule == "exponential":
    return highest * config.epoch_decay ** np.floor(epoch)
  if config.schedule == "step":
    ratio = config.final_fraction ** (1 / (STEP_LEVELS - 1))
    return highest * ratio ** (epoch // (epochs / STEP_LEVELS))
  warmup = min(max(0.05 * epochs, 1), 3)
  tail = min(max(0.05 * epochs, 1), 15)
  first = max(0.1 * highest, 1e-6)
  rising = first + (highest - first) * (epoch / warmup) ** 2
  # If the whole run is warm-up and tail, the cosine is not used.
  progress = (epoch - warmup) / max(epochs - warmup - tail, 1e-9)
  falling = final + 0.5 * (highest - final) * (1 + np.cos(math.pi * np.clip(progress, 0, 1)))
  rates = np.where(epoch >= epochs - tail, final, falling)
  return np.where(epoch <= warmup, rising, rates)


def cycle_rates(config: OptimizerConfig, steps: int, *, batch_size: int) -> Float[np.ndarray, "n"]:
  """The learning rates at the positions of one cycle: linear warm-up from 0, then a cosine.

  Spec: emonext, Loss, recipe as published.
  """
  highest, warmup = scaled_learning_rate(config, batch_size), config.warmup_steps
  step = np.arange(steps)
  progress = np.clip((step - warmup) / max(steps - warmup, 1), 0, 1)
  cosine = 0.5 * (1 + np.cos(math.pi * progress))
  falling = config.final_fraction + (1 - config.final_fraction) * cosine
  return highest * np.where(step < warmup, step / max(warmup, 1), falling)


def make_schedule(
  config: OptimizerConfig,
  *,
  batch_size: int,
  epochs: int,
  steps_per_epoch: int,
  first_step: int = 0,
  first_epoch: int = 0,
) -> Schedule:
  """The learning rate as a function of the number of completed updates.

  Args:
    config: rates and shape.
    batch_size: over all devices.
    epochs: of the whole run.
    steps_per_epoch: of this phase.
    first_step: updates before this phase.
    first_epoch: epochs before this phase.

  The rates of `BY_EPOCH` are constant within an epoch, as published; those of `BY_STEP` follow
  the steps of the whole run: "warm_restarts" in cycles of `config.cycle_steps`, "warmup_cosine"
  in a single one.
  """
  if config.schedule in BY_STEP:
    total = first_step + (epochs - first_epoch) * steps_per_epoch
    length = config.cycle_steps if config.schedule == "warm_restarts" else total + 1
    cycle = jnp.asarray(cycle_rates(config, length, batch_size=batch_size), jnp.float32)
    return lambda step: cycle[(step + 1) % length]  # the first update has a rate above 0
  epoch = np.arange(first_epoch, epochs, dtype=np.float64)
  rates = learning_rates(config, epoch, batch_size=batch_size, epochs=epochs)
  table = jnp.asarray(rates, jnp.float32)

  def schedule(step):
    return table[jnp.clip((step - first_step) // steps_per_epoch, 0, len(table) - 1)]

  return schedule


def make_optimizer(
  config: OptimizerConfig,
  schedule: Schedule,
  *,
  frozen: str = "none",
  rules: Mapping[str, DecayRule] = DECAY_RULES,
) -> optax.GradientTransformation:
  """SGD as in `torch.optim.SGD` (Nesterov; decay enters the momentum), or AdamW.

  The parts that `config.group_rates` names have separate learning rates, like PyTorch's parameter
  groups: the factor scales the whole update, including AdamW's decay. Gradients are clipped by the
  global norm of all parts.

  Parameters of frozen parts get no update, no decay and no momentum; the structure of the state
  does not depend on the frozen parts, so all phases share one state.

  Args:
    config: name, momentum, decay, clipping, factors of parts.
    schedule: learning rate for a number of updates.
    frozen: "none", or the top-level parts of the parameters joined by "+".
    rules: the valid values of `config.decay`, see `decay_rules`.

  Raises:
    ValueError: `config.decay` is not one of the rules.
  """
  if config.decay not in rules:
    raise ValueError(f"optimizer.decay is {config.decay!r}; known: {', '.join(rules)}")
  rule = rules[config.decay]
  # Masked before the optimiser, so that frozen gradients affect no norm and no momentum, and after
  # it, so that old momentum does not change frozen parameters.
  freeze = optax.masked(optax.set_to_zero(), lambda params: frozen_mask(params, rule, frozen))

  def decayed(params):
    is_frozen = frozen_mask(params, rule, frozen)
    return jax.tree.map(lambda a, b: a and not b, decay_mask(params, rule), is_frozen)

  decay = optax.add_decayed_weights(config.weight_decay, mask=decayed)
  clip = _clip_by_global_norm(config.clip_norm) if config.clip_norm > 0 else optax.identity()
  if config.name == "adamw":
    update = optax.chain(optax.scale_by_adam(b1=config.momentum, b2=0.999, eps=1e-8), decay)
  else:
    update = optax.chain(decay, optax.trace(config.momentum, nesterov=True))
  optimizer = optax.chain(freeze, clip, update, optax.scale_by_learning_rate(schedule), freeze)
  return _scale_parts(optimizer, parse_group_rates(config.group_rates))


def _clip_by_global_norm(limit: float) -> optax.GradientTransformation:
  """`optax.clip_by_global_norm`, with one factor for all gradients.

  XLA computes optax's quotients in a loop of their own for each parameter, because both moments of
  Adam read them; a product it computes twice instead.
  """

  def update(updates, state, params=None):
    del params
    factor = jnp.minimum(1, limit / global_norm(updates))
    return jax.tree.map(lambda x: factor * x, updates), state

  return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def parse_group_rates(text: str) -> dict[str, float]:
  """The factors of "part=factor,part=factor"; empty for an empty text.

  Raises:
    ValueError: another format, a part named twice, or a factor that is negative or not finite.
  """
  factors: dict[str, float] = {}
  for entry in text.split(",") if text else ():
    part, _, number = (text.strip() for text in entry.partition("="))
    try:
      factor = float(number)
    except ValueError:
      factor = math.nan
    if not part or part in factors or not (math.isfinite(factor) and factor >= 0):
      raise ValueError(
        f"optimizer.group_rates is {text!r}, invalid at {entry!r}; expected "
        "part=factor,part=factor, such as image=0.1,head=2, with each part once and factors of at "
        "least 0"
      )
    factors[part] = factor
  return factors


def check_group_rates(text: str, parts: Collection[str]) -> None:
  """Raises a ValueError for malformed text, or a name that is not among a model's `parts`."""
  unknown = [part for part in parse_group_rates(text) if part not in parts]
  if unknown:
    raise ValueError(
      f"optimizer.group_rates names {', '.join(unknown)}; parts of this model: {', '.join(parts)}"
    )


def _scale_parts(
  optimizer: optax.GradientTransformation, factors: Mapping[str, float]
) -> optax.GradientTransformation:
  """Multiplies the updates of top-level parts; other updates are unchanged.

  The state is that of `optimizer`, so checkpoints do not depend on the factors.
  """

  def scale(path, update):
    return factors.get(_names(path)[0], 1.0) * update

  def update(updates, state, params=None):
    updates, state = optimizer.update(updates, state, params)
    return jax.tree_util.tree_map_with_path(scale, updates), state

  return optax.GradientTransformation(optimizer.init, update)


def decay_rules(model_name: str) -> dict[str, DecayRule]:
  """The values of `optimizer.decay` for a network: `DECAY_RULES`, and the network's own."""
  return {**DECAY_RULES, **model_spec(model_name).decay_rules}


def decay_mask(params: Any, rule: DecayRule) -> Any:
  """Which parameters decay, as a tree of booleans."""
  return jax.tree_util.tree_map_with_path(lambda path, _: rule.decays(_names(path)), params)


def frozen_mask(params: Any, rule: DecayRule, frozen: str) -> Any:
  """Which parameters are not trained, by part or by the rule, as a tree of booleans."""
  parts = () if frozen == "none" else tuple(frozen.split("+"))

  def is_frozen(path, _) -> bool:
    names = _names(path)
    return names[0] in parts or rule.frozen(names)

  return jax.tree_util.tree_map_with_path(is_frozen, params)


def _names(path) -> tuple[str, ...]:
  return tuple(str(entry.key) for entry in path)

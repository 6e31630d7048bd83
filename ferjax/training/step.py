"""The two compiled programs: one training step, one evaluation step."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ferjax.config import EvalConfig, TrainConfig
from ferjax.training.optimizers import Schedule
from ferjax.training.sharding import data_sharding, replicated
from ferjax.training.state import TrainState, Variables, update_ema

Metrics = dict[str, jax.Array]


def make_train_step(
  model: nn.Module,
  task: Any,
  optimizer: optax.GradientTransformation,
  schedule: Schedule,
  config: TrainConfig,
) -> Callable[[TrainState, dict, jax.Array], tuple[TrainState, Metrics]]:
  """A pure function (state, batch, key) -> (state, metrics), to be compiled by `compile_step`.

  The metrics are scalars: loss, its parts as `loss_<part>`, counts, learning_rate, grad_norm, and
  `finite`: whether the loss and everything that the next step or a checkpoint would use is.
  """

  def train_step(state, batch, key):
    rngs = {"dropout": jax.random.fold_in(key, state.step)}

    def loss_fn(params):
      output, changed = model.apply(
        {"params": params, "batch_stats": state.batch_stats},
        batch["image"],
        train=True,
        mutable=["batch_stats"],
        rngs=rngs,
      )
      loss, parts = task.loss(output, batch)
      return loss, (parts, changed.get("batch_stats", {}))

    grads, (loss, parts, batch_stats) = _gradient(loss_fn, state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    variables = {"params": optax.apply_updates(state.params, updates), "batch_stats": batch_stats}
    step = state.step + 1
    ema = state.ema
    if ema:
      ema = update_ema(ema, variables, step, decay=config.ema_decay, ramp=config.ema_ramp)
    metrics = {
      **_named(loss, parts),
      "learning_rate": schedule(state.step),
      "grad_norm": optax.tree.norm(grads),
      "finite": _all_finite((loss, variables, opt_state)),
    }
    return TrainState(step=step, opt_state=opt_state, ema=ema, **variables), metrics

  return train_step


def compile_step(train_step: Callable, mesh: jax.sharding.Mesh) -> Callable:
  """Compiles a training step for a mesh: state everywhere, batch cut, the old state given up."""
  everywhere = replicated(mesh)
  return jax.jit(
    train_step,
    in_shardings=(everywhere, data_sharding(mesh), everywhere),
    out_shardings=everywhere,
    donate_argnums=0,
  )


def make_eval_step(
  model: nn.Module, task: Any, config: EvalConfig, image_size: int, mesh: jax.sharding.Mesh
) -> Callable[[Variables, dict], tuple[Any, Metrics, dict]]:
  """A compiled function (variables, batch) -> (detections, losses, truth).

  Detections are in pixels of the original images. `truth` is the batch without its images. All
  results are whole on every host, so that each can add up the metrics of all.
  """

  def eval_step(variables, batch):
    output = model.apply(variables, batch["image"], train=False)
    loss, parts = task.loss(output, batch)
    detections = task.postprocess(
      output,
      image_size=image_size,
      placement=batch["placement"],
      score_threshold=config.score_threshold,
      iou_threshold=config.iou_threshold,
      max_detections=config.max_detections,
    )
    truth = {name: value for name, value in batch.items() if name != "image"}
    return detections, _named(loss, parts), truth

  everywhere = replicated(mesh)
  return jax.jit(
    eval_step, in_shardings=(everywhere, data_sharding(mesh)), out_shardings=everywhere
  )


def _gradient(loss_fn: Callable, params: Any) -> tuple[Any, tuple]:
  (loss, (parts, batch_stats)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
  return grads, (loss, parts, batch_stats)


def _named(loss: jax.Array, parts: Metrics) -> Metrics:
  """The loss and its parts as metrics; a part called `num_<...>` is a count."""
  named = {n if n.startswith("num_") else f"loss_{n}": value for n, value in parts.items()}
  return {"loss": loss, **named}


def _all_finite(tree: Any) -> jax.Array:
  return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))

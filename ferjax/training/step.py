"""The two compiled programs: one training step, one evaluation step."""

from collections.abc import Callable, Mapping
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
  *,
  sam_rho: float = 0.0,
) -> Callable[[TrainState, dict, jax.Array], tuple[TrainState, Metrics]]:
  """A pure function (state, batch, key) -> (state, metrics), to be compiled by `compile_step`.

  With `sam_rho` the gradient is that at the point of the neighbourhood where the loss is highest
  (sharpness-aware minimisation; spec: fermam, recipe as published).

  The metrics are scalars: loss, its parts as `loss_<part>`, counts, learning_rate, grad_norm, and
  `finite`: whether the loss and everything that the next step or a checkpoint would use is.
  """

  def train_step(state, batch, key):
    key = jax.random.fold_in(key, state.step)
    gradient = _over_microbatches(_gradient(model, task), config.accumulate)
    grads, batch_stats, metrics = gradient(state.params, state.batch_stats, batch, key)
    if sam_rho > 0:
      # The loss, its parts and BatchNorm's statistics are those of the first pass.
      nearby = _ascend(state.params, grads, sam_rho)
      grads, _, _ = gradient(nearby, state.batch_stats, batch, key)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    variables = {"params": optax.apply_updates(state.params, updates), "batch_stats": batch_stats}
    step = state.step + 1
    ema = update_ema(state.ema, variables, step, config) if state.ema else state.ema
    metrics |= {
      "learning_rate": schedule(state.step),
      "grad_norm": optax.tree.norm(grads),
      "finite": _all_finite((metrics["loss"], variables, opt_state)),
    }
    return TrainState(step=step, opt_state=opt_state, ema=ema, **variables), metrics

  return train_step


def _gradient(model: nn.Module, task: Any) -> Callable:
  """(params, batch_stats, batch, key) -> (gradient, new batch_stats, loss and its parts)."""

  def gradient(params, batch_stats, batch, key):
    def loss_fn(params):
      output, changed = model.apply(
        {"params": params, "batch_stats": batch_stats},
        batch["image"],
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": key},
      )
      loss, parts = task.loss(output, batch)
      return loss, (parts, changed.get("batch_stats", {}))

    (loss, (parts, changed)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
    return grads, changed, _named(loss, parts)

  return gradient


def _over_microbatches(gradient: Callable, pieces: int) -> Callable:
  """The gradient of a batch from equal pieces of it, one after the other: less memory.

  A piece has the share of the whole that it has of what the loss is a mean over, such as matched
  cells or class weights. Every device cuts its own share of the batch, so that nothing moves
  between them. BatchNorm and EmoNeXt's regulariser see a piece at a time.
  """
  if pieces == 1:
    return gradient

  def accumulated(params, batch_stats, batch, key):
    cut = jax.tree.map(
      lambda x: jnp.moveaxis(x.reshape(x.shape[0] // pieces, pieces, *x.shape[1:]), 1, 0), batch
    )

    def add(carry, numbered):
      total, batch_stats = carry
      number, piece = numbered
      grads, batch_stats, metrics = gradient(
        params, batch_stats, piece, jax.random.fold_in(key, number)
      )
      divisor = _divisor(metrics[count_name(metrics)])
      total = jax.tree.map(lambda sums, mean: sums + divisor * mean, total, grads)
      return (total, batch_stats), metrics

    zeros = jax.tree.map(jnp.zeros_like, params)
    (total, batch_stats), metrics = jax.lax.scan(
      add, (zeros, batch_stats), (jnp.arange(pieces), cut)
    )
    name = count_name(metrics)
    count = metrics.pop(name)
    divisor = _divisor(count.sum())
    means = {part: jnp.sum(_divisor(count) * x) / divisor for part, x in metrics.items()}
    return jax.tree.map(lambda x: x / divisor, total), batch_stats, means | {name: count.sum()}

  return accumulated


def count_name(metrics: Mapping[str, Any]) -> str:
  """The metric that the losses are means over: `num_matched`, `num_examples`, or a weighted one."""
  return next(name for name in metrics if name.startswith("num_"))


def _divisor(count: jax.Array) -> jax.Array:
  """What a loss was divided by: of nothing, 1."""
  return jnp.where(count > 0, count, 1)


def _ascend(params: Any, grads: Any, rho: float) -> Any:
  """The point at distance `rho` up the gradient (Foret et al. 2021, equation 2)."""
  # optax.contrib.sam goes there too, but makes NaN of a gradient of 0, as of a masked batch.
  scale = rho / (optax.tree.norm(grads) + 1e-12)
  return jax.tree.map(lambda value, grad: value + scale * grad, params, grads)


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
  """A compiled function (variables, batch) -> (predictions, losses, truth).

  Predictions are what `task.predict` makes of the model's output. Images in several views
  ([b views h w 3]) are given to the model one by one and `task.merge_views` puts them together.
  `truth` is the batch without its images. All results are whole on every host, so that each can
  add up the metrics of all.
  """

  def eval_step(variables, batch):
    images = batch["image"]
    output = model.apply(variables, images.reshape(-1, *images.shape[-3:]), train=False)
    if images.ndim == 5:
      output = task.merge_views(output, images.shape[1])
    loss, parts = task.loss(output, batch)
    predictions = task.predict(output, batch, image_size=image_size, config=config)
    truth = {name: value for name, value in batch.items() if name != "image"}
    return predictions, _named(loss, parts), truth

  everywhere = replicated(mesh)
  return jax.jit(
    eval_step, in_shardings=(everywhere, data_sharding(mesh)), out_shardings=everywhere
  )


def _named(loss: jax.Array, parts: Metrics) -> Metrics:
  """The loss and its parts as metrics; a part called `num_<...>` is a count."""
  named = {n if n.startswith("num_") else f"loss_{n}": value for n, value in parts.items()}
  return {"loss": loss, **named}


def _all_finite(tree: Any) -> jax.Array:
  return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))

"""The two compiled programs: one training step, one evaluation step."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from ferjax.compiler_options import compiler_options
from ferjax.config import EvalConfig, TrainConfig
from ferjax.tasks.base import Loss, Task
from ferjax.training.joined import all_finite, global_norm
from ferjax.training.optimizers import Schedule
from ferjax.training.sharding import data_sharding, replicated
from ferjax.training.state import TrainState, Variables, update_ema
from ferjax.typing import Batch

Params = Any  # a pytree of arrays


@flax.struct.dataclass
class StepMetrics:
  """Metrics of a training step: scalars on the device.

  Attributes:
    loss: of the step's batch.
    learning_rate: f32[], of the step.
    grad_norm: f32[], global norm of the gradient passed to the optimiser.
    skipped: bool[], whether the loss, the gradient or BatchNorm's statistics were not finite, so
      that the step changed nothing.
    finite: bool[], whether all values that the next step or a checkpoint uses are finite.
  """

  loss: Loss
  learning_rate: Any
  grad_norm: Any
  skipped: Any
  finite: Any

  def scalars(self) -> dict[str, Any]:
    """The logged values, by their names in files: all except `skipped` and `finite`."""
    return {
      **self.loss.scalars(),
      "learning_rate": self.learning_rate,
      "grad_norm": self.grad_norm,
    }


TrainStep = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, StepMetrics]]
# (params, batch_stats, batch, key) -> (gradient, new batch_stats, loss)
Gradient = Callable[[Params, Variables, Batch, jax.Array], tuple[Params, Variables, Loss]]
# Images of a batch -> input of the network; usually `ferjax.ops.normalize`
Preprocess = Callable[[jax.Array], jax.Array]
# (variables, batch) -> (result of `Task.predict`, loss, the batch without its images)
EvalStep = Callable[[Variables, Batch], tuple[Any, Loss, dict[str, jax.Array]]]


def make_train_step(
  model: nn.Module,
  task: Task,
  optimizer: optax.GradientTransformation,
  schedule: Schedule,
  config: TrainConfig,
  *,
  sam_rho: float = 0.0,
  preprocess: Preprocess = lambda image: image,
) -> TrainStep:
  """A pure function (state, batch, key) -> (state, metrics), for `compile_step`.

  With `sam_rho`, the gradient is taken at the point of highest loss in the neighbourhood
  (sharpness-aware minimisation; spec: fermam, recipe as published). `preprocess` is applied to the
  images of each microbatch; without it they are the network's input.

  A step whose gradient is not finite changes only the number of steps. After more than
  `config.skip_nonfinite` of these, no step changes anything else: the run stops when it reads the
  metrics, and finds the parameters that gave the last of these gradients.
  """
  gradient = make_gradient(model, task, config, sam_rho=sam_rho, preprocess=preprocess)

  def train_step(state, batch, key):
    key = jax.random.fold_in(key, state.step)
    grads, batch_stats, loss = gradient(state.params, state.batch_stats, batch, key)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    variables = {"params": optax.apply_updates(state.params, updates), "batch_stats": batch_stats}
    step = state.step + 1
    ema = update_ema(state.ema, variables, step, config) if state.ema else state.ema
    grad_norm = global_norm(grads)
    skipped = ~all_finite((loss.total, grad_norm, batch_stats))
    new = TrainState(step, opt_state=opt_state, ema=ema, skipped=state.skipped, **variables)
    old = state.replace(step=step, skipped=state.skipped + skipped)
    unchanged = skipped | (state.skipped > config.skip_nonfinite)
    state = jax.tree.map(lambda before, after: jnp.where(unchanged, before, after), old, new)
    metrics = StepMetrics(
      loss=loss,
      learning_rate=schedule(step - 1),
      grad_norm=grad_norm,
      skipped=skipped,
      finite=all_finite((state.params, state.batch_stats, state.opt_state)),
    )
    return state, metrics

  return train_step


def make_gradient(
  model: nn.Module,
  task: Task,
  config: TrainConfig,
  *,
  sam_rho: float = 0.0,
  preprocess: Preprocess = lambda image: image,
) -> Gradient:
  """The gradient of a training step as a pure function; arguments as for `make_train_step`."""
  gradient = _over_microbatches(_gradient(model, task, preprocess), config.accumulate)
  if sam_rho == 0:
    return gradient

  def at_highest_loss(params, batch_stats, batch, key):
    # The loss and BatchNorm's statistics are from the first pass.
    grads, changed, loss = gradient(params, batch_stats, batch, key)
    grads, _, _ = gradient(_ascend(params, grads, sam_rho), batch_stats, batch, key)
    return grads, changed, loss

  return at_highest_loss


def _gradient(model: nn.Module, task: Task, preprocess: Preprocess) -> Gradient:
  def gradient(params, batch_stats, batch, key):
    def loss_fn(params):
      output, changed = model.apply(
        {"params": params, "batch_stats": batch_stats},
        preprocess(batch["image"]),
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": key},
      )
      loss = task.loss(output, batch)
      return loss.total, (loss, changed.get("batch_stats", {}))

    (_, (loss, changed)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
    return grads, changed, loss

  return gradient


def _over_microbatches(gradient: Gradient, count: int) -> Gradient:
  """The gradient of a batch from `count` equal microbatches, one after the other: less memory.

  Microbatches are weighted by the divisors of their losses, such as matched cells or class
  weights. Each device splits its own part of the batch, so no data move between devices.
  BatchNorm and EmoNeXt's regulariser are computed for each microbatch alone.
  """
  if count == 1:
    return gradient

  def accumulated(params, batch_stats, batch, key):
    microbatches = jax.tree.map(
      lambda x: jnp.moveaxis(x.reshape(x.shape[0] // count, count, *x.shape[1:]), 1, 0), batch
    )

    def add(carry, numbered):
      sums, batch_stats = carry
      number, microbatch = numbered
      grads, batch_stats, loss = gradient(
        params, batch_stats, microbatch, jax.random.fold_in(key, number)
      )
      sums = jax.tree.map(lambda total, mean: total + loss.divisor * mean, sums, grads)
      return (sums, batch_stats), loss

    zeros = jax.tree.map(jnp.zeros_like, params)
    (sums, batch_stats), losses = jax.lax.scan(
      add, (zeros, batch_stats), (jnp.arange(count), microbatches)
    )
    loss = losses.merged()
    return jax.tree.map(lambda x: x / loss.divisor, sums), batch_stats, loss

  return accumulated


def _ascend(params: Params, grads: Params, rho: float) -> Params:
  """The point at distance `rho` along the gradient (Foret et al. 2021, equation 2)."""
  # optax.contrib.sam does this too, but returns NaN for a zero gradient, as of a masked batch.
  scale = rho / (global_norm(grads) + 1e-12)
  return jax.tree.map(lambda value, grad: value + scale * grad, params, grads)


def compile_step(
  train_step: Callable[..., tuple[TrainState, StepMetrics]],
  mesh: jax.sharding.Mesh,
  *constants: Any,
  shardings: TrainState | None = None,
  remat: bool = False,
) -> TrainStep:
  """Compiles a training step for a mesh: batch sharded, old state donated.

  The state has the given `shardings` (`ferjax.training.sharding.state_shardings`); None: it is
  replicated. `constants` are replicated arrays or trees of them, which the step takes after the
  key. As arguments, unlike values in a closure, they are not copied into the program. `remat` is
  for networks with rematerialisation (`ferjax.models.remat`).
  """
  everywhere = replicated(mesh)
  state = everywhere if shardings is None else shardings
  compiled = jax.jit(
    train_step,
    in_shardings=(state, data_sharding(mesh), everywhere, *(everywhere for _ in constants)),
    out_shardings=(state, everywhere),
    donate_argnums=0,
    compiler_options=compiler_options(remat=remat),
  )
  if not constants:
    return compiled
  return lambda state, batch, key: compiled(state, batch, key, *constants)


def make_eval_step(
  model: nn.Module,
  task: Task,
  config: EvalConfig,
  image_size: int,
  mesh: jax.sharding.Mesh,
  *,
  preprocess: Preprocess = lambda image: image,
) -> EvalStep:
  """A compiled function (variables, batch) -> (predictions, loss, truth).

  Predictions are the result of `task.predict` for the model's output. Images in several views
  ([b views h w c]) are passed to the model one by one, and `task.merge_views` merges the results.
  `truth` is the batch without its images. All results are replicated on every host, so each host
  can accumulate all metrics. `preprocess` is applied to the images; without it they are the
  network's input. With `config.flip`, the probabilities of single views are averaged with those of
  their mirror images.
  """

  def eval_step(variables, batch):
    images = batch["image"]
    flips = config.flip and images.ndim == 4
    if flips:
      images = jnp.stack([images, images[:, :, ::-1]], axis=1)
    single = images.reshape(-1, *images.shape[-3:])
    output = model.apply(variables, preprocess(single), train=False)
    if images.ndim == 5:
      output = task.merge_views(output, images.shape[1], probabilities=flips)
    loss = task.loss(output, batch)
    predictions = task.predict(output, batch, image_size=image_size, config=config)
    truth = {name: value for name, value in batch.items() if name != "image"}
    return predictions, loss, truth

  everywhere = replicated(mesh)
  return jax.jit(
    eval_step,
    in_shardings=(everywhere, data_sharding(mesh)),
    out_shardings=everywhere,
    compiler_options=compiler_options(),
  )

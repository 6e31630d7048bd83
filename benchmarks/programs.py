"""Compiled programs of ferjax at published sizes, for the benchmarks: inference, training step."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ferjax.compiler_options import compiler_options
from ferjax.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from ferjax.models import create_model
from ferjax.models.registry import model_spec
from ferjax.tasks import create_task
from ferjax.training.optimizers import make_optimizer
from ferjax.training.sharding import make_mesh, state_shardings, to_global
from ferjax.training.state import TrainState, create_state, init_variables
from ferjax.training.step import compile_step, make_train_step

FACES = 8  # ground-truth boxes in an image of a detector

# The peers of `benchmarks/peers` are as large as these. `size=None` is the paper's size.
IMAGE_SIZES = {"emonext": 224, "fermam": 224, "fer_yolo_mamba": 320}


class Program(NamedTuple):
  """A compiled program, and a function that runs it once and waits for its results."""

  compiled: jax.stages.Compiled
  run: Callable[[], None]


def forward(network: str, batch_size: int, dtype: str = "float32") -> Program:
  """Inference: images to raw outputs."""
  config, model = _model(network, dtype)
  variables = _variables(model, config.data.image_size)
  image = jnp.asarray(_batch(config, batch_size)["image"])
  apply = functools.partial(model.apply, train=False)
  compiled = jax.jit(apply, compiler_options=compiler_options()).lower(variables, image).compile()
  return Program(compiled, lambda: jax.block_until_ready(compiled(variables, image)) and None)


def step(
  network: str,
  batch_size: int,
  dtype: str = "float32",
  *,
  size: str | None = None,
  image_size: int | None = None,
  **options: Any,
) -> Program:
  """One step of training all parameters: the loss, its gradient, and the update by AdamW.

  It is the step of `ferjax train`, with its donated state, gradient norm and check for non-finite
  values, but without moving averages of the parameters. `size` and `image_size` replace the
  published ones; `options` are fields of the network.
  """
  config, model = _model(network, dtype, size, image_size)
  model = model.clone(**options)
  schedule = lambda step: jnp.float32(1e-4)  # noqa: E731
  optimizer = make_optimizer(config.optimizer, schedule)
  mesh = make_mesh()
  train_step = compile_step(
    make_train_step(model, create_task(config), optimizer, schedule, config.train), mesh
  )
  state = create_state(_variables(model, config.data.image_size), optimizer, ema=False)
  batch = to_global(_batch(config, batch_size), mesh)
  key = jax.random.key(1)
  compiled = train_step.lower(state, batch, key).compile()
  # The step donates its state, so nothing else may keep it.
  holder: dict[str, Any] = {"state": jax.device_put(state, compiled.input_shardings[0][0])}
  del state

  def run():
    holder["state"], metrics = compiled(holder.pop("state"), batch, key)
    jax.block_until_ready((holder["state"], metrics))

  return Program(compiled, run)


def abstract_step(
  network: str,
  batch_size: int,
  dtype: str = "float32",
  *,
  size: str | None = None,
  shard_state: bool = False,
  averages: bool = False,
  **options: Any,
) -> tuple[jax.stages.Traced, TrainState]:
  """The step of `step`, traced for shapes only, on all devices; and the shapes of its state.

  Nothing is allocated. `averages` adds moving averages; `options` are fields of the network.
  """
  config, model = _model(network, dtype, size)
  model = model.clone(**options)
  if averages:
    config.train.ema_decay = 0.999
  schedule = lambda step: jnp.float32(1e-4)  # noqa: E731
  optimizer = make_optimizer(config.optimizer, schedule)

  def create(key):
    variables = init_variables(model, key, config.data.image_size)
    return create_state(variables, optimizer, ema=averages)

  key, mesh = jax.eval_shape(lambda: jax.random.key(0)), make_mesh()
  state = jax.eval_shape(create, key)
  shardings = state_shardings(state, mesh, shard=shard_state)
  train_step = compile_step(
    make_train_step(model, create_task(config), optimizer, schedule, config.train),
    mesh,
    shardings=shardings,
  )
  return train_step.trace(state, _batch(config, batch_size), key), state


def _model(
  network: str, dtype: str, size: str | None = None, image_size: int | None = None
) -> tuple[Config, Any]:
  config = Config(
    model=ModelConfig(name=network),
    data=DataConfig(image_size=image_size or IMAGE_SIZES[network]),
    optimizer=OptimizerConfig(name="adamw", momentum=0.9, weight_decay=0.01),
    train=TrainConfig(freeze="none", ema_decay=0.0),
  )
  if network == "emonext":
    config.loss = dataclasses.replace(config.loss, regularizer_weight=1.0)
  classes = len(config.data.class_names)
  return config, create_model(network, num_classes=classes, size=size, dtype=dtype)


def _variables(model, image_size: int):
  # Runs once, so it is compiled without optimisation.
  options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
  init = jax.jit(
    lambda: init_variables(model, jax.random.key(0), image_size), compiler_options=options
  )
  variables = init()
  init.clear_cache()  # its memory is none of a step's
  return variables


def _batch(config: Config, batch_size: int) -> dict[str, np.ndarray]:
  random = np.random.default_rng(0)
  size, classes = config.data.image_size, len(config.data.class_names)
  batch = {
    "image": random.random((batch_size, size, size, 3), np.float32),
    "mask": np.ones(batch_size, bool),
    "skipped": np.zeros(batch_size, bool),
    "index": np.arange(batch_size, dtype=np.int32),
  }
  label = random.integers(classes, size=(batch_size, FACES), dtype=np.int32)
  if model_spec(config.model.name).task == "classification":
    return {**batch, "label": np.eye(classes, dtype=np.float32)[label[:, 0]]}
  return {**batch, "boxes": boxes(random, batch_size, size), "label": label,
          "box_mask": np.ones((batch_size, FACES), bool),
          "placement": np.tile(np.float32([1, 1, 0, 0, size, size]), (batch_size, 1))}  # fmt: skip


def boxes(random: np.random.Generator, batch_size: int, size: int) -> np.ndarray:
  """Square boxes f32[b m 4] inside the image, with sides of a tenth to a half of its side."""
  side = random.uniform(0.1, 0.5, (batch_size, FACES, 1))
  corner = random.uniform(0, 1, (batch_size, FACES, 2)) * (1 - side)
  return (size * np.concatenate([corner, corner + side], axis=-1)).astype(np.float32)

"""What a training program waits for: copies to the device, evaluation, checkpoints.

  python benchmarks/overlap.py [--steps 20] [--rounds 3] [--tables training,checkpoints]

Prints Markdown tables for `benchmarks/results/`. The ways in a table are measured in turn, A B A B,
and the table has the medians. The network is EmoNeXt's smallest on synthetic faces: its steps are
short, so what is not overlapped is a large part of them.
"""

import datetime
import itertools
import os
import pathlib
import platform
import runpy
import statistics
import tempfile
import time

import grain
import jax
import numpy as np
from absl import app, flags, logging

from ferjax.checkpoint import Checkpoints
from ferjax.config import Config
from ferjax.data.image import normalize
from ferjax.data.pipeline import eval_dataset, train_dataset
from ferjax.data.synthetic.faces import SyntheticFaces
from ferjax.data.synthetic.scenes import SyntheticScenes
from ferjax.models import create_model
from ferjax.models.options import model_arguments
from ferjax.tasks import create_task
from ferjax.training.evaluation import evaluate
from ferjax.training.inputs import TrainingData, preprocess_of
from ferjax.training.optimizers import make_optimizer
from ferjax.training.resume import initial_state
from ferjax.training.sharding import make_mesh, to_global
from ferjax.training.step import compile_step, make_eval_step, make_train_step

_STEPS = flags.DEFINE_integer("steps", 20, "Steps per measurement.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Measurements of each way.")
_TABLES = flags.DEFINE_list(
  "tables", ["transfers", "training", "evaluation", "checkpoints"], "The tables to print."
)

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
SIDE = 64  # pixels of the network's input in the timed runs
LOG_EVERY = 5  # steps after which a run waits for the metrics


def config_of(recipe: str, variant: str = "", **data) -> Config:
  config = runpy.run_path(str(CONFIGS / f"{recipe}.py"))["get_config"](variant)
  for name, value in {"num_workers": 0, **data}.items():
    setattr(config.data, name, value)
  return config


def timed_config(*, on_device: bool = False) -> Config:
  config = config_of("emonext", "demo", image_size=SIDE, resize=SIDE + 4, on_device=on_device)
  config.data.face_augment.rotation = 20.0
  return config


def faces(config: Config, count: int) -> SyntheticFaces:
  return SyntheticFaces(count, image_size=48, seed=0, class_names=config.data.class_names)


def table(header: tuple[str, ...], rows: list[tuple]) -> None:
  print("| " + " | ".join(header) + " |")
  print("| --- |" + " ---: |" * (len(header) - 1))
  for row in rows:
    print("| " + " | ".join(x if isinstance(x, str) else f"{x:.4g}" for x in row) + " |")
  print(flush=True)


def in_turn(*ways):
  """The medians of ways that each return a tuple of numbers; the first round warms up."""
  rounds = [[way() for way in ways] for _ in range(_ROUNDS.value + 1)][1:]
  return [
    tuple(map(statistics.median, zip(*each, strict=True))) for each in zip(*rounds, strict=True)
  ]


def size_of(batch) -> int:
  return sum(leaf.nbytes for leaf in jax.tree.leaves(batch))


def show_transfers() -> None:
  """Bytes per batch of the published recipes."""
  rows = []
  for recipe in ("fer_yolo_mamba", "fermam", "emonext"):
    config, mesh = config_of(recipe), make_mesh(1)
    if recipe == "fer_yolo_mamba":
      source = SyntheticScenes(32, image_size=320, seed=0, class_names=config.data.class_names)
    else:
      source = faces(config, 32)
    sizes = []
    for on_device in (False, True):
      config.data.on_device = on_device and recipe != "fer_yolo_mamba"
      iterator = TrainingData(source, config, mesh).batches(32, 0)
      sizes.append(size_of(next(iterator).arrays) / 1e6)
      iterator.close()
    iterator = iter(train_dataset(source, config.data, batch_size=32, seed=0, epochs=1))
    batch = next(iterator)
    iterator.close()
    floats = size_of({**batch, "image": normalize(batch["image"])}) / 1e6
    stored = sizes[1] if config.data.on_device else "-"
    rows.append((recipe, config.data.image_size, floats, sizes[0], sizes[0] / floats, stored))
  table(
    ("recipe, batch of 32", "pixels", "MB as float32", "MB as bytes", "ratio", "on_device"), rows
  )


def make_run(config: Config, mesh):
  """The model, the task, a fresh state and the function of a step."""
  task = create_task(config)
  model = create_model(num_classes=len(task.class_names), **model_arguments(config.model))
  optimizer = make_optimizer(config.optimizer, lambda step: 1e-3)
  state = initial_state(config, model, optimizer, mesh)
  step = make_train_step(
    model,
    task,
    optimizer,
    lambda step: 1e-3,
    config.train,
    preprocess=preprocess_of(config.data),
  )
  return model, task, state, step


def show_training() -> None:
  """Milliseconds per step, and of them waiting for a batch on the device."""
  mesh, batch_size, key = make_mesh(), timed_config().train.batch_size, jax.random.key(0)

  def way(ahead: bool, on_device: bool = False):
    config = timed_config(on_device=on_device)
    source = faces(config, 512)
    _, _, state, step = make_run(config, mesh)
    data = TrainingData(source, config, mesh)
    compiled = data.compile(step) if ahead else compile_step(step, mesh)

    def measure():
      nonlocal state
      if ahead:
        iterator = data.batches(batch_size, 0)
      else:
        dataset = train_dataset(source, config.data, batch_size=batch_size, seed=0, epochs=1)
        iterator = iter(dataset)
      waited, begin = 0.0, 0.0
      for number in range(_STEPS.value + LOG_EVERY):
        if number == LOG_EVERY:  # what was prefetched is used up
          waited, begin = 0.0, time.perf_counter()
        start = time.perf_counter()
        batch = next(iterator)
        arrays = batch.arrays if ahead else to_global(batch, mesh)
        if not ahead:
          jax.block_until_ready(arrays)
        waited += time.perf_counter() - start
        state, metrics = compiled(state, arrays, key)
        if number % LOG_EVERY == LOG_EVERY - 1:
          jax.device_get(metrics)
      total = time.perf_counter() - begin
      iterator.close()
      return 1e3 * total / _STEPS.value, 1e3 * waited / _STEPS.value

    return measure

  names = ("copied when needed", "copied ahead", "on the device (`data.on_device`)")
  results = in_turn(way(False), way(True), way(True, True))
  rows = [(name, *result) for name, result in zip(names, results, strict=True)]
  table(("training batches", "ms per step", "of it waiting for a batch"), rows)


def show_evaluation() -> None:
  """Milliseconds per batch, with and without one batch in flight."""
  config, mesh = timed_config(), make_mesh()
  config.eval.batch_size = 32
  source = faces(config, 32 * _STEPS.value)
  model, task, state, _ = make_run(config, mesh)
  variables = state.inference_variables()
  step = make_eval_step(model, task, config.eval, SIDE, mesh, preprocess=preprocess_of(config.data))

  def waiting():
    start = time.perf_counter()
    metrics = task.metrics()
    iterator = iter(eval_dataset(source, config.data, batch_size=32))
    for batch in iterator:
      predictions, _, truth = jax.device_get(step(variables, to_global(batch, mesh)))
      metrics.add(predictions, truth)
    iterator.close()
    metrics.compute()
    return (1e3 * (time.perf_counter() - start) / _STEPS.value,)

  def in_flight():
    start = time.perf_counter()
    evaluate(step, variables, source, config, task, mesh)
    return (1e3 * (time.perf_counter() - start) / _STEPS.value,)

  names = ("each batch waits for its results", "one batch in flight")
  rows = [(name, *row) for name, row in zip(names, in_turn(waiting, in_flight), strict=True)]
  table(("evaluation", "ms per batch"), rows)


def show_checkpoints() -> None:
  """Milliseconds of a save and of the steps after it, which wait for the writing or do not."""
  config, mesh, key = timed_config(), make_mesh(), jax.random.key(0)
  _, _, state, step = make_run(config, mesh)
  data = TrainingData(faces(config, 64), config, mesh)
  iterator = data.batches(config.train.batch_size, 0)
  arrays, compiled = next(iterator).arrays, data.compile(step)
  iterator.close()
  numbers, saves = iter(grain.MapDataset.range(4).to_iter_dataset()), itertools.count()

  def way(checkpoints: Checkpoints, *, waits: bool):
    def measure():
      nonlocal state
      times = [time.perf_counter()]
      checkpoints.save(
        next(saves),
        variables=state.inference_variables(),
        train=state.as_dict(),
        iterator=numbers,
        meta={},
        metrics={"accuracy": 0.5},
      )
      times.append(time.perf_counter())
      if waits:
        checkpoints.wait()
      for _ in range(_STEPS.value):
        state, metrics = compiled(state, arrays, key)
      jax.block_until_ready(metrics)
      times.append(time.perf_counter())
      checkpoints.wait()
      times.append(time.perf_counter())
      return 1e3 * np.array([*np.diff(times), times[-1] - times[0]])

    return measure

  with tempfile.TemporaryDirectory() as folder:
    checkpoints = Checkpoints(folder, keep=1, metric="accuracy")
    results = in_turn(way(checkpoints, waits=True), way(checkpoints, waits=False))
    checkpoints.close()
  size = size_of((state.as_dict(), state.inference_variables())) / 1e6
  header = (
    "ms until `save` returns",
    f"until {_STEPS.value} steps are done",
    "then waiting",
    "all",
  )
  names = ("written before the next step", "written meanwhile")
  table(
    (f"checkpoint of {size:.3g} MB", *header),
    [(name, *result) for name, result in zip(names, results, strict=True)],
  )


TABLES = {
  "transfers": show_transfers,
  "training": show_training,
  "evaluation": show_evaluation,
  "checkpoints": show_checkpoints,
}


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f"unexpected arguments: {argv[1:]}")
  logging.set_verbosity(logging.WARNING)
  device = jax.devices()[0]
  print(
    f"{datetime.date.today()}, Python {platform.python_version()}, jax {jax.__version__}, "
    f"{jax.device_count()} x {device.device_kind} ({device.platform}), {os.cpu_count()} cores "
    f"({platform.machine()}); EmoNeXt atto, {SIDE} pixels, batches of 32\n"
  )
  for name in _TABLES.value:
    TABLES[name]()


if __name__ == "__main__":
  app.run(main)

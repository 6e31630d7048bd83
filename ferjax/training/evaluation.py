"""Metrics of a model on a data set, exact for any batch size and number of devices."""

import dataclasses
import functools
import os
import pathlib
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from absl import logging

from ferjax.checkpoint import Step
from ferjax.config import Config, OptimizerConfig
from ferjax.data.loading import load_source
from ferjax.data.pipeline import close, eval_dataset
from ferjax.data.sources import Source, attributes_of
from ferjax.models import create_model
from ferjax.models.options import model_config
from ferjax.output import check_writable
from ferjax.progress import Progress
from ferjax.reports.files import EVALUATION
from ferjax.tasks import create_task, task_name
from ferjax.tasks.base import Accumulator, Loss, Task, merge_losses
from ferjax.trained import NetworkMeta, TrainedNetwork
from ferjax.training.config_checks import from_dict, validate
from ferjax.training.groups import GroupedMetrics
from ferjax.training.inputs import device_batches, preprocess_of
from ferjax.training.report import Report, ReportError, check_page, write_results
from ferjax.training.selection import check_selection
from ferjax.training.sharding import check_batch_size, make_mesh, replicated
from ferjax.training.state import Variables
from ferjax.training.step import EvalStep, make_eval_step
from ferjax.training.watched import predictions_of, workdir_of, write_evaluation_report
from ferjax.weights.opening import open_weights


def evaluate(
  eval_step: EvalStep,
  variables: Variables,
  source: Source,
  config: Config,
  task: Task[Any, Any, Any, Accumulator],
  mesh: jax.sharding.Mesh,
  *,
  ten_crop: bool = False,
  groups: GroupedMetrics | None = None,
) -> tuple[dict[str, float], Accumulator]:
  """Evaluates all records of `source` once.

  Args:
    eval_step: from `make_eval_step`, for the same mesh.
    variables: of the model, replicated over the mesh.
    source: the records.
    config: `data` and `eval` are used.
    task: defines the metrics.
    mesh: the devices.
    ten_crop: evaluates ten views of every image; classifiers only.
    groups: accumulates the same predictions by group.

  Returns:
    The metrics by name (those of `task.metrics()`, the names of `Loss.scalars`, and
    `skipped_records`), and the accumulator that they were computed from, for plots.
  """
  accumulator, skipped = task.metrics(), 0
  losses: list[Loss] = []
  dataset = eval_dataset(
    source,
    config.data,
    batch_size=config.eval.batch_size,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    ten_crop=ten_crop,
  )

  def step(batch):
    log_bad_records(source, batch.host)
    return eval_step(variables, batch.arrays)

  with Progress(
    -(-len(source) // config.eval.batch_size),
    "batch",
    task="evaluation",
    show=jax.process_index() == 0,
    keep=False,
  ) as progress:
    iterator = device_batches(dataset, mesh)
    try:
      for predictions, loss, truth in _fetch_behind(map(step, iterator)):
        accumulator.add(predictions, truth)
        if groups is not None:
          groups.add(predictions, truth)
        losses.append(loss)
        skipped += int(np.sum(truth["skipped"]))
        progress.update()
    finally:
      close(iterator, config.data)
  mean_loss = {name: float(x) for name, x in merge_losses(losses).scalars().items()}
  metrics = {**accumulator.compute(), **mean_loss, "skipped_records": float(skipped)}
  return metrics, accumulator


def _fetch_behind(results: Iterable[Any]) -> Iterator[Any]:
  """Yields each result on the host, after the next step has been dispatched.

  So the device computes while the host waits for a result and adds it to the metrics.
  """
  in_flight: deque[Any] = deque()
  for result in results:
    in_flight.append(result)
    if len(in_flight) > 1:
      yield jax.device_get(in_flight.popleft())
  while in_flight:
    yield jax.device_get(in_flight.popleft())


def log_bad_records(source: Source, batch: dict[str, np.ndarray]) -> int:
  """Logs the bad records skipped in a batch; returns their number."""
  skipped = batch["index"][batch["skipped"]]
  for index in skipped:
    _log_once(source.origin(int(index)))
  return len(skipped)


@functools.cache
def _log_once(origin: str) -> None:
  """A bad record recurs every epoch; it is counted each time but logged once."""
  logging.warning("skipped bad record: %s", origin)


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """An opened network with the data to evaluate it on; `open_evaluation` makes it.

  All evaluations use one compiled program.
  """

  opened: TrainedNetwork
  config: Config
  task: Task[Any, Any, Any, Any]
  mesh: jax.sharding.Mesh
  step: EvalStep
  variables: Variables
  source: Source
  split: str
  folder: pathlib.Path

  @property
  def ten_crop(self) -> bool:
    return self.config.eval.ten_crop and self.split == "test"

  def run(
    self, source: Source, groups: GroupedMetrics | None = None
  ) -> tuple[dict[str, float], Any]:
    """Evaluates records as `evaluate` does."""
    return evaluate(
      self.step,
      self.variables,
      source,
      self.config,
      self.task,
      self.mesh,
      ten_crop=self.ten_crop,
      groups=groups,
    )

  def report(self) -> Report:
    """Evaluates the source; writes eval.json, predictions, the task's plots, the groups' tables.

    Raises:
      ValueError: a column of `data.group_columns` that makes no groups.
      ReportError: writing failed after the evaluation.
    """
    columns = self.config.data.group_columns
    attributes = attributes_of(self.source, columns)
    grouped = GroupedMetrics(self.task, attributes, named=bool(columns)) if attributes else None
    metrics, accumulator = self.run(self.source, grouped)
    groups = None if grouped is None else grouped.report()
    path, meta = self.opened.name, self.opened.meta
    done = Report(metrics, pathlib.Path(path), self.folder, meta["selection"], groups)
    if jax.process_index() != 0:
      return done
    content = {"checkpoint": str(path), "step": meta["step"], "epoch": meta["epoch"], **metrics}
    content |= {"split": self.split, "ten_crop": self.ten_crop, "selection": meta["selection"]}
    predictions = predictions_of(accumulator, metrics, self.source, self.opened, self.split)
    done = dataclasses.replace(done, predictions=predictions, content=content)
    try:
      write_results(done)
      self.task.write_report(accumulator, self.source, self.folder)
    except OSError as error:
      raise ReportError(done, error) from error
    return done

  def write_page(self, path: str | os.PathLike, report: Report) -> None:
    """Writes a report of this evaluation as one HTML file, with what its folder contains.

    Raises:
      ReportError: it cannot be written.
    """
    try:
      write_evaluation_report(path, report.predictions, self.source, self.opened, self.folder)
    except OSError as error:
      raise ReportError(report, error) from error


def eval_checkpoint(
  checkpoint: str | os.PathLike | TrainedNetwork,
  config: Config | None = None,
  *,
  output: str | os.PathLike = "",
  step: Step = None,
  split: str = "val",
  report: str | os.PathLike = "",
) -> Report:
  """Evaluates a checkpoint and writes eval.json, its predictions and the plots of its task.

  Arguments and errors as for `open_evaluation` and `Evaluation.report`; `report` is an HTML file to
  write, or empty.
  """
  if jax.process_index() == 0:
    check_page(report)
  evaluation = open_evaluation(checkpoint, config, output=output, step=step, split=split)
  done = evaluation.report()
  if report and jax.process_index() == 0:
    evaluation.write_page(report, done)
  return done


def open_evaluation(
  checkpoint: str | os.PathLike | TrainedNetwork,
  config: Config | None = None,
  *,
  output: str | os.PathLike = "",
  step: Step = None,
  split: str = "val",
) -> Evaluation:
  """Opens a checkpoint and the data to evaluate it on.

  Args:
    checkpoint: as for `ferjax.weights.open_weights`; by default the best of several steps.
    config: gives `data` and `eval`; None: those of the training run, which known weights and
      weights files do not have. Model and preprocessing are always the checkpoint's.
    output: folder for the files; empty: `eval` (or the split's name) in the workdir, or here for
      known weights and weights files.
    step: as for `ferjax.weights.open_weights`.
    split: "val" or "test".

  Raises:
    ValueError: the config's class names are not the model's, its data are for another task, weights
      without a config, or this version cannot read the checkpoint.
    FileNotFoundError: the checkpoint does not exist.
    OSError: the output folder is not writable; this is checked before the evaluation.
  """
  opened = open_weights(checkpoint, step=step)
  path, meta = opened.name, opened.meta
  if config is None and not meta.get("config"):  # of weights files and imported networks
    raise ValueError(
      f"{path} does not contain the data of its training; name data to evaluate it on, with "
      "--config and --config.data.dir"
    )
  folder = pathlib.Path(output or workdir_of(opened) / ("eval" if split == "val" else split))
  if jax.process_index() == 0:
    check_writable(folder, [EVALUATION])
  config = _with_model_of(meta, from_dict(meta["config"]) if config is None else config)
  validate(config)
  class_names = tuple(meta["class_names"])
  if tuple(config.data.class_names) != class_names:
    raise ValueError(
      f"data.class_names are {', '.join(config.data.class_names)}, but {path} was trained for "
      f"{', '.join(class_names)}; names and order must match"
    )
  task = create_task(config)
  mesh = make_mesh()
  check_batch_size(config.eval.batch_size, mesh)
  model = opened.build_model(create_model)
  preprocess = preprocess_of(config.data)
  eval_step = make_eval_step(
    model, task, config.eval, config.data.image_size, mesh, preprocess=preprocess
  )
  # Via host memory: an array on one device cannot be moved to other hosts' devices.
  variables = jax.device_put(jax.device_get(opened.variables()), replicated(mesh))
  source = load_source(config.data, split, seed=config.train.seed, task=task_name(config))
  check_source(source, config)
  attributes_of(source, config.data.group_columns)  # raises an error before the evaluation
  return Evaluation(opened, config, task, mesh, eval_step, variables, source, split, folder)


def check_source(source: Source, config: Config) -> None:
  """Raises a ValueError if the records, such as prepared ones, are for another task."""
  task = task_name(config)
  if source.task != task:
    raise ValueError(
      f"data.source {config.data.source!r} below {config.data.dir!r} has records for "
      f"{source.task}, but the model {config.model.name} is for {task}; choose other data, or "
      f"prepare them with --task {task}"
    )


def selection_note(config: Config) -> str:
  """The note in every report if checkpoints are selected on test data; otherwise empty."""
  return check_selection(config.train.select_on, config.train.select_on_test_reason)


def _with_model_of(meta: NetworkMeta, config: Config) -> Config:
  """A config with the model and preprocessing of a checkpoint, and its classes' frequencies."""
  data = dataclasses.replace(
    config.data,
    image_size=meta["image_size"],
    mean=tuple(meta["mean"]),
    std=tuple(meta["std"]),
    grey=meta["grey"],
    resize=meta["resize"],
  )
  loss = config.loss
  if not loss.class_prior and tuple(config.data.class_names) == tuple(meta["class_names"]):
    loss = dataclasses.replace(loss, class_prior=tuple(meta.get("class_prior", ())))
  return dataclasses.replace(
    config,
    model=model_config(meta["model"]),
    data=data,
    loss=loss,
    optimizer=OptimizerConfig(),  # unused; today's checks might reject the stored one
  )

"""A model's figures on a data set: exact whatever the batch size and the number of devices."""

import dataclasses
import functools
import json
import os
import pathlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging

from ferjax.config import Config
from ferjax.data.datasets import load_source
from ferjax.data.pipeline import eval_dataset
from ferjax.models import create_model
from ferjax.tasks.detection import DetectionTask
from ferjax.tasks.plots import plot_confusion, plot_precision_recall
from ferjax.training.checkpoint import (
  FOLDER,
  Step,
  check_task,
  find_checkpoint,
  load_meta,
  load_variables,
)
from ferjax.training.configuration import from_dict, validate
from ferjax.training.metric_writer import Progress
from ferjax.training.sharding import check_batch_size, make_mesh, replicated, to_global
from ferjax.training.step import make_eval_step


def evaluate(
  eval_step: Callable,
  variables: dict[str, Any],
  source: Any,
  config: Config,
  task: Any,
  mesh: jax.sharding.Mesh,
) -> tuple[dict[str, float], Any]:
  """Runs over all records of `source` once.

  Args:
    eval_step: made by `make_eval_step` for the same mesh.
    variables: of the model, replicated over the mesh.
    source: the records.
    config: `data` and `eval` are used.
    task: gives the metrics.
    mesh: the devices.

  Returns:
    The figures (those of `task.metrics()`, the loss as `loss` and its parts as `loss_<part>`,
    and `skipped_records`), and the metrics that they were computed from, for plots.
  """
  metrics, sums = task.metrics(), Counter()
  dataset = eval_dataset(
    source,
    config.data,
    batch_size=config.eval.batch_size,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  progress = Progress(
    -(-len(source) // config.eval.batch_size),
    done=0,
    unit="batch",
    show=jax.process_index() == 0,
    keep=False,
  )
  iterator = iter(dataset)
  try:
    for batch in iterator:
      name_skipped(source, batch)
      results = eval_step(variables, to_global(batch, mesh))
      detections, losses, truth = jax.device_get(results)
      metrics.add(detections, truth)
      sums.update(_sums(losses))
      sums["skipped_records"] += int(np.sum(truth["skipped"]))
      progress.advance()
  finally:
    iterator.close()
    progress.close()
  return {**metrics.compute(), **_means(sums)}, metrics


def name_skipped(source: Any, batch: dict[str, np.ndarray]) -> int:
  """Names the bad records that a batch left out in the log; returns how many there are."""
  skipped = batch["index"][batch["skipped"]]
  for index in skipped:
    _name_once(source.origin(int(index)))
  return len(skipped)


@functools.cache
def _name_once(origin: str) -> None:
  """A bad record is met again in every epoch; the count goes on, its name is said once."""
  logging.warning("skipped the bad record %s", origin)


def _sums(losses: dict[str, np.ndarray]) -> dict[str, float]:
  """The sums over matched cells that a batch's losses, which are means over them, came from."""
  matched = float(losses["num_matched"])
  sums = {name: float(x) * max(matched, 1) for name, x in losses.items() if _is_loss(name)}
  return {**sums, "num_matched": matched}


def _means(sums: Counter) -> dict[str, float]:
  matched = max(sums["num_matched"], 1)
  return {name: float(x) / matched if _is_loss(name) else float(x) for name, x in sums.items()}


def _is_loss(name: str) -> bool:
  return name.startswith("loss")


@dataclasses.dataclass(frozen=True)
class Report:
  """The figures of a checkpoint, and where they and the plots were written."""

  figures: dict[str, float]
  checkpoint: pathlib.Path
  folder: pathlib.Path


def eval_checkpoint(
  checkpoint: str | os.PathLike,
  config: Config | None = None,
  *,
  output: str | os.PathLike = "",
  step: Step = None,
) -> Report:
  """Evaluates a checkpoint and writes eval.json, precision_recall.png and confusion.png.

  Args:
    checkpoint: as for `load_variables`; of several steps the best.
    config: whose `data` (split "val") and `eval` to use; None: those that the checkpoint was
      trained with. The model and its image size are always the checkpoint's.
    output: folder for the files; empty: `eval` in the workdir.
    step: as for `load_variables`.

  Raises:
    ValueError: the config's class names are not the model's, or it is for another task.
    FileNotFoundError: there is no such checkpoint.
  """
  path = find_checkpoint(checkpoint, step=step)
  meta = load_meta(path)
  check_task(meta, "detection")
  if config is None:
    config = from_dict(meta["config"])
  data = dataclasses.replace(config.data, image_size=meta["image_size"])
  config = dataclasses.replace(config, data=data)
  validate(config)
  class_names = tuple(meta["class_names"])
  if tuple(config.data.class_names) != class_names:
    raise ValueError(
      f"data.class_names are {', '.join(config.data.class_names)}, but {path} was trained for "
      f"{', '.join(class_names)}; names and order must be the same"
    )
  task = DetectionTask(class_names)
  mesh = make_mesh()
  check_batch_size(config.eval.batch_size, mesh)
  model = create_model(num_classes=len(class_names), **meta["model"])
  eval_step = make_eval_step(model, task, config.eval, config.data.image_size, mesh)
  # By way of host memory: an array of one device cannot be spread over those of other hosts.
  variables = jax.device_put(jax.device_get(load_variables(path)), replicated(mesh))
  source = load_source(config.data, "val", seed=config.train.seed)
  figures, metrics = evaluate(eval_step, variables, source, config, task, mesh)

  workdir = path.parent.parent if path.parent.name == FOLDER else path.parent
  folder = pathlib.Path(output) if output else pathlib.Path(workdir) / "eval"
  if jax.process_index() == 0:
    _write(folder, path, meta, figures, metrics)
  return Report(figures, pathlib.Path(path), folder)


def _write(folder: pathlib.Path, path, meta, figures, metrics) -> None:
  folder.mkdir(parents=True, exist_ok=True)
  content = {"checkpoint": str(path), "step": meta["step"], "epoch": meta["epoch"], **figures}
  (folder / "eval.json").write_text(json.dumps(content, indent=2) + "\n")
  plot_precision_recall(metrics, folder / "precision_recall.png")
  plot_confusion(metrics.confusion_matrix(), metrics.class_names, folder / "confusion.png")

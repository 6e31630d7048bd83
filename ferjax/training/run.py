"""Training from a config to metrics: one run, or one for each of several seeds."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import numpy as np

from ferjax.checkpoint import open_checkpoint
from ferjax.config import Config, DataConfig
from ferjax.data.loading import load_source
from ferjax.data.mixture import MixedSource
from ferjax.data.samplers import class_frequencies
from ferjax.data.sources import LabelledSource, Source
from ferjax.models import create_model
from ferjax.models.options import model_arguments
from ferjax.output import atomic_writer, check_writable
from ferjax.progress import Progress
from ferjax.tasks import create_task, task_name
from ferjax.tasks.detection.metrics import FACE_AP
from ferjax.training.config_checks import validate
from ferjax.training.evaluation import check_source, eval_checkpoint, selection_note
from ferjax.training.loop import Trainer
from ferjax.training.metric_writer import format_table, is_headline
from ferjax.training.watched import write_training_report

SUMMARY = "seeds.json"


def train(config: Config, workdir: str | os.PathLike) -> dict[str, float]:
  """Trains to the end, or resumes the run in `workdir`.

  If the config names test data, the best checkpoint on the validation split is evaluated on them
  once, at the end. With `train.seeds` there is a run for each seed, in `<workdir>/seed_<n>`, and
  `seeds.json` has the mean and standard deviation of their metrics.

  Returns:
    The metrics of the last evaluation, and those of the test split as `test/<name>`; for several
    seeds, their means.

  Raises:
    ValueError: an invalid config, missing data, or a workdir that contains a different run.
    OSError: the workdir cannot be written; this is tried first.
    NonFiniteError: training diverged; the message gives the steps.
    Interrupted: stopped by a signal, after saving.
  """
  validate(config)
  if jax.process_index() == 0:
    check_writable(os.path.expanduser(workdir))
  if config.train.seeds:
    return _train_seeds(config, pathlib.Path(workdir).expanduser())
  metrics, test_metrics = _train_once(config, workdir)
  return metrics | test_metrics


def _train_once(
  config: Config, workdir: str | os.PathLike
) -> tuple[dict[str, float], dict[str, float]]:
  """The metrics of the last evaluation of one run, and those of the test split."""
  with Progress(None, task="opening the data", show=jax.process_index() == 0, keep=False):
    train_source = load_split(config, "train")
    val_source = load_split(config, config.train.select_on)
  config = with_class_prior(config, train_source)
  task = create_task(config)
  model = create_model(num_classes=len(task.class_names), **model_arguments(config.model))
  check_source(train_source, config)
  note = selection_note(config)
  if note and jax.process_index() == 0:
    print(f"warning: {note}")
  if isinstance(train_source, MixedSource) and jax.process_index() == 0:
    print(f"Training examples: {train_source.describe()}")
  if has_test(config.data):
    load_split(config, "test")  # reports its errors early
  _check_boxes(val_source, config, config.train.select_by or task.primary_metric)
  trainer = Trainer(config, workdir, model, task, train_source, val_source)
  try:
    metrics = trainer.run()
  finally:
    trainer.close()
  test_metrics = _test(config, workdir)
  if jax.process_index() == 0:
    test = {name.removeprefix("test/"): x for name, x in test_metrics.items()}
    write_training_report(workdir, val_source, metric=trainer.metric, test=test)
  return metrics, test_metrics


def load_split(config: Config, split: str) -> Source:
  """Opens a split of a run."""
  return load_source(
    config.data,
    split,
    seed=config.train.seed,
    task=task_name(config),
    validates=config.train.select_on == "val",
  )


def with_class_prior(config: Config, source: Source) -> Config:
  """The config with the classes' frequencies in training, if it does not set them itself."""
  if config.loss.class_prior or source.task != "classification":
    return config
  balance = config.data.balance_power if config.data.balance else 0.0
  prior = tuple(class_frequencies(cast(LabelledSource, source), balance).tolist())
  return dataclasses.replace(config, loss=dataclasses.replace(config.loss, class_prior=prior))


def has_test(config: DataConfig) -> bool:
  """Whether the config names a test split."""
  return bool(config.test) or config.test_examples > 0


def _test(config: Config, workdir: str | os.PathLike) -> dict[str, float]:
  """The test metrics of the best checkpoint, also written to `<workdir>/test`."""
  if not has_test(config.data):
    return {}
  report = eval_checkpoint(workdir, config, split="test")
  if jax.process_index() == 0:
    table = format_table(report.metrics, selection=report.selection)
    print(f"Test metrics of {report.checkpoint}:\n{table}")
  return {f"test/{name}": value for name, value in report.metrics.items()}


def _train_seeds(config: Config, workdir: pathlib.Path) -> dict[str, float]:
  runs = []
  for seed in config.train.seeds:
    one = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed, seeds=()))
    folder = workdir / f"seed_{seed}"
    if jax.process_index() == 0:
      print(f"Seed {seed}: {folder}")
    _, test_metrics = _train_once(one, folder)
    runs.append(open_checkpoint(folder, step="best").meta["metrics"] | test_metrics)
  summary = summarize(runs)
  if jax.process_index() == 0:
    note = selection_note(config)
    content = {"seeds": list(config.train.seeds), "selection": note, **summary}
    with atomic_writer(workdir / SUMMARY) as file:
      file.write(json.dumps(content, indent=2) + "\n")
    print(f"{len(runs)} seeds, each with its best checkpoint:\n{_table(summary, note)}")
  return summary["mean"]


def summarize(runs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
  """Mean and (n - 1) standard deviation of each metric that all runs have."""
  names = [name for name in runs[0] if all(name in run for run in runs)]
  values = {name: np.array([run[name] for run in runs]) for name in names}
  spread = {name: float(x.std(ddof=1)) if len(runs) > 1 else 0.0 for name, x in values.items()}
  return {
    "mean": {name: float(x.mean()) for name, x in values.items()},
    "std": spread,
    "runs": [{name: run[name] for name in names} for run in runs],
  }


def _table(summary: Mapping[str, Any], note: str) -> str:
  """The headline metrics; the file also has the metrics of each class."""
  mean, std = summary["mean"], summary["std"]
  names = [name for name in mean if is_headline(name.removeprefix("test/"))]
  width = max(map(len, names))
  rows = [f"  {name:<{width}}  {mean[name]:.4f} +- {std[name]:.4f}" for name in names]
  return "\n".join([f"  {note}", *rows] if note else rows)


def _check_boxes(source: Source, config: Config, metric: str) -> None:
  """Raises a ValueError if `metric` is not defined for the boxes of the validation split."""
  # Not every source has these attributes; synthetic scenes always have labelled faces.
  if getattr(source, "max_boxes", 1) == 0:
    raise ValueError(
      f"none of the {len(source)} records of the validation split has a box, so there is nothing "
      "to evaluate; annotate some of them, or name another split with data.val "
      f"({config.data.val!r})"
    )
  if getattr(source, "labelled_boxes", 1) == 0 and metric != FACE_AP:
    raise ValueError(
      f"no box of the validation split has a class, so {metric} is not defined; label some of "
      f"them, or select checkpoints by the faces alone: --config.train.select_by={FACE_AP}"
    )

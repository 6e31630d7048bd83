"""Runs side by side: what differs between them, and whether one is better."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ferjax.reports.files import CONFIG, RunFiles, read_run
from ferjax.reports.predictions import FILE, Predictions, read_predictions
from ferjax.tasks.classification import resampling as classification
from ferjax.tasks.classification.metrics import ClassificationMetrics
from ferjax.tasks.detection import resampling as detection
from ferjax.tasks.detection.metrics import FACE_AP, DetectionMetrics
from ferjax.tasks.resampling import Estimate

# Metrics with intervals, the most important first.
METRICS: Mapping[str, tuple[str, ...]] = {
  "classification": ("accuracy", "balanced_accuracy", "macro_f1"),
  "detection": ("map50", FACE_AP, "expression_accuracy"),
}


@dataclasses.dataclass(frozen=True)
class Run:
  """A run, or the results of an evaluation.

  Attributes:
    name: of the run among those that are compared.
    files: config and curves; empty for an evaluation of known weights.
    predictions: of the best checkpoint, or of the evaluated one.
    estimates: metrics with their intervals.
  """

  name: str
  files: RunFiles
  predictions: Predictions
  estimates: Mapping[str, Estimate]


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Several runs on the same records.

  Attributes:
    runs: the first one is the one that the others are compared with.
    config: field of the config -> its value in each run, for fields that differ.
    differences: of each further run, metric -> its value minus that of the first run.
  """

  runs: Sequence[Run]
  config: Mapping[str, Sequence[Any]]
  differences: Sequence[Mapping[str, Estimate]]

  @property
  def task(self) -> str:
    return self.runs[0].predictions.task

  def as_json(self) -> dict[str, Any]:
    """Plain values; what is not defined is None."""
    return {
      "task": self.task,
      "records": len(self.runs[0].predictions.records),
      "split": self.runs[0].predictions.split,
      "runs": [
        {
          "name": run.name,
          "checkpoint": run.predictions.checkpoint,
          "step": run.predictions.step,
          "selection": run.predictions.selection,
          "metrics": {name: _plain(x) for name, x in run.estimates.items()},
        }
        for run in self.runs
      ],
      "config": {name: list(values) for name, values in self.config.items()},
      "differences": [
        {
          "run": run.name,
          "from": self.runs[0].name,
          "metrics": {
            name: {**_plain(x), "excludes_zero": x.excludes_zero} for name, x in values.items()
          },
        }
        for run, values in zip(self.runs[1:], self.differences, strict=True)
      ],
    }


def compare(folders: Sequence[str | os.PathLike]) -> Comparison:
  """Compares two or more runs.

  Args:
    folders: workdirs, whose best checkpoints are compared, or folders with the results of
      `ferjax evaluate`.

  Raises:
    ValueError: fewer than two runs, a folder that is not one, or runs that were evaluated on other
      records, or for other classes; the message says what to do.
  """
  if len(folders) < 2:
    raise ValueError(f"{len(folders)} run is given; expected two or more")
  paths = [pathlib.Path(folder).expanduser() for folder in folders]
  runs = [_open(path, name) for path, name in zip(paths, _names(paths), strict=True)]
  for run in runs[1:]:
    _check_same_records(runs[0], run)
  return Comparison(
    runs,
    _config_differences(runs),
    [_differences(runs[0].predictions.metrics, run.predictions.metrics) for run in runs[1:]],
  )


def _open(folder: pathlib.Path, name: str) -> Run:
  if not folder.is_dir():
    raise ValueError(
      f"{folder}: no such folder; expected a workdir or the results of an evaluation"
    )
  if seeds := sorted(path.parent.name for path in folder.glob(f"seed_*/{FILE}")):
    raise ValueError(
      f"{folder} has a run for each of several seeds; compare {', '.join(seeds)} in it"
    )
  file = folder / FILE
  if not file.exists():
    raise ValueError(
      f"{folder} has no {FILE}, so its predictions are not known; write it with ferjax evaluate "
      f"--workdir {folder}, and pass {folder / 'eval'}"
    )
  predictions = read_predictions(file)
  # The results of an evaluation are in a folder of the workdir.
  workdir = folder if (folder / CONFIG).exists() else folder.parent
  return Run(name, read_run(workdir), predictions, _estimates(predictions))


def _names(paths: Sequence[pathlib.Path]) -> list[str]:
  """The last parts of the paths that tell them apart."""
  parts = [path.absolute().parts for path in paths]
  for length in range(1, max(map(len, parts)) + 1):
    names = [os.path.join(*x[-length:]) for x in parts]
    if len(set(names)) == len(names):
      return names
  raise ValueError(f"{paths[0]} is given twice; expected different runs")


def _check_same_records(first: Run, other: Run) -> None:
  a, b = first.predictions, other.predictions
  for what, mine, theirs in (
    ("tasks", a.task, b.task),
    ("classes", ", ".join(a.metrics.class_names), ", ".join(b.metrics.class_names)),
  ):
    if mine != theirs:
      raise ValueError(
        f"{first.name} and {other.name} have different {what}: {mine}, and {theirs}; compare runs "
        "with the same"
      )
  if not np.array_equal(a.records, b.records):
    shared = len(np.intersect1d(a.records, b.records))
    raise ValueError(
      f"{first.name} was evaluated on {len(a.records):,} records and {other.name} on "
      f"{len(b.records):,}, of which {shared:,} are the same; evaluate both on the same data, with "
      "ferjax evaluate --workdir DIR --config FILE --output RESULTS, and compare the results"
    )


def _estimates(predictions: Predictions) -> dict[str, Estimate]:
  if isinstance(predictions.metrics, DetectionMetrics):
    return detection.intervals(predictions.metrics)
  values = predictions.values
  return {
    name: Estimate(values[name], values[f"{name}_low"], values[f"{name}_high"])
    for name in METRICS["classification"]
  }


def _differences(
  first: ClassificationMetrics | DetectionMetrics,
  second: ClassificationMetrics | DetectionMetrics,
) -> dict[str, Estimate]:
  if isinstance(first, DetectionMetrics) and isinstance(second, DetectionMetrics):
    return detection.differences(first, second)
  if isinstance(first, ClassificationMetrics) and isinstance(second, ClassificationMetrics):
    return classification.differences(first, second)
  raise ValueError("a classifier and a detector cannot be compared")


def _config_differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
  configs = [run.files.config for run in runs if run.files.config]
  if len(configs) < len(runs):  # known weights have none
    return {}
  names = dict.fromkeys(name for config in configs for name in config)
  rows = {name: [config.get(name) for config in configs] for name in names}
  return {name: values for name, values in rows.items() if any(x != values[0] for x in values)}


def _plain(estimate: Estimate) -> dict[str, float | None]:
  return {name: None if x != x else x for name, x in estimate._asdict().items()}

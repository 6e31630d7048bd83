"""The files of a run by which people watch it: curves, the best predictions, the report."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ferjax.checkpoint import FOLDER, Checkpoint, load_meta
from ferjax.data.sources import Source
from ferjax.reports.files import EVALUATION, REPORT, best_predictions, read_json
from ferjax.reports.history import read_history
from ferjax.reports.predictions import FILE, Predictions, has_predictions, record_ids
from ferjax.reports.report import write_report
from ferjax.trained import TrainedNetwork
from ferjax.training.metric_writer import write_errors
from ferjax.training.resume import versions
from ferjax.training.run_state import Position


class Watched:
  """Draws the curves after every evaluation, and keeps the predictions of the best one.

  Only the first host writes. The files are functions of the evaluations, so a run that is killed
  and resumed writes the same ones.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    source: Source,
    *,
    metric: str,
    split: str,
    selection: str,
    curves: bool,
  ):
    """Writes nothing.

    Args:
      workdir: of the run.
      source: the evaluated records.
      metric: that selects checkpoints.
      split: of the records.
      selection: the note for checkpoints that are selected on test data, or "".
      curves: whether to draw.
    """
    self._workdir, self._source, self._metric = workdir, source, metric
    self._split, self._selection, self._curves = split, selection, curves
    self._records: np.ndarray | None = None

  def note(self, position: Position, accumulator: Any, *, is_best: bool) -> None:
    """Writes the files after an evaluation, which `metrics.jsonl` already has.

    `is_best` says whether its checkpoint will be the best.

    Raises:
      OSError: they cannot be written; it names the file.
    """
    if jax.process_index() != 0:
      return
    if is_best and has_predictions(accumulator):
      with write_errors(self._workdir / FILE):
        self._predictions(position, accumulator).write(self._workdir / FILE)
    if self._curves:
      # Imported here because Matplotlib takes a second.
      from ferjax.reports.curves import CURVES, plot_curves

      with write_errors(self._workdir / CURVES):
        plot_curves({"": read_history(self._workdir)}, self._workdir / CURVES, metric=self._metric)

  def _predictions(self, position: Position, accumulator: Any) -> Predictions:
    if self._records is None:  # of a prepared set, it takes seconds
      self._records = record_ids(self._source, np.arange(len(self._source)))
    return Predictions(
      accumulator,
      position.metrics,
      self._records[accumulator.arrays()["index"]],
      checkpoint=str(self._workdir / FOLDER / str(position.step)),
      step=position.step,
      epoch=position.epoch,
      split=self._split,
      selection=self._selection,
    )


def predictions_of(
  accumulator: Any,
  values: Mapping[str, float],
  source: Source,
  opened: TrainedNetwork,
  split: str,
) -> Predictions | None:
  """The predictions of weights; None for a task of another package, which cannot be written."""
  if not has_predictions(accumulator):
    return None
  return Predictions(
    accumulator,
    values,
    record_ids(source, accumulator.arrays()["index"]),
    checkpoint=str(opened.name),
    step=opened.meta["step"],
    epoch=opened.meta["epoch"],
    split=split,
    selection=opened.meta["selection"],
  )


def write_training_report(
  workdir: str | os.PathLike, source: Source, *, metric: str, test: Mapping[str, float]
) -> None:
  """Writes report.html about the best checkpoint of a run.

  Args:
    workdir: of the run.
    source: the records of its evaluations.
    metric: that selects checkpoints.
    test: metrics of the test split, if there is one.

  Raises:
    OSError: it cannot be written.
  """
  folder = pathlib.Path(workdir).expanduser()
  step = load_meta(folder, step="best")["step"]
  results = folder / "eval"
  evaluated = read_json(results / EVALUATION).get("step")
  with write_errors(folder / REPORT):
    write_report(
      folder / REPORT,
      best_predictions(folder, step),
      source,
      workdir=folder,
      results=results if evaluated == step else None,
      test=test,
      metric=metric,
    )


def write_evaluation_report(
  path: str | os.PathLike,
  predictions: Predictions | None,
  source: Source,
  opened: TrainedNetwork,
  results: pathlib.Path,
) -> None:
  """Writes a report of an evaluation; with the curves, if the weights are a checkpoint of a run.

  Raises:
    OSError: it cannot be written.
  """
  write_report(
    path,
    predictions,
    source,
    workdir=workdir_of(opened) if isinstance(opened, Checkpoint) else None,
    results=results,
    environment=versions(),
  )


def workdir_of(opened: TrainedNetwork) -> pathlib.Path:
  """The workdir of a checkpoint; for other weights, the current folder."""
  if not isinstance(opened, Checkpoint):
    return pathlib.Path()
  parent = pathlib.Path(opened.folder).parent
  return parent.parent if parent.name == FOLDER else parent

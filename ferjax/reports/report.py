"""The report of a training run or of an evaluation: one HTML file."""

import datetime
import math
import os
import pathlib
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence

from ferjax.reports import classification, detection
from ferjax.reports.files import ROBUSTNESS, RunFiles, read_json, read_run
from ferjax.reports.history import History
from ferjax.reports.page import note, section, write_page
from ferjax.reports.predictions import Predictions, Records
from ferjax.reports.sections import (
  config_section,
  drawn,
  environment_section,
  interval,
  metric_table,
  robustness_section,
  summary_section,
)
from ferjax.tasks.classification.metrics import ClassificationMetrics

_NO_RUN = RunFiles({}, {}, {}, History([]))


def write_report(
  path: str | os.PathLike,
  predictions: Predictions | None,
  source: Records | None,
  *,
  workdir: str | os.PathLike | None = None,
  results: str | os.PathLike | None = None,
  environment: Mapping[str, str] | None = None,
  test: Mapping[str, float] | None = None,
  metric: str = "",
) -> None:
  """Writes a report; every part whose data are missing is left out.

  Args:
    path: of the file, which is replaced when the new one is complete.
    predictions: of the checkpoint; None leaves out everything about them.
    source: the records that they are for; None likewise.
    workdir: of the run, whose config, curves and environment are shown.
    results: folder that may contain robustness.json.
    environment: versions and devices, instead of those in the workdir.
    test: metrics of the test split.
    metric: that selects checkpoints; it is marked in the curves.

  Raises:
    ValueError: a file of the run is damaged; the message names it.
    OSError: the file cannot be written.
  """
  run = _NO_RUN if workdir is None else read_run(workdir)
  if environment is not None:
    run = RunFiles(run.config, environment, run.summary, run.history)
  robustness = {} if results is None else read_json(pathlib.Path(results) / ROBUSTNESS)
  content = [
    *_about(predictions),
    *summary_section(run),
    *_curves(run, metric),
    *_evaluation(predictions, source),
    *_test(test or {}),
    *robustness_section(robustness),
    *config_section(run),
    *environment_section(run),
  ]
  write_page(path, _title(predictions, workdir), _subtitle(run), content)


def _title(predictions: Predictions | None, workdir: str | os.PathLike | None) -> str:
  if workdir is not None:
    return f"Report of {pathlib.Path(workdir).absolute().name}"
  return f"Report of {predictions.checkpoint}" if predictions is not None else "Report"


def _subtitle(run: RunFiles) -> str:
  now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
  version = run.environment.get("ferjax", "")
  return f"Written on {now} by ferjax {version}".rstrip()


def _about(predictions: Predictions | None) -> list[ET.Element]:
  if predictions is None:
    return [
      note(
        "The predictions of the best checkpoint are not in the workdir. ferjax evaluate --workdir "
        "DIR --report FILE writes a report with them.",
        warning=True,
      )
    ]
  split = {"val": "validation"}.get(predictions.split, predictions.split)
  about = note(
    f"Checkpoint of step {predictions.step:,} (epoch {predictions.epoch:.1f}) on the {split} split."
  )
  selection = [note(predictions.selection, warning=True)] if predictions.selection else []
  return [about, *selection]


def _curves(run: RunFiles, metric: str) -> list[ET.Element]:
  if not run.history.lines:
    return []
  from ferjax.reports.curves import plot_curves

  image = drawn(
    lambda path: plot_curves({"": run.history}, path, metric=metric),
    "loss, scores and learning rate over the steps",
  )
  return [section("Curves", image)]


def _evaluation(predictions: Predictions | None, source: Records | None) -> Sequence[ET.Element]:
  if predictions is None or source is None:
    return []
  metrics, values = predictions.metrics, predictions.values
  if isinstance(metrics, ClassificationMetrics):
    return classification.sections(metrics, values, source)
  return detection.sections(metrics, values, source)


def _test(metrics: Mapping[str, float]) -> list[ET.Element]:
  """The metrics of the test split, without those of classes."""
  if not metrics:
    return []
  bounds = ("_low", "_high")
  shown = [name for name in metrics if "/" not in name and not name.endswith(bounds)]
  counts = [name for name in shown if name.startswith("num_") or name == "skipped_records"]
  rows = [
    (x, metrics[x], interval(*(metrics.get(f"{x}{bound}", math.nan) for bound in bounds)))
    for x in shown
    if x not in counts
  ]
  return [section("Test split", metric_table(rows, {x: metrics[x] for x in counts}))]

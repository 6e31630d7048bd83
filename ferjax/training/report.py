"""The report of an evaluation: its metrics, and the files that they are written to."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from ferjax.output import atomic_writer, check_writable
from ferjax.reports.files import EVALUATION
from ferjax.reports.predictions import FILE as PREDICTIONS
from ferjax.reports.predictions import Predictions
from ferjax.training.groups import GroupReport


@dataclasses.dataclass(frozen=True)
class Report:
  """The metrics of a checkpoint, and where they and the plots are written.

  `selection` is the note for a checkpoint that was selected on test data; otherwise empty. `groups`
  has the metrics by group, if the records have attributes; `predictions` those of each record, on
  the first host.
  """

  metrics: dict[str, float]
  checkpoint: pathlib.Path
  folder: pathlib.Path
  selection: str
  groups: GroupReport | None = None
  predictions: Predictions | None = None


class ReportError(OSError):
  """A report could not be written; `report` has its metrics."""

  def __init__(self, report: Report, error: OSError):
    super().__init__(f"the report cannot be written to {report.folder}: {error}")
    self.report = report


def write_results(
  folder: pathlib.Path, content: Mapping[str, Any], predictions: Predictions | None
) -> None:
  """Writes eval.json and, if there are any, the predictions; raises an OSError."""
  folder.mkdir(parents=True, exist_ok=True)
  with atomic_writer(folder / EVALUATION) as file:
    file.write(json.dumps(content, indent=2) + "\n")
  if predictions is not None:
    predictions.write(folder / PREDICTIONS)


def check_page(path: str | os.PathLike) -> None:
  """Raises an OSError if a page cannot be written there; "" is none."""
  if path:
    file = pathlib.Path(path).absolute()
    check_writable(file.parent, [file.name])

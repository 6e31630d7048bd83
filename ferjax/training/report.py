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
  has the metrics by group, if the records have attributes. On the first host, `predictions` are
  those of each record, and `content` is what eval.json contains.
  """

  metrics: dict[str, float]
  checkpoint: pathlib.Path
  folder: pathlib.Path
  selection: str
  groups: GroupReport | None = None
  predictions: Predictions | None = None
  content: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def as_json(self) -> dict[str, Any]:
    """`content`, the folder, and the metrics by group, as types of JSON."""
    groups = {} if self.groups is None else {"groups": self.groups.as_json()}
    return {**self.content, "folder": str(self.folder), **groups}


class ReportError(OSError):
  """A report could not be written; `report` has its metrics."""

  def __init__(self, report: Report, error: OSError):
    super().__init__(f"the report cannot be written to {report.folder}: {error}")
    self.report = report


def write_results(report: Report) -> None:
  """Writes eval.json and, if there are any, predictions and groups; raises an OSError."""
  report.folder.mkdir(parents=True, exist_ok=True)
  with atomic_writer(report.folder / EVALUATION) as file:
    file.write(json.dumps(report.content, indent=2) + "\n")
  if report.predictions is not None:
    report.predictions.write(report.folder / PREDICTIONS)
  if report.groups is not None:
    report.groups.write(report.folder)


def check_page(path: str | os.PathLike) -> None:
  """Raises an OSError if a page cannot be written there; "" is none."""
  if path:
    file = pathlib.Path(path).absolute()
    check_writable(file.parent, [file.name])

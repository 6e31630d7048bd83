"""What a workdir, or a folder of evaluation results, contains for reports."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from ferjax.config import Config, flatten
from ferjax.reports.history import History, read_history
from ferjax.reports.predictions import FILE, Predictions, read_predictions

REPORT = "report.html"
ROBUSTNESS = "robustness.json"
CONFIG, ENVIRONMENT, SUMMARY, EVALUATION = (
  "config.json",
  "environment.json",
  "summary.json",
  "eval.json",
)


@dataclasses.dataclass(frozen=True)
class RunFiles:
  """The files of a run; those that are missing are empty.

  Attributes:
    config: name of a field, such as `train.epochs` -> value.
    environment: versions and devices.
    summary: what the run was about to do, see `ferjax.training.summary`.
    history: metrics over the steps.
  """

  config: Mapping[str, Any]
  environment: Mapping[str, Any]
  summary: Mapping[str, Any]
  history: History

  def changed(self) -> dict[str, Any]:
    """The fields of the config that differ from the defaults."""
    default = plain(dataclasses.asdict(Config()))
    return {name: x for name, x in self.config.items() if name not in default or x != default[name]}


def read_run(workdir: str | os.PathLike) -> RunFiles:
  """Reads the files of a run; ValueError for a damaged one, which it names."""
  folder = pathlib.Path(workdir)
  return RunFiles(
    flatten(read_json(folder / CONFIG)),
    read_json(folder / ENVIRONMENT),
    read_json(folder / SUMMARY),
    read_history(folder),
  )


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """The object in a file; {} if there is no file, ValueError if it contains anything else."""
  if not path.exists():
    return {}
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise ValueError(f"{path} is damaged ({error}); delete it, or write it again") from error
  if not isinstance(content, dict):
    raise ValueError(f"{path} contains {type(content).__name__}; expected an object; delete it")
  return content


def best_predictions(folder: str | os.PathLike, step: int) -> Predictions | None:
  """Those of a checkpoint, if they are in the folder and of this step."""
  path = pathlib.Path(folder) / FILE
  if not path.exists():
    return None
  predictions = read_predictions(path)
  return predictions if predictions.step == step else None


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
  """Flat, with the types that JSON has."""
  return json.loads(json.dumps(flatten(values)))

"""The program of `eval.py` and `ferjax evaluate`: its flags, and what it does."""

import json
from collections.abc import Mapping
from typing import Any

import jax
from absl import flags
from ml_collections import config_flags

from ferjax.allocator import keep_freed_memory
from ferjax.commands.options import parse_step
from ferjax.compilation_cache import enable_compilation_cache
from ferjax.training import command_line
from ferjax.training.evaluation import open_evaluation
from ferjax.training.metric_writer import format_table
from ferjax.training.report import Report, ReportError, check_page
from ferjax.training.robustness import measure_robustness

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Config with the validation data (default: the data of the training run)."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Workdir of a run; evaluates its best checkpoint.")
_CHECKPOINT = flags.DEFINE_string(
  "checkpoint",
  None,
  "Folder of one or several checkpoints, weights file, or name of known weights.",
)
_STEP = flags.DEFINE_string(
  "step", None, "Which of several checkpoints: a step, 'best' or 'latest'."
)
_SPLIT = flags.DEFINE_enum("split", "val", ["val", "test"], "Split to evaluate.")
_OUTPUT = flags.DEFINE_string(
  "output", "", "Folder for the results (default: eval/ in the workdir)."
)
_REPORT = flags.DEFINE_string(
  "report", "", "HTML file to write: metrics, curves, images, in one file (default: none)."
)
_ROBUSTNESS = flags.DEFINE_bool(
  "robustness", False, "Also evaluate distorted images, in five strengths (docs/robustness.md)."
)
_ROBUSTNESS_IMAGES = flags.DEFINE_integer(
  "robustness_images", 0, "With --robustness: size of a random sample of records; 0: all."
)
_JSON = flags.DEFINE_bool("json", False, "Print the metrics as JSON instead of a table.")
flags.mark_flags_as_mutual_exclusive(["workdir", "checkpoint"], required=True)


def main() -> None:
  """Evaluates a checkpoint and prints the table, or one JSON object."""
  if _ROBUSTNESS_IMAGES.value < 0 or (_ROBUSTNESS_IMAGES.value and not _ROBUSTNESS.value):
    raise ValueError(
      f"--robustness-images is {_ROBUSTNESS_IMAGES.value}; expected the size of a sample, with "
      "--robustness, or 0 for all records"
    )
  keep_freed_memory()
  command_line.join_hosts()
  enable_compilation_cache()
  step: Any = None if _STEP.value is None else parse_step(_STEP.value)
  path: Any = _WORKDIR.value if _WORKDIR.value is not None else _CHECKPOINT.value
  page = _REPORT.value
  if jax.process_index() == 0:
    check_page(page)  # before the evaluation
  try:
    evaluation = open_evaluation(
      path, _CONFIG.value, output=_OUTPUT.value, step=step, split=_SPLIT.value
    )
    report = evaluation.report()
  except ReportError as error:
    _print_text(_described(error.report))
    _print_json(error.report.as_json())
    raise
  _print_text(_described(report))
  results, robustness = report.as_json(), None
  if _ROBUSTNESS.value:
    robustness = measure_robustness(evaluation, report.metrics, images=_ROBUSTNESS_IMAGES.value)
    _print_text(f"\n{robustness.table()}\n")
    results["robustness"] = robustness.as_json()
  _print_json(results)  # before the files, which may fail to be written
  if jax.process_index() == 0:
    if robustness is not None:
      robustness.write(report.folder)
    if page:
      evaluation.write_page(page, report)
  _print_text(f"written to {', '.join(filter(None, (str(report.folder), page)))}")


def _described(report: Report) -> str:
  table = format_table(report.metrics, selection=report.selection)
  groups = f"\n{report.groups.summary()}" if report.groups is not None else ""
  return f"{report.checkpoint}\n{table}{groups}"


def _print_text(text: str) -> None:
  """Prints for people, on the first host."""
  if jax.process_index() == 0 and not _JSON.value:
    print(text, flush=True)


def _print_json(results: Mapping[str, Any]) -> None:
  """Prints for programs, if they ask for it, on the first host."""
  if jax.process_index() == 0 and _JSON.value:
    print(json.dumps(results, indent=2), flush=True)

"""The program of `eval.py` and `ferjax evaluate`: its flags, and what it does."""

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
flags.mark_flags_as_mutual_exclusive(["workdir", "checkpoint"], required=True)


def main() -> None:
  """Evaluates a checkpoint and prints the table."""
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
    _print(error.report)
    raise
  _print(report)
  if _ROBUSTNESS.value:
    robustness = measure_robustness(evaluation, report.metrics, images=_ROBUSTNESS_IMAGES.value)
    if jax.process_index() == 0:
      print(f"\n{robustness.table()}\n")
      robustness.write(report.folder)
  if jax.process_index() == 0:
    if page:
      evaluation.write_page(page, report)
    print(f"written to {', '.join(filter(None, (str(report.folder), page)))}")


def _print(report: Report) -> None:
  if jax.process_index() == 0:
    table = format_table(report.metrics, selection=report.selection)
    groups = f"\n{report.groups.summary()}" if report.groups is not None else ""
    print(f"{report.checkpoint}\n{table}{groups}", flush=True)

"""The program of `eval.py` and `ferjax evaluate`: its flags, and what it does."""

from typing import Any

import jax
from absl import flags
from ml_collections import config_flags

from ferjax.allocator import keep_freed_memory
from ferjax.commands.options import parse_step
from ferjax.compilation_cache import enable_compilation_cache
from ferjax.training import command_line
from ferjax.training.evaluation import Report, ReportError, eval_checkpoint
from ferjax.training.metric_writer import format_table

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
flags.mark_flags_as_mutual_exclusive(["workdir", "checkpoint"], required=True)


def main() -> None:
  """Evaluates a checkpoint and prints the table."""
  keep_freed_memory()
  command_line.join_hosts()
  enable_compilation_cache()
  step: Any = None if _STEP.value is None else parse_step(_STEP.value)
  path: Any = _WORKDIR.value if _WORKDIR.value is not None else _CHECKPOINT.value
  try:
    report = eval_checkpoint(
      path,
      _CONFIG.value,
      output=_OUTPUT.value,
      step=step,
      split=_SPLIT.value,
      report=_REPORT.value,
    )
  except ReportError as error:
    _print(error.report)
    raise
  _print(report)
  if jax.process_index() == 0:
    print(f"written to {', '.join(filter(None, (str(report.folder), _REPORT.value)))}")


def _print(report: Report) -> None:
  if jax.process_index() == 0:
    table = format_table(report.metrics, selection=report.selection)
    print(f"{report.checkpoint}\n{table}", flush=True)

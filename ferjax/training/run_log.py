"""The output of a run: terminal, metrics.jsonl and TensorBoard."""

import json
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jaxtyping import Int

from ferjax.config import Config
from ferjax.data.sources import Source
from ferjax.output import atomic_writer
from ferjax.progress import Progress, duration
from ferjax.training.config_checks import to_dict
from ferjax.training.metric_writer import FILE, MetricWriter, write_errors
from ferjax.training.optimizers import parse_group_rates
from ferjax.training.phases import Phase
from ferjax.training.resume import versions
from ferjax.training.run_state import Position
from ferjax.training.step import StepMetrics
from ferjax.training.step_log import Spike, StepLog
from ferjax.training.summary import FILE as SUMMARY
from ferjax.training.summary import examples_left, summary_lines
from ferjax.training.timer import Timer


class RunLog:
  """Shows and writes the metrics of a run that starts or resumes.

  Only the first host writes. The constructor writes config.json and environment.json.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    config: Config,
    *,
    position: Position,
    phases: Sequence[Phase],
    selection: str,
    shown_metrics: Iterable[str],
  ):
    """Opens the files.

    Args:
      workdir: of the run; created if missing.
      config: of the run.
      position: where it starts; lines from after it, of an earlier process, are deleted.
      phases: of the whole run.
      selection: the note for checkpoints that are selected on test data, or "".
      shown_metrics: names of the metrics to show after each evaluation.
    """
    self._selection = selection
    self._shown = tuple(dict.fromkeys(shown_metrics))
    self._steps = StepLog(
      budget=config.train.skip_nonfinite,
      skipped=position.skipped_steps,
      spike_deviations=config.train.spike_deviations,
    )
    self._phases, self._estimated, self._workdir = phases, False, workdir
    is_main = jax.process_index() == 0
    self._writer = None
    if is_main:
      workdir.mkdir(parents=True, exist_ok=True)
      _write_json(workdir / "config.json", to_dict(config))
      _write_json(workdir / "environment.json", versions())
      self._writer = MetricWriter(workdir, step=position.step, evaluated=position.epoch_end_done)
    # Last, because its thread runs until `close`.
    self._progress = Progress(
      phases[-1].end_step, "step", task="training", done=position.step, show=is_main
    )
    if self._writer is not None and self._writer.last_step > position.step:
      self.line(
        f"{FILE} has steps up to {self._writer.last_step}, and the newest checkpoint is of step "
        f"{position.step}: the steps after it are computed again"
      )

  def line(self, text: str) -> None:
    """Prints a permanent line."""
    self._progress.line(text)

  def write_summary(self, summary: Mapping[str, Any], *, first_step: int) -> None:
    """Shows what the run will do, and writes it to summary.json."""
    if self._writer is not None:
      _write_json(self._workdir / SUMMARY, summary)
    self.line("\n".join(summary_lines(summary, first_step=first_step)))

  def add_step(self, step: int, metrics: StepMetrics, records: Int[np.ndarray, "b"]) -> None:
    """Adds the metrics of the step that produced the state `step`, without waiting for them.

    `records` are those of the batch on this host.
    """
    self._steps.add(step, metrics, records)
    self._progress.update()

  def write_steps(self, position: Position, timer: Timer) -> list[Spike]:
    """Writes the means over the steps since the last call; returns the spikes among them.

    Raises:
      NonFiniteError: see `StepLog.drain`.
    """
    means = self._steps.drain()
    if not means:
      return []
    position.skipped_steps = self._steps.skipped
    rate = timer.lap()
    if rate is not None:
      means["images_per_second"] = rate
    means["skipped_records"] = float(position.skipped_records)
    means["skipped_steps"] = float(position.skipped_steps)
    self._write(position, "train", means)
    loss = f"loss {means['loss']:.4f}" if "loss" in means else "every step was skipped"
    speed = f", {rate:.1f} images/s" if rate is not None else ""
    self._progress.note(f"epoch {position.epoch:.2f}, {loss}{speed}")
    if rate is not None and not self._estimated:
      self._estimated = True
      self._show_estimate(examples_left(self._phases, position.step), rate)
    return self._steps.take_spikes()

  def _show_estimate(self, examples: int, rate: float) -> None:
    if examples:
      left = duration(examples / rate)
      self.line(f"estimated time: {left}, excluding evaluation and saving ({rate:.1f} images/s)")

  def write_evaluation(self, position: Position) -> None:
    """Writes the metrics of the last evaluation."""
    metrics = position.metrics
    self._write(position, "eval", metrics, selection=self._selection)
    text = ", ".join(f"{name} {metrics[name]:.4f}" for name in self._shown if name in metrics)
    self.line(f"epoch {position.epoch:.0f}, step {position.step}: {text}")

  def close(self) -> None:
    self._progress.close()
    if self._writer is not None:
      self._writer.close()

  def _write(
    self, position: Position, kind: str, metrics: Mapping[str, float], *, selection: str = ""
  ) -> None:
    if self._writer is not None:
      named = {f"{kind}/{name}": value for name, value in metrics.items()}
      self._writer.write(position.step, position.epoch, named, selection=selection)


def log_skipped(source: Source, split: str) -> list[str]:
  """Logs the records that a source left out; returns at most one line with their number."""
  for reason in source.skipped:
    logging.warning("left out: %s", reason)
  count = len(source.skipped)
  return [f"{count} records left out of the {split} split (listed in the log)"] if count else []


def warnings_about_parts(config: Config, phases: Sequence[Phase]) -> list[str]:
  """Warnings about parts of the network that may not train as the user expects."""
  warnings = []
  fixed = [x for x, f in parse_group_rates(config.optimizer.group_rates).items() if f == 0]
  if fixed:
    warnings.append(
      f"warning: optimizer.group_rates is 0 for {', '.join(fixed)}: BatchNorm's statistics there "
      "are still updated; train.freeze freezes them too, for the parts that it supports"
    )
  if phases[0].frozen != "none" and not config.train.pretrained:
    warnings.append(
      f"warning: the frozen parts ({phases[0].frozen}) are random; pass "
      "--config.train.pretrained=FILE or --config.train.freeze=none"
    )
  return warnings


def print_once(text: str) -> None:
  """Prints a line to stderr, on the first host only."""
  if jax.process_index() == 0:
    print(text, file=sys.stderr)


def _write_json(file: pathlib.Path, content: Mapping[str, object]) -> None:
  with write_errors(file), atomic_writer(file) as output:
    output.write(json.dumps(content, indent=2) + "\n")

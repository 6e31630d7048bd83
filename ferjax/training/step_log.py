"""The metrics of the steps since the last look, left on the device until then."""

import time

import jax
import numpy as np

from ferjax.training.step import StepMetrics


class NonFiniteError(FloatingPointError):
  """The loss or the state of training has become infinite or not a number."""


class StepLog:
  """Collects step metrics without waiting for them, and checks them when they are looked at."""

  def __init__(self):
    self._steps: list[int] = []
    self._metrics: list[StepMetrics] = []
    self._examples = 0
    self._start: float | None = None

  def add(self, step: int, metrics: StepMetrics, examples: int) -> None:
    """Takes the metrics of the step that made the state `step`."""
    self._steps.append(step)
    self._metrics.append(metrics)
    if self._start is None:  # The first step after a pause is not timed: it may compile.
      self._start = time.perf_counter()
    else:
      self._examples += examples

  def pause(self) -> None:
    """Stops the clock until the next step: what follows is not training."""
    self._start, self._examples = None, 0

  def drain(self) -> dict[str, float]:
    """Means over the steps since the last call, the last learning rate, and images_per_second.

    Raises:
      NonFiniteError: the loss or the state was not finite after one of these steps.
    """
    if not self._steps:
      return {}
    steps = jax.device_get(self._metrics)
    self._check(steps)
    rows = [step.scalars() for step in steps]
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    means["learning_rate"] = float(steps[-1].learning_rate)
    now = time.perf_counter()
    if self._examples and self._start is not None:
      means["images_per_second"] = self._examples / (now - self._start)
      self._start, self._examples = now, 0
    self._steps, self._metrics = [], []
    return means

  def _check(self, steps: list[StepMetrics]) -> None:
    bad = [i for i, step in enumerate(steps) if not step.finite]
    if bad:
      first = steps[bad[0]]
      raise NonFiniteError(
        f"training is not finite after step {self._steps[bad[0]]} (loss "
        f"{float(first.loss.total)}, gradient norm {float(first.grad_norm)}); seen "
        f"in {len(bad)} of the steps {self._steps[0]}..{self._steps[-1]}. Nothing of it was "
        "saved. Lower optimizer.learning_rate, set optimizer.clip_norm, or use "
        "model.dtype=float32, and run again: training continues from the last checkpoint"
      )

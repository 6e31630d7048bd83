"""Metrics of the steps since the last log; they stay on the device until they are read."""

import jax
import numpy as np

from ferjax.training.step import StepMetrics


class NonFiniteError(FloatingPointError):
  """The loss or the training state is infinite or NaN."""


class StepLog:
  """Collects step metrics without waiting for them, and checks them when they are read."""

  def __init__(self):
    self._steps: list[int] = []
    self._metrics: list[StepMetrics] = []

  def add(self, step: int, metrics: StepMetrics) -> None:
    """Adds the metrics of the step that produced the state `step`."""
    self._steps.append(step)
    self._metrics.append(metrics)

  def drain(self) -> dict[str, float]:
    """Means over the steps since the last call, and the last learning rate; waits for them.

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
    self._steps, self._metrics = [], []
    return means

  def _check(self, steps: list[StepMetrics]) -> None:
    bad = [i for i, step in enumerate(steps) if not step.finite]
    if bad:
      first = steps[bad[0]]
      raise NonFiniteError(
        f"training is not finite after step {self._steps[bad[0]]} (loss "
        f"{float(first.loss.total)}, gradient norm {float(first.grad_norm)}); non-finite "
        f"in {len(bad)} of the steps {self._steps[0]}..{self._steps[-1]}. The non-finite state was "
        "not saved. Lower optimizer.learning_rate, set optimizer.clip_norm, or use "
        "model.dtype=float32, and run again: training resumes from the last checkpoint"
      )

"""Metrics of the steps since the last log; they stay on the device until they are read."""

import dataclasses

import jax
import numpy as np
from jaxtyping import Int

from ferjax.training.spikes import SpikeDetector
from ferjax.training.step import StepMetrics

_NO_RECORDS = np.zeros(0, np.int32)


class NonFiniteError(FloatingPointError):
  """More gradients than the run may skip are not finite, or its state is not.

  Attributes:
    step: the number of the step that stopped the run.
    loss: of that step.
    grad_norm: of that step.
  """

  def __init__(self, message: str, *, step: int, loss: float, grad_norm: float):
    super().__init__(message)
    self.step, self.loss, self.grad_norm = step, loss, grad_norm


@dataclasses.dataclass(frozen=True)
class Spike:
  """The loss of a step, above the bound for steps like those before it."""

  step: int
  loss: float
  grad_norm: float
  bound: float
  records: Int[np.ndarray, "b"]  # of this host's part of the batch


class StepLog:
  """Collects step metrics without waiting for them, and checks them when they are read.

  Args:
    budget: number of steps with a non-finite gradient that the run may skip.
    skipped: number of those that it has skipped.
    spike_deviations: see `SpikeDetector`.
  """

  def __init__(self, *, budget: int = 0, skipped: int = 0, spike_deviations: float = 0.0):
    self.skipped = skipped
    self._budget = budget
    self._detector = SpikeDetector(spike_deviations)
    self._spikes: list[Spike] = []
    self._steps: list[int] = []
    self._metrics: list[StepMetrics] = []
    self._records: list[np.ndarray] = []

  def add(
    self, step: int, metrics: StepMetrics, records: Int[np.ndarray, "b"] = _NO_RECORDS
  ) -> None:
    """Adds the metrics of the step that produced the state `step`, and its records on this host."""
    self._steps.append(step)
    self._metrics.append(metrics)
    self._records.append(records)

  def drain(self) -> dict[str, float]:
    """Means over the steps since the last call that were not skipped, and the last learning rate.

    Waits for the steps. If all were skipped, there is only the learning rate.

    Raises:
      NonFiniteError: more steps than the budget were skipped, or the state is not finite after one
        of them.
    """
    if not self._steps:
      return {}
    metrics = jax.device_get(self._metrics)
    self._check(metrics)
    self.skipped += sum(bool(step.skipped) for step in metrics)
    self._find_spikes(metrics)
    rows = [step.scalars() for step in metrics if not step.skipped]
    means = {name: float(np.mean([row[name] for row in rows])) for name in (rows or [{}])[0]}
    means["learning_rate"] = float(metrics[-1].learning_rate)
    self._steps, self._metrics, self._records = [], [], []
    return means

  def take_spikes(self) -> list[Spike]:
    """The spikes that were found since the last call."""
    spikes, self._spikes = self._spikes, []
    return spikes

  def _find_spikes(self, metrics: list[StepMetrics]) -> None:
    for number, step, records in zip(self._steps, metrics, self._records, strict=True):
      if step.skipped:
        continue
      loss = float(step.loss.total)
      bound = self._detector.add(loss)
      if bound is not None:
        self._spikes.append(Spike(number, loss, float(step.grad_norm), bound, records))

  def _check(self, metrics: list[StepMetrics]) -> None:
    skipped = self.skipped + np.cumsum([step.skipped for step in metrics])
    bad = [
      i
      for i, step in enumerate(metrics)
      if not step.finite or (step.skipped and skipped[i] > self._budget)
    ]
    if not bad:
      return
    number, first = self._steps[bad[0]], metrics[bad[0]]
    loss, grad_norm = float(first.loss.total), float(first.grad_norm)
    after = f", after {self._budget} skipped steps (train.skip_nonfinite)" if self._budget else ""
    raise NonFiniteError(
      f"training is not finite after step {number} (loss {loss}, gradient norm {grad_norm})"
      f"{after}; non-finite in {len(bad)} of the steps {self._steps[0]}..{self._steps[-1]}. "
      "Nothing that is not finite was saved. Lower optimizer.learning_rate, set "
      "optimizer.clip_norm, use model.dtype=float32, or skip such steps with "
      "train.skip_nonfinite, and run again: training resumes from the last checkpoint",
      step=number,
      loss=loss,
      grad_norm=grad_norm,
    )

"""Spikes: losses far above those of the steps before."""

import collections
import statistics

_WINDOW = 100  # steps that a loss is compared with
_LEAST = 20  # steps before the first comparison
# The standard deviation of a normal distribution is this many median absolute deviations.
_PER_DEVIATION = 1.4826
_LEAST_DEVIATION = 0.02  # of the median: losses that are nearly constant have no spikes below it


class SpikeDetector:
  """Compares each loss with the last 100 before it, by their median and median deviation.

  Unlike mean and standard deviation, these are not moved by the spikes themselves. A resumed run
  starts with an empty window, and compares nothing until it has 20 losses.

  Args:
    deviations: a loss that many robust standard deviations above the median is a spike; 0: none
      is.
  """

  def __init__(self, deviations: float):
    self._deviations = deviations
    self._losses: collections.deque[float] = collections.deque(maxlen=_WINDOW)

  def add(self, loss: float) -> float | None:
    """Adds a finite loss; returns the bound that it exceeds if it is a spike, otherwise None."""
    bound = self._bound()
    self._losses.append(loss)
    return bound if bound is not None and loss > bound else None

  def _bound(self) -> float | None:
    if self._deviations == 0 or len(self._losses) < _LEAST:
      return None
    median = statistics.median(self._losses)
    spread = _PER_DEVIATION * statistics.median(abs(loss - median) for loss in self._losses)
    return median + self._deviations * max(spread, _LEAST_DEVIATION * abs(median))

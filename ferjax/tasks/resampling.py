"""Intervals of metrics from resampled evaluation records (the percentile bootstrap)."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

NUM_RESAMPLES = 1000


class Estimate(NamedTuple):
  """A value and its 95 % interval; all nan if it is not defined."""

  value: float
  low: float
  high: float

  @property
  def excludes_zero(self) -> bool:
    """Whether a difference is one, at the level of 5 %."""
    return self.low > 0 or self.high < 0


def estimate(value: float, resampled: Float[np.ndarray, "r"]) -> Estimate:
  """The percentile interval over the resamples in which the value is defined (not nan)."""
  defined = resampled[~np.isnan(resampled)]
  if np.isnan(value) or defined.size == 0:
    return Estimate(np.nan, np.nan, np.nan)
  low, high = np.percentile(defined, (2.5, 97.5))
  return Estimate(float(value), float(low), float(high))

"""The largest difference of a rate between groups: its interval, and what chance alone gives."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from ferjax.tasks.base import Outcomes

LEAST = 30  # examples of a group that is compared
_RESAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Gap:
  """The largest difference of a rate between two groups.

  Attributes:
    metric: the rate.
    highest, lowest: the two groups.
    gap: the difference of their rates.
    low, high: its 95 % interval, of the percentile bootstrap over the examples of the two groups.
    chance: the gap that 95 % of random divisions into groups of these sizes stay below. A gap is
      never negative, and the largest of many is rarely near 0: only one above `chance` says that
      the groups differ.
  """

  metric: str
  highest: str
  lowest: str
  gap: float
  low: float
  high: float
  chance: float

  def describe(self) -> str:
    """A line of text."""
    return (
      f"largest gap of {self.metric}: {self.gap:.3f} ({self.low:.3f} to {self.high:.3f}), "
      f"{self.highest} above {self.lowest}; groups drawn at random: below {self.chance:.3f}"
    )


def largest_gap(metric: str, groups: Mapping[str, Outcomes], *, seed: int = 0) -> Gap | None:
  """Compares all groups with at least `LEAST` examples; None for fewer than two.

  A stratum (a class) counts if each of these groups has trials in it, so that the rates are means
  over the same strata.

  Args:
    metric: name of the rate.
    groups: their outcomes.
    seed: of the resamples and the random divisions.
  """
  compared = {name: x for name, x in groups.items() if len(x.trials) >= LEAST}
  if len(compared) < 2:
    return None
  names = list(compared)
  shared = np.all([x.trials.sum(axis=0) > 0 for x in compared.values()], axis=0)
  if not shared.any():
    return None
  pairs = [
    np.concatenate([x.successes[:, shared], x.trials[:, shared]], axis=1) for x in compared.values()
  ]
  rates = np.array([_rates(pair.sum(axis=0)[None])[0] for pair in pairs])
  best, worst = int(rates.argmax()), int(rates.argmin())
  rng = np.random.default_rng(seed)
  differences = _resampled(pairs[best], rng) - _resampled(pairs[worst], rng)
  low, high = np.percentile(differences, (2.5, 97.5))
  chance = np.percentile(_random_gaps(pairs, rng), 95)
  gap = float(rates[best] - rates[worst])
  return Gap(metric, names[best], names[worst], gap, float(low), float(high), float(chance))


def _rates(sums: np.ndarray) -> np.ndarray:
  """Rates [r] of summed successes and trials [r 2s]; strata without trials do not count."""
  successes, trials = np.split(sums, 2, axis=1)
  some = trials > 0
  return np.sum(successes / np.maximum(trials, 1), axis=1) / np.maximum(some.sum(axis=1), 1)


def _resampled(pairs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """The rates of resamples with replacement.

  Equal examples are drawn together, so that the cost does not depend on their number.
  """
  kinds, counts = np.unique(pairs, axis=0, return_counts=True)
  draws = rng.multinomial(counts.sum(), counts / counts.sum(), _RESAMPLES)
  return _rates(draws @ kinds)


def _random_gaps(pairs: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
  """The largest gaps of random divisions of all examples into groups of the same sizes."""
  kinds, counts = np.unique(np.concatenate(pairs), axis=0, return_counts=True)
  gaps = np.empty(_RESAMPLES)
  for i in range(_RESAMPLES):
    left, rates = counts.copy(), []
    for pair in pairs:
      drawn = rng.multivariate_hypergeometric(left, len(pair))
      left -= drawn
      rates.append(_rates((drawn @ kinds)[None])[0])
    gaps[i] = max(rates) - min(rates)
  return gaps

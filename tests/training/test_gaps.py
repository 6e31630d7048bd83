import numpy as np
import pytest

from ferjax.tasks.base import Outcomes
from ferjax.training.gaps import largest_gap


def outcomes(*strata):
  """From (successes, trials) of each stratum, one example a trial."""
  rows = []
  for i, (good, count) in enumerate(strata):
    for k in range(count):
      row = np.zeros((2, len(strata)), int)
      row[:, i] = (k < good, 1)
      rows.append(row)
  stacked = np.array(rows)
  return Outcomes(stacked[:, 0], stacked[:, 1])


def test_gap_and_interval_of_two_proportions():
  """0.9 of 200 and 0.7 of 100, with the deviation of a difference of proportions."""
  gap = largest_gap("accuracy", {"old": outcomes((70, 100)), "young": outcomes((180, 200))})
  assert (gap.highest, gap.lowest) == ("young", "old")
  assert gap.gap == pytest.approx(0.2)
  deviation = np.sqrt(0.9 * 0.1 / 200 + 0.7 * 0.3 / 100)
  # The ends of an interval of 1000 resamples have an error of a tenth of a deviation.
  assert gap.low == pytest.approx(0.2 - 1.96 * deviation, abs=0.3 * deviation)
  assert gap.high == pytest.approx(0.2 + 1.96 * deviation, abs=0.3 * deviation)
  # 250 of 300 are right; 95 % of random halves differ by less than 1.96 deviations.
  expected = 1.96 * np.sqrt(5 / 36 * (1 / 100 + 1 / 200))
  assert gap.chance == pytest.approx(expected, rel=0.15)
  assert "largest gap of accuracy: 0.200" in gap.describe()


def test_balanced_rates_are_over_the_strata_of_all_groups():
  """The third class has no example in one group, so it counts in neither."""
  first, second = outcomes((30, 40), (10, 40), (0, 40)), outcomes((40, 40), (20, 40), (0, 0))
  gap = largest_gap("balanced_accuracy", {"a": first, "b": second})
  assert gap.gap == pytest.approx((1 + 0.5) / 2 - (0.75 + 0.25) / 2)


def test_groups_alike_differ_by_less_than_chance():
  same = {name: outcomes((50, 100)) for name in "abc"}
  gap = largest_gap("accuracy", same)
  assert gap.gap == 0
  assert gap.chance > 0.05


def test_small_groups_are_not_compared():
  large, small = outcomes((20, 40)), outcomes((0, 29))
  assert largest_gap("accuracy", {"a": large, "b": small}) is None
  gap = largest_gap("accuracy", {"a": large, "b": small, "c": outcomes((30, 40))})
  assert (gap.highest, gap.lowest) == ("c", "a")

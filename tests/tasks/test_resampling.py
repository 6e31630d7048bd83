import numpy as np
import pytest

from ferjax.tasks.resampling import Estimate, estimate


def test_percentiles_of_the_defined_resamples():
  resampled = np.append(np.arange(1001) / 1000, np.nan)
  assert estimate(0.5, resampled) == pytest.approx((0.5, 0.025, 0.975))
  assert np.isnan(estimate(np.nan, resampled)).all()
  assert np.isnan(estimate(0.5, resampled[-1:])).all()


def test_which_differences_are_differences():
  assert Estimate(0.1, 0.01, 0.2).excludes_zero
  assert Estimate(-0.1, -0.2, -0.01).excludes_zero
  assert not Estimate(0.1, -0.01, 0.2).excludes_zero
  assert not Estimate(0.1, 0.0, 0.2).excludes_zero
  assert not Estimate(np.nan, np.nan, np.nan).excludes_zero

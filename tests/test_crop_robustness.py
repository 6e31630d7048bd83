"""The interval of `benchmarks/crop_robustness.py`."""

import importlib.util
import pathlib

import numpy as np
import pytest


@pytest.fixture(scope="module")
def benchmark():
  path = pathlib.Path(__file__).parents[1] / "benchmarks" / "crop_robustness.py"
  spec = importlib.util.spec_from_file_location("crop_robustness", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_difference_of_balanced_accuracy(benchmark):
  """Recall of 0 falls from 1 to 1/2, of 1 rises from 0 to 1/4: (-1/2 + 1/4) / 2."""
  truth = np.repeat([0, 1], (40, 80))
  before, after = truth == 0, np.zeros(120, bool)
  after[:20], after[40:60] = True, True
  found = benchmark.difference(after, before, truth)
  assert found["difference"] == pytest.approx(-0.125)
  assert found["difference_low"] < -0.125 < found["difference_high"]
  # Binomial standard deviations of the two recalls, halved.
  spread = 1.96 * np.hypot(0.5 / np.sqrt(40), np.sqrt(3) / 4 / np.sqrt(80)) / 2
  assert found["difference_high"] - found["difference"] == pytest.approx(spread, rel=0.2)
  assert set(benchmark.difference(before, before, truth).values()) == {0.0}

"""The crops and the interval of `benchmarks/crop_robustness.py`."""

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


def test_crops_by_hand(benchmark):
  """Rows of ten pixels; beyond the image, its border is repeated."""
  row = np.arange(10, dtype=np.uint8)
  image = np.broadcast_to(row[None, :, None], (10, 10, 3))
  for change, expected in (
    ((1.0, 0.0, 0.0), row),
    ((1.4, 0.0, 0.0), [0, 0, *row, 9, 9]),
    ((0.6, 0.0, 0.0), row[2:8]),
    ((1.0, -0.1, 0.0), [0, *row[:9]]),
    ((1.0, 0.2, 0.0), [*row[2:], 9, 9]),
    ((1.0, 0.0, 0.3), row),
  ):
    cropped = benchmark.crop(image, *change)
    assert cropped.shape == (len(expected), len(expected), 3)
    np.testing.assert_array_equal(cropped[0, :, 0], expected)
    np.testing.assert_array_equal(cropped[-1, :, 2], expected)
  down = benchmark.crop(np.swapaxes(image, 0, 1), 1.0, 0.0, 0.3)
  np.testing.assert_array_equal(down[:, 0, 0], [*row[3:], 9, 9, 9])


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

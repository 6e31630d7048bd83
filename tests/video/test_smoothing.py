import numpy as np
import pytest

from ferjax.video.smoothing import Smoother


def test_the_weights_decrease_with_age():
  """At varying times, in two tracks, against the sum over all frames."""
  rng = np.random.default_rng(0)
  times = np.cumsum(rng.uniform(0.01, 0.5, 30))
  scores = rng.uniform(size=(30, 4))
  smoother = Smoother(0.4)
  for frame in range(30):
    track = frame % 3 == 0
    mine = [i for i in range(frame + 1) if (i % 3 == 0) == track]
    weights = np.exp((times[mine] - times[frame]) / 0.4)
    expected = weights @ scores[mine] / weights.sum()
    smoothed = smoother.smooth(int(track), times[frame], scores[frame])
    np.testing.assert_allclose(smoothed, expected, rtol=1e-12)
    smoother.forget(times[frame])


def test_probabilities_stay_probabilities():
  smoother = Smoother(1.0)
  for time in range(5):
    smoothed = smoother.smooth(1, float(time), np.array([0.2 * time, 1 - 0.2 * time]))
    assert smoothed.sum() == pytest.approx(1)


def test_a_long_gap_starts_anew():
  smoother = Smoother(0.5)
  smoother.smooth(1, 0.0, np.array([1.0, 0.0]))
  np.testing.assert_allclose(smoother.smooth(1, 12.0, np.array([0.0, 1.0])), [0, 1], atol=1e-9)


def test_none():
  scores = np.array([0.3, 0.7])
  smoother = Smoother(0.0)
  smoother.smooth(1, 0.0, 1 - scores)
  np.testing.assert_array_equal(smoother.smooth(1, 0.1, scores), scores)


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_errors(seconds):
  with pytest.raises(ValueError, match="expected 0 or a positive number of seconds"):
    Smoother(seconds)

import numpy as np

from ferjax.training.spikes import SpikeDetector


def found(losses, deviations=20.0):
  """The places of the spikes."""
  detector = SpikeDetector(deviations)
  return [i for i, loss in enumerate(losses) if detector.add(loss) is not None]


def test_bound_equals_numpy():
  rng = np.random.default_rng(0)
  losses = rng.lognormal(size=300)
  expected = []
  for i in range(20, len(losses)):
    window = losses[max(0, i - 100) : i]
    median = np.median(window)
    spread = 1.4826 * np.median(np.abs(window - median))
    if losses[i] > median + 3 * max(spread, 0.02 * median):
      expected.append(i)
  assert found(losses.tolist(), 3.0) == expected
  assert 1 < len(expected) < 60


def test_spikes_do_not_hide_later_ones():
  losses = [1.0 + 0.01 * (i % 5) for i in range(60)]
  for place in (30, 31, 32, 50):
    losses[place] = 9.0
  assert found(losses) == [30, 31, 32, 50]


def test_no_spike_at_the_start_nor_in_a_loss_that_falls():
  assert found([1e6] * 5 + [1.0] * 30) == []
  assert found(np.exp(-np.arange(200) / 20).tolist()) == []
  assert found([1.0] * 30 + [100.0], deviations=0.0) == []

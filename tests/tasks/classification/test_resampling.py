import numpy as np
import pytest
import scipy.stats

from ferjax.tasks.classification.metrics import ClassificationMetrics
from ferjax.tasks.classification.resampling import differences

NAMES = ("happy", "sad", "calm")


def classifier(truth, predicted, *, names=NAMES, index=None):
  truth, predicted = np.asarray(truth), np.asarray(predicted)
  arrays = {
    "index": np.arange(len(truth)) if index is None else np.asarray(index),
    "truth": truth,
    "predicted": predicted,
    "probability": np.full(len(truth), 0.5),
  }
  return ClassificationMetrics.from_arrays(names, arrays)


def random_pair(size, *, seed=0):
  """Two classifiers that err on many of the same records."""
  rng = np.random.default_rng(seed)
  truth = rng.integers(0, 3, size)
  hard = rng.random(size) < 0.4
  guesses = [rng.integers(0, 3, size) for _ in range(3)]
  first = np.where(hard, guesses[0], truth)
  changed = rng.random(size) < 0.15
  return truth, first, np.where(changed, guesses[1], first)


def balanced_accuracy(truth, predicted):
  return np.mean([np.mean(predicted[truth == c] == c) for c in range(3)])


@pytest.mark.parametrize(
  ("name", "metric"),
  [("accuracy", lambda t, p: np.mean(t == p)), ("balanced_accuracy", balanced_accuracy)],
)
def test_intervals_are_those_of_scipy(name, metric):
  """SciPy resamples the records themselves."""
  truth, first, second = random_pair(300)
  found = differences(classifier(truth, first), classifier(truth, second), resamples=4000)[name]

  def statistic(t, a, b):
    return metric(t, b) - metric(t, a)

  expected = scipy.stats.bootstrap(
    (truth, first, second),
    statistic,
    paired=True,
    vectorized=False,
    method="percentile",
    n_resamples=2000,
    rng=np.random.default_rng(1),
  )
  assert found.value == pytest.approx(statistic(truth, first, second), abs=1e-12)
  # A quantile of 2000 resamples has a standard error of 0.06 standard deviations.
  tolerance = 0.3 * expected.standard_error
  assert found.low == pytest.approx(expected.confidence_interval.low, abs=tolerance)
  assert found.high == pytest.approx(expected.confidence_interval.high, abs=tolerance)


def test_by_hand():
  """One of four records differs: its number in a resample of four is binomial with p = 1/4."""
  found = differences(
    classifier([0, 0, 1, 1], [0, 1, 1, 0]), classifier([0, 0, 1, 1], [0, 0, 1, 0])
  )
  assert found["accuracy"].value == 0.25
  low, high = scipy.stats.binom(4, 0.25).ppf([0.025, 0.975]) / 4
  assert (found["accuracy"].low, found["accuracy"].high) == (low, high)
  # F1 is 1/2 for both classes of the first; 4/5 and 2/3 of the second. No record of calm.
  assert found["macro_f1"].value == pytest.approx((4 / 5 + 2 / 3) / 2 - 1 / 2)


def test_a_paired_interval_is_narrow():
  truth, first, second = random_pair(400)
  a, b = classifier(truth, first), classifier(truth, second)
  found = differences(a, b)["accuracy"]
  alone = a.compute()
  # Of two independent classifiers, it would be wider than that of one by the root of two.
  assert found.high - found.low < 0.6 * 2**0.5 * (alone["accuracy_high"] - alone["accuracy_low"])
  nothing = differences(a, a)
  assert all(x == (0, 0, 0) and not x.excludes_zero for x in nothing.values())


def test_the_order_of_the_records_does_not_matter():
  truth, first, second = random_pair(50)
  order = np.random.default_rng(2).permutation(50)
  shuffled = classifier(truth[order], second[order], index=order)
  assert differences(classifier(truth, first), shuffled) == differences(
    classifier(truth, first), classifier(truth, second)
  )


def test_what_cannot_be_compared():
  one = classifier([0, 1], [0, 1])
  with pytest.raises(ValueError, match="the classes are happy, sad, calm and sad, happy, calm"):
    differences(one, classifier([0, 1], [0, 1], names=("sad", "happy", "calm")))
  with pytest.raises(ValueError, match=r"different records \(their index differs"):
    differences(one, classifier([0, 1], [0, 1], index=[0, 2]))
  with pytest.raises(ValueError, match=r"different records \(their truth differs"):
    differences(one, classifier([0, 2], [0, 1]))
  with pytest.raises(ValueError, match="no records"):
    differences(classifier([], []), classifier([], []))

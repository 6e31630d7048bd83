import numpy as np
import pytest

from ferjax.audit.issues import find_issues


@pytest.fixture
def noisy():
  """200 records of four classes, the third of which does not occur; ten labels are wrong."""
  rng = np.random.default_rng(0)
  truth = np.array([0, 1, 3])[np.arange(200) % 3]
  probabilities = np.full((200, 4), 0.04) + rng.uniform(0, 0.02, (200, 4))
  probabilities[np.arange(200), truth] += rng.uniform(0.7, 0.9, 200)
  probabilities /= probabilities.sum(axis=1, keepdims=True)
  wrong = np.sort(rng.permutation(200)[:10])
  labels = truth.copy()
  labels[wrong] = np.array([1, 3, 0, 0])[truth[wrong]]
  return labels, probabilities, truth, wrong


def test_wrong_labels_are_suspected(noisy):
  labels, probabilities, truth, wrong = noisy
  issues = find_issues(labels, probabilities)
  np.testing.assert_array_equal(np.sort(issues.suspected), wrong)
  np.testing.assert_array_equal(issues.suggested, truth)


def test_the_least_likely_label_comes_first(noisy):
  """The normalised margin, by hand, without the class that does not occur."""
  labels, probabilities, _, _ = noisy
  issues = find_issues(labels, probabilities)
  known = np.delete(probabilities, 2, axis=1)
  known /= known.sum(axis=1, keepdims=True)
  ids = np.array([0, 1, -1, 2])[labels]
  rows = np.arange(200)
  own, others = known[rows, ids], known.copy()
  others[rows, ids] = -1
  np.testing.assert_allclose(issues.quality, (own - others.max(axis=1) + 1) / 2)
  assert (np.diff(issues.quality[issues.suspected]) >= 0).all()

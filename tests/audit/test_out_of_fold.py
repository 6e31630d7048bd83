import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ferjax.audit.out_of_fold import out_of_fold

NAMES = ("neutral", "anger", "fear")


def clouds(count, seed=0):
  """Records of two classes, whose means are three standard deviations apart."""
  rng = np.random.default_rng(seed)
  labels = np.arange(count) % 2
  return (rng.standard_normal((count, 4)) + 3 * labels[:, None]).astype(np.float32), labels


def test_probabilities_of_separable_classes():
  features, labels = clouds(80)
  found = out_of_fold(features, labels, list(map(str, range(80))), NAMES, folds=4)
  np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
  assert (found[:, 2] == 0).all()  # no record has this class
  assert (found.argmax(axis=1) == labels).mean() > 0.95
  again = out_of_fold(features, labels, list(map(str, range(80))), NAMES, folds=4)
  np.testing.assert_array_equal(found, again)


def test_copies_of_an_image_do_not_support_each_other():
  """Random labels of images that occur twice: only a leak predicts them better than chance."""
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 2, 60).repeat(2)
  features = rng.standard_normal((60, 40)).astype(np.float32).repeat(2, axis=0)
  own = out_of_fold(features, labels, list(map(str, range(120))), NAMES)
  grouped = out_of_fold(features, labels, [str(i // 2) for i in range(120)], NAMES)
  assert roc_auc_score(labels, own[:, 1]) > 0.7
  assert roc_auc_score(labels, grouped[:, 1]) < 0.6


@pytest.mark.parametrize(
  ("labels", "folds", "message"),
  [
    ([0, 1] * 5, 1, "--folds is 1; expected at least 2"),
    ([1] * 10, 5, r"labels of one class \(anger\); expected at least two"),
    ([0] * 7 + [2] * 3, 5, "the class fear has 3 different images or persons, .* --folds 3$"),
    ([0] * 9 + [2], 5, "the class fear has 1 .* pass --folds 2, and leave this class out, or add"),
  ],
)
def test_too_few_records_are_refused(labels, folds, message):
  features, _ = clouds(10)
  with pytest.raises(ValueError, match=message):
    out_of_fold(features, np.array(labels), list("abcdefghij"), NAMES, folds=folds)

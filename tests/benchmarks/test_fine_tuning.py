"""Accuracies of several runs, and their resampling by person."""

import fine_tuning
import numpy as np
import pytest

from ferjax.data.datasets.entries import Entry

TRUTH = np.array([0, 0, 0, 1, 1, 2])
HITS = np.array([[1, 1, 0, 1, 0, 1], [1, 0, 0, 1, 1, 0]], bool)


def _face(group):
  return Entry("labels.csv:2", "a.png", "a.png", "val", 0, group=group)


def test_accuracies_are_means_over_runs():
  values = fine_tuning.accuracies(HITS, TRUTH, np.ones((1, 6), int))
  assert values["accuracy"] == pytest.approx([(4 / 6 + 3 / 6) / 2])
  recalls = [[2 / 3, 1 / 2, 1], [1 / 3, 1, 0]]
  assert values["balanced accuracy"] == pytest.approx([np.mean(recalls)])


def test_weighted_faces_count_as_often_as_drawn():
  rng = np.random.default_rng(0)
  weights = rng.integers(0, 3, (20, 6))
  weights[:, [0, 3, 5]] += 1
  drawn = fine_tuning.accuracies(HITS, TRUTH, weights)
  for i, row in enumerate(weights):
    repeated = np.repeat(np.arange(6), row)
    one = np.ones((1, len(repeated)), int)
    expected = fine_tuning.accuracies(HITS[:, repeated], TRUTH[repeated], one)
    for name, (value,) in expected.items():
      assert drawn[name][i] == pytest.approx(value)


def test_absent_class_does_not_count():
  weights = np.array([[1, 1, 1, 1, 1, 0]])
  (balanced,) = fine_tuning.accuracies(HITS, TRUTH, weights)["balanced accuracy"]
  assert balanced == pytest.approx((1 / 2 + 3 / 4) / 2)


def test_faces_of_a_person_are_drawn_together():
  drawn = fine_tuning.resample_people([_face(x) for x in ("a", "b", "a", "c")])
  assert drawn.shape[1] == 4
  np.testing.assert_array_equal(drawn[:, 0], drawn[:, 2])
  np.testing.assert_array_equal(drawn[:, [0, 1, 3]].sum(axis=1), 3)
  assert len(np.unique(drawn, axis=0)) == 10  # all ways to draw 3 of 3 with repetition

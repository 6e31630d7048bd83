"""Orders are endless permutations, and the balanced one is exactly even."""

import collections
import pickle
from fractions import Fraction

import numpy as np
import pytest

from ferjax.data.samplers import BalancedOrder, interleaved, shuffled

NAMES = ("a", "b", "c")
CLASSES = np.array([0, 0, 0, 0, 0, 0, 1, 2, 2, 0])  # 7, 1, 2


def _balanced(seed=0, classes=CLASSES):
  return BalancedOrder(np.eye(3, dtype=np.float32)[classes], NAMES, seed)


def test_every_epoch_is_another_permutation():
  orders = np.array([[shuffled(30, 2, stream)[i] for i in range(300)] for stream in range(2)])
  epochs = orders.reshape(20, 30)
  assert (np.sort(epochs, axis=1) == np.arange(30)).all()
  assert len({tuple(epoch) for epoch in epochs}) == 20


def test_each_block_contains_every_class_once():
  order = _balanced()
  blocks = np.array([CLASSES[order[i]] for i in range(300)]).reshape(100, 3)
  assert (np.sort(blocks, axis=1) == np.arange(3)).all()
  # All six orders of a block occur, about equally often.
  counts = collections.Counter(map(tuple, blocks))
  assert len(counts) == 6
  assert max(counts.values()) < 2.5 * min(counts.values())


def test_records_of_a_class_take_turns():
  order = _balanced()
  drawn = np.array([order[i] for i in range(3 * 70)])
  counts = np.bincount(drawn, minlength=10)
  # 70 samples of each class, over 7, 1 and 2 records.
  np.testing.assert_array_equal(counts[CLASSES == 0], 10)
  np.testing.assert_array_equal(counts[CLASSES == 1], 70)
  np.testing.assert_array_equal(counts[CLASSES == 2], 35)
  first = drawn[CLASSES[drawn] == 0].reshape(10, 7)
  assert (np.sort(first, axis=1) == np.flatnonzero(CLASSES == 0)).all()
  assert len({tuple(turn) for turn in first}) == 10


def test_order_depends_on_number_and_seed():
  numbers = [17, 3, 1000003, 17]
  a = _balanced()
  b = pickle.loads(pickle.dumps(_balanced()))
  for number in range(20):
    b[number]
  assert [a[i] for i in numbers] == [b[i] for i in numbers]
  orders = {tuple(_balanced(seed)[i] for i in range(30)) for seed in range(5)}
  assert len(orders) == 5


def test_a_distribution_counts_as_its_most_probable_class():
  labels = np.array([[0.4, 0.6, 0], [0.5, 0.2, 0.3], [0.1, 0.2, 0.7]], np.float32)
  order = BalancedOrder(labels, NAMES, 0)
  assert sorted(order[i] for i in range(3)) == [0, 1, 2]


def test_classes_without_a_record_are_named():
  with pytest.raises(ValueError, match=r"no example of a, c; remove these from data.class_names"):
    _balanced(classes=np.array([1, 1]))


@pytest.mark.parametrize(
  "weights", [(1,), (3, 2), (1, 1, 2), (997, 2, 1), (5, 3, 1, 1), (7, 11, 13, 17, 19)]
)
def test_every_stretch_has_the_shares_of_all_sources(weights):
  total = sum(weights)
  sources = interleaved([Fraction(weight, total) for weight in weights])
  assert np.bincount(np.tile(sources, total // len(sources))).tolist() == list(weights)
  for source, weight in enumerate(weights):
    excess = np.cumsum(np.tile(total * (sources == source) - weight, 2))
    # The excess of a stretch is a difference of two of these: here of any two.
    spread = max(0, excess.max()) - min(0, excess.min())
    assert spread <= total * max(1, len(weights) - 1)

"""Orders are endless permutations, and the balanced one is exactly even."""

import collections
import pickle
from fractions import Fraction

import numpy as np
import pytest

from ferjax.data.mixture import MixedFaces
from ferjax.data.samplers import (
  BalancedOrder,
  block_counts,
  class_frequencies,
  interleaved,
  shuffled,
)

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


def test_partial_balance():
  """Square roots of 400, 100 and 4 records: 20 to 10 to 2."""
  np.testing.assert_array_equal(block_counts((400, 100, 4), 0.5), [625, 312, 62])
  np.testing.assert_array_equal(block_counts((400, 100, 4), 1.0), [1, 1, 1])
  np.testing.assert_array_equal(block_counts((10**6, 1, 1), 0.0), [1000, 1, 1])
  classes = np.repeat(np.arange(3), (400, 100, 4))
  order = BalancedOrder(np.eye(3, dtype=np.float32)[classes], NAMES, 0, power=0.5)
  drawn = np.array([order[i] for i in range(999 + 60)])
  block, following = drawn[:999], drawn[999:]
  np.testing.assert_array_equal(np.bincount(classes[block]), [625, 312, 62])
  # The records of a class take turns.
  assert set(np.bincount(block)[:400]) == {1, 2}
  assert set(np.bincount(block)[400:500]) == {3, 4}
  assert set(np.bincount(block)[500:]) == {15, 16}
  assert (classes[block[:60]] != classes[following]).any()  # another order in the next block


class Labels:
  """A source of which only the labels are used."""

  task, class_names, skipped = "classification", NAMES, ()

  def __init__(self, labels):
    self.labels = np.asarray(labels, np.float32)

  def __len__(self):
    return len(self.labels)

  def __getitem__(self, index):
    raise IndexError(index)

  def origin(self, index):
    return f"record {index}"


def test_frequencies_by_hand():
  """Two records of a with the mean (0.8, 0.2, 0), one of b, one of c."""
  first = Labels([[1, 0, 0], [0.6, 0.4, 0], [0, 1, 0], [0, 0, 1]])
  for power, expected in (
    (0.0, [0.4, 0.35, 0.25]),
    (1.0, [0.8 / 3, 1.2 / 3, 1 / 3]),
    (0.5, [0.8 * 0.414, 0.2 * 0.414 + 0.293, 0.293]),  # a is sampled 414 times in 1000
  ):
    np.testing.assert_allclose(class_frequencies(first, power), expected, rtol=1e-5)
  mixture = MixedFaces(
    [first, Labels([[0, 1, 0]] * 9)], [Fraction(3, 4), Fraction(1, 4)], ["first", "second"]
  )
  expected = [0.3, 0.2625 + 0.25, 0.1875]
  np.testing.assert_allclose(class_frequencies(mixture, 0.0), expected, rtol=1e-5)


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

"""Stratified, grouped, seeded; and no selection on the test split."""

import collections

import numpy as np
import pytest

from ferjax.data.datasets.entries import Entry
from ferjax.data.preparation.splits import choose_validation, split_validation
from ferjax.expressions import UNLABELLED


def _records(counts):
  classes = [(c,) for c, count in enumerate(counts) for _ in range(count)]
  return [f"{i}.jpg" for i in range(len(classes))], classes


def test_the_same_fraction_of_every_class_is_taken():
  keys, classes = _records((100, 31, 4))
  chosen = split_validation(keys, classes, [""] * len(keys), fraction=0.1)
  taken = collections.Counter(classes[i][0] for i in np.flatnonzero(chosen))
  assert taken == {0: 10, 1: 3}  # rounded: 10, 3.1, 0.4


def test_boxes_of_unknown_class_are_stratified():
  labels = [(0,), (UNLABELLED,), ()] * 20
  entries = [
    Entry(str(i), str(i), "", "train", label, boxes=((0.0, 0.0, 1.0, 1.0),) * len(label))
    for i, label in enumerate(labels)
  ]
  chosen = choose_validation(entries, 2)
  taken = collections.Counter(labels[i] for i in np.flatnonzero(chosen))
  assert taken == {(0,): 2, (UNLABELLED,): 2, (): 2}


def test_the_choice_depends_on_key_and_seed_not_on_order():
  keys, classes = _records((40, 40))
  groups = [""] * len(keys)
  names = {k for k, c in zip(keys, split_validation(keys, classes, groups), strict=True) if c}
  order = np.random.default_rng(1).permutation(len(keys))
  shuffled = split_validation([keys[i] for i in order], [classes[i] for i in order], groups)
  assert {keys[i] for i, c in zip(order, shuffled, strict=True) if c} == names
  other = split_validation(keys, classes, groups, seed=1)
  assert {k for k, c in zip(keys, other, strict=True) if c} != names


def test_groups_stay_whole_and_fractions_are_close():
  rng = np.random.default_rng(0)
  groups = [f"s{g}" for g in rng.integers(0, 80, 1000)]
  classes = [(int(c),) for c in rng.integers(0, 4, 1000)]
  chosen = split_validation([str(i) for i in range(1000)], classes, groups, fraction=0.2)
  sides = collections.defaultdict(set)
  for group, is_chosen in zip(groups, chosen, strict=True):
    sides[group].add(bool(is_chosen))
  assert all(len(side) == 1 for side in sides.values())
  labels = np.array(classes)[:, 0]
  shares = [chosen[labels == c].mean() for c in range(4)]
  assert min(shares) > 0.15
  assert max(shares) < 0.25


def test_every_face_of_a_photograph_counts():
  classes = [(0, 0, 1), (1,), ()] * 20
  chosen = split_validation([str(i) for i in range(60)], classes, [""] * 60, fraction=0.25)
  faces = collections.Counter(c for i in np.flatnonzero(chosen) for c in classes[i])
  assert faces[0] == 10
  assert faces[1] in (10, 11)  # a photograph needed for class 0 may add one too many of class 1


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ((["a", "a"], [(0,), (0,)], ["", ""]), "two records have the same key"),
    ((["a", "b"], [(0,), (0,)], ["s", "s"]), "no validation split of 0.1 .* 2 records in 1 groups"),
  ],
)
def test_impossible_splits_raise(arguments, message):
  with pytest.raises(ValueError, match=message):
    split_validation(*arguments)


def test_fraction_out_of_range():
  with pytest.raises(ValueError, match=r"validation fraction \(1.0\) must be between 0 and 1"):
    split_validation(["a"], [(0,)], [""], fraction=1.0)


def test_negative_seed():
  with pytest.raises(ValueError, match=r"seed \(-1\) of the validation split must not be negative"):
    split_validation(["a"], [(0,)], [""], seed=-1)

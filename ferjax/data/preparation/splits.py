"""Takes a validation split from train."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from ferjax.data.datasets.entries import Entry
from ferjax.expressions import UNLABELLED

VALIDATION_FRACTION = 0.1


class NoSplitError(ValueError):
  """The requested split cannot be taken from the records."""


def split_validation(
  keys: Sequence[str],
  classes: Sequence[Sequence[int]],
  groups: Sequence[str],
  *,
  fraction: float = VALIDATION_FRACTION,
  seed: int = 0,
) -> Bool[np.ndarray, "n"]:
  """Chooses the records of a validation split: stratified, seeded, groups kept whole.

  Groups are visited in random order, and a group is taken if that brings the classes closer to
  their fractions. Without groups, exactly the rounded fraction of each class is taken. The choice
  depends on the keys, not on their order.

  Args:
    keys: of the n records, all different; a record without a group is its own group.
    classes: class indices of each record: one for a face, any number for a photograph.
    groups: the subject or clip of each record; "" for none.
    fraction: of every class to take, 0..1.
    seed: not negative.

  Returns:
    True for the records of the validation split.

  Raises:
    NoSplitError: no group fits.
    ValueError: a duplicate key, a fraction or seed out of range.
  """
  if not 0 < fraction < 1:
    raise ValueError(f"validation fraction ({fraction}) must be between 0 and 1, exclusive")
  if seed < 0:
    raise ValueError(f"seed ({seed}) of the validation split must not be negative")
  if len(set(keys)) != len(keys):
    raise ValueError("two records have the same key; keys must be unique")
  names = [
    ("group", group) if group else ("key", key) for key, group in zip(keys, groups, strict=True)
  ]
  members: dict[tuple[str, str], list[int]] = {}
  for index, name in enumerate(names):
    members.setdefault(name, []).append(index)
  num_classes = 1 + max((c for record in classes for c in record), default=-1)
  counts = {name: _count(members[name], classes, num_classes) for name in members}
  wanted = np.round(fraction * sum(counts.values(), np.zeros(num_classes, np.int64)))
  order = sorted(members)
  chosen = np.zeros(len(keys), bool)
  for place in np.random.default_rng(seed).permutation(len(order)):
    count = counts[order[place]]
    useful = np.minimum(count, np.maximum(wanted, 0)).sum()
    if useful > count.sum() - useful:
      chosen[members[order[place]]] = True
      wanted -= count
  if not chosen.any() or chosen.all():
    raise NoSplitError(
      f"no validation split of {fraction:g} can be taken from {len(keys)} records in "
      f"{len(members)} groups; supply a validation split, or choose another fraction "
      "(--validation; 0 for none)"
    )
  return chosen


def choose_validation(
  entries: Sequence[Entry],
  num_classes: int,
  *,
  fraction: float = VALIDATION_FRACTION,
  seed: int = 0,
) -> Bool[np.ndarray, "n"]:
  """`split_validation` for the n entries of train."""
  return split_validation(
    [entry.key for entry in entries],
    # Photographs without faces are a class of their own: validation needs them to measure false
    # positives. So are boxes of unknown class.
    [
      tuple(num_classes + 1 if c == UNLABELLED else c for c in entry.classes) or (num_classes,)
      for entry in entries
    ],
    [entry.group for entry in entries],
    fraction=fraction,
    seed=seed,
  )


def _count(
  indices: Sequence[int], classes: Sequence[Sequence[int]], num_classes: int
) -> np.ndarray:
  present = [c for index in indices for c in classes[index]]
  return np.bincount(np.array(present, np.int64), minlength=num_classes)

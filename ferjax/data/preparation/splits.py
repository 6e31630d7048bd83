"""Splits: a validation part cut from train."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

SPLITS = ("train", "val", "test")
VALIDATION_FRACTION = 0.1


class NoSplitError(ValueError):
  """The records that were read do not give the split that is asked for."""


def cut_validation(
  keys: Sequence[str],
  classes: Sequence[Sequence[int]],
  groups: Sequence[str],
  *,
  fraction: float = VALIDATION_FRACTION,
  seed: int = 0,
) -> Bool[np.ndarray, "n"]:
  """Chooses the records of a validation split: stratified, seeded, groups kept whole.

  Groups are visited in random order, and one is taken if that brings the classes nearer to their
  shares. Without groups, each class gives exactly its rounded share. The choice depends on the
  keys, not on their order.

  Args:
    keys: of the n records, each its own; a record without a group is one by itself.
    classes: class indices in each record: one of a face, several of a photograph of many.
    groups: the subject or clip of each record; "" for none.
    fraction: of every class that is to be taken, 0..1.
    seed: not negative.

  Returns:
    True for the records of the validation split.

  Raises:
    NoSplitError: no group fits.
    ValueError: a key that comes twice, a fraction or seed out of range.
  """
  if not 0 < fraction < 1:
    raise ValueError(f"validation fraction ({fraction}) must lie between 0 and 1, both excluded")
  if seed < 0:
    raise ValueError(f"seed ({seed}) of the validation split must not be negative")
  if len(set(keys)) != len(keys):
    raise ValueError("two records have one key; records must be told apart to be split")
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
      f"no validation split of {fraction:g} can be cut from {len(keys)} records in "
      f"{len(members)} groups; supply a validation split, or choose another fraction "
      "(--validation; 0 for none)"
    )
  return chosen


def _count(
  indices: Sequence[int], classes: Sequence[Sequence[int]], num_classes: int
) -> np.ndarray:
  present = [c for index in indices for c in classes[index]]
  return np.bincount(np.array(present, np.int64), minlength=num_classes)

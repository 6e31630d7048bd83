"""Endless shuffled orders: example number -> record, by seed and number alone."""

from collections.abc import Sequence

import grain
import numpy as np
from jaxtyping import Float

_CLASSES = 2**16  # stream of the order of classes; records have those from 0 on


def shuffled(length: int, seed: int, stream: int = 0) -> grain.MapDataset:
  """The numbers below `length` once an epoch, in another order each epoch.

  Args:
    length: of an epoch.
    seed: not negative.
    stream: orders of one seed and different streams are unrelated.
  """
  return grain.MapDataset.range(length).shuffle(seed=_stream_seed(seed, stream)).repeat()


class BalancedOrder:
  """Draws every class equally often, and the records of a class equally often.

  Blocks of as many examples as there are classes hold each class once, in random order; each
  class has its own shuffled order of records, which starts again when all have been drawn.

  Args:
    labels: of all records; a record counts as its most probable class.
    class_names: for the message.
    seed: not negative.

  Raises:
    ValueError: naming the classes without a record.
  """

  def __init__(self, labels: Float[np.ndarray, "n k"], class_names: Sequence[str], seed: int):
    classes = labels.argmax(axis=1)
    self._members = [np.flatnonzero(classes == c) for c in range(len(class_names))]
    missing = [
      name for name, members in zip(class_names, self._members, strict=True) if len(members) == 0
    ]
    if missing:
      raise ValueError(
        f"data.balance draws every class equally often, but there is no example of "
        f"{', '.join(missing)}; remove these from data.class_names, or turn data.balance off"
      )
    self._orders = [shuffled(len(members), seed, c) for c, members in enumerate(self._members)]
    self._seed = seed

  def __getitem__(self, number: int) -> int:
    block, place = divmod(number, len(self._members))
    # Not by grain's shuffle: of so few, it prefers some orders.
    rng = np.random.default_rng((self._seed, _CLASSES, block))
    class_id = int(rng.permutation(len(self._members))[place])
    return int(self._members[class_id][self._orders[class_id][block]])


def _stream_seed(seed: int, stream: int) -> int:
  """Far apart: grain shuffles epoch e by seed + e, so that near seeds would repeat orders."""
  return int(np.random.SeedSequence((seed, stream)).generate_state(1)[0])

"""Endless shuffled orders: example number -> record, a function of seed and number only."""

from collections.abc import Sequence

import grain
import numpy as np
from jaxtyping import Float

_CLASSES = 2**16  # random stream of the order of classes; records use streams from 0


def shuffled(length: int, seed: int, stream: int = 0) -> grain.MapDataset:
  """All indices below `length` once per epoch, in a new order each epoch.

  Args:
    length: number of indices per epoch.
    seed: not negative.
    stream: different streams of one seed give independent orders.
  """
  return grain.MapDataset.range(length).shuffle(seed=_stream_seed(seed, stream)).repeat()


class BalancedOrder:
  """Samples every class equally often, and the records of a class equally often.

  With k classes, each block of k examples contains every class once, in random order. The records
  of a class are sampled in a shuffled order, which is reshuffled when all have been sampled.

  Args:
    labels: label distributions of all records; a record counts as its most probable class.
    class_names: for the error message.
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
        f"data.balance samples every class equally often, but there is no example of "
        f"{', '.join(missing)}; remove these from data.class_names, or turn data.balance off"
      )
    self._orders = [shuffled(len(members), seed, c) for c, members in enumerate(self._members)]
    self._seed = seed

  def __getitem__(self, number: int) -> int:
    block, place = divmod(number, len(self._members))
    # grain's shuffle is biased towards some orders of so few elements.
    rng = np.random.default_rng((self._seed, _CLASSES, block))
    class_id = int(rng.permutation(len(self._members))[place])
    return int(self._members[class_id][self._orders[class_id][block]])


def _stream_seed(seed: int, stream: int) -> int:
  """Spreads seeds: grain shuffles epoch e by seed + e, so close seeds would repeat orders."""
  return int(np.random.SeedSequence((seed, stream)).generate_state(1)[0])

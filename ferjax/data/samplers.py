"""Endless shuffled orders: example number -> record, a function of seed and number only."""

import math
import sys
from collections.abc import Sequence
from fractions import Fraction
from typing import cast

import grain
import numpy as np
from jaxtyping import Float, Int

from ferjax.data.mixture import MixedSource
from ferjax.data.sources import LabelledSource, Source

_BLOCK = 1000  # examples, of a partly balanced order
_CLASSES = 2**16  # random stream of the order of classes; records use streams from 0
_PARTS = 2**17  # the first random stream of the seeds of a mixture's sources


def shuffled(length: int, seed: int, stream: int = 0) -> grain.MapDataset:
  """All indices below `length` once per epoch, in a new order each epoch.

  Args:
    length: number of indices per epoch.
    seed: not negative.
    stream: different streams of one seed give independent orders.
  """
  return grain.MapDataset.range(length).shuffle(seed=_stream_seed(seed, stream)).repeat()


class BalancedOrder:
  """Samples every class equally often, or nearly so, and the records of a class equally often.

  With k classes, each block of k examples contains every class once, in random order; with a power
  below 1, each block of about `_BLOCK` contains every class as often as `block_counts` says. The
  records of a class are sampled in a shuffled order, which is reshuffled when all have been
  sampled.

  Args:
    labels: label distributions of all records; a record counts as its most probable class.
    class_names: for the error message.
    seed: not negative.
    power: a class of n records is sampled in proportion to n**(1 - power); 1: equally often.

  Raises:
    ValueError: naming the classes without a record.
  """

  def __init__(
    self,
    labels: Float[np.ndarray, "n k"],
    class_names: Sequence[str],
    seed: int,
    *,
    power: float = 1.0,
  ):
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
    self._counts = block_counts([len(members) for members in self._members], power)
    self._block = np.repeat(np.arange(len(self._counts)), self._counts)

  def __getitem__(self, number: int) -> int:
    block, place = divmod(number, len(self._block))
    # grain's shuffle is biased towards some orders of so few elements.
    rng = np.random.default_rng((self._seed, _CLASSES, block))
    classes = self._block[rng.permutation(len(self._block))]
    class_id = int(classes[place])
    rank = np.count_nonzero(classes[:place] == class_id)  # in the block
    own_number = block * int(self._counts[class_id]) + int(rank)
    return int(self._members[class_id][self._orders[class_id][own_number]])


def block_counts(sizes: Sequence[int], power: float) -> Int[np.ndarray, "k"]:
  """How often each class is in a block of examples of `BalancedOrder`; at least once.

  Args:
    sizes: the number of records of each class, above 0.
    power: as for `BalancedOrder`.
  """
  shares = np.asarray(sizes, np.float64) ** (1 - power)
  if power == 1:
    return shares.astype(np.int64)
  return np.maximum(1, np.rint(_BLOCK * shares / shares.sum())).astype(np.int64)


def class_frequencies(source: LabelledSource, power: float) -> Float[np.ndarray, "k"]:
  """The mean label of the training examples: of all records, or as `BalancedOrder` samples them.

  Args:
    source: the records; in a mixture, each source has its share.
    power: as for `BalancedOrder`; 0 for a source whose classes are not balanced.
  """
  if isinstance(source, MixedSource):
    parts = [class_frequencies(cast(LabelledSource, part), power) for part in source.parts]
    return sum(
      (float(share) * part for share, part in zip(source.shares, parts, strict=True)),
      start=np.zeros(len(source.class_names)),
    )
  labels = np.asarray(source.labels, np.float64)
  if power == 0:
    return labels.mean(axis=0)
  classes = labels.argmax(axis=1)
  sizes = np.bincount(classes, minlength=labels.shape[1])
  counts = block_counts(np.maximum(sizes, 1).tolist(), power)
  weights = (counts / np.maximum(sizes, 1))[classes]
  return weights @ labels / weights.sum()


class MixedOrder:
  """Samples several sources, each with its share of every stretch of examples.

  Args:
    orders: of each source: its example number -> its record.
    starts: added to the records of each source.
    shares: of the examples; they add up to 1.
    shift: added to the example number, to choose its source.
  """

  def __init__(
    self,
    orders: Sequence[grain.MapDataset | BalancedOrder],
    starts: Sequence[int],
    shares: Sequence[Fraction],
    *,
    shift: int = 0,
  ):
    self._orders, self._starts, self._shift = orders, starts, shift
    self._sources = interleaved(shares)
    self._counts = np.bincount(self._sources, minlength=len(shares))
    self._ranks = np.zeros_like(self._sources)  # examples of the same source before each
    for source, count in enumerate(self._counts):
      self._ranks[self._sources == source] = np.arange(count)

  def __getitem__(self, number: int) -> int:
    period, place = divmod(number + self._shift, len(self._sources))
    source = self._sources[place]
    own_number = period * int(self._counts[source]) + int(self._ranks[place])
    return self._starts[source] + int(self._orders[source][own_number])

  def as_dataset(self) -> grain.MapDataset:
    """The order as an endless data set of grain."""
    return grain.MapDataset.range(sys.maxsize).map(self.__getitem__)


def interleaved(shares: Sequence[Fraction]) -> Int[np.ndarray, "n"]:
  """The source of each example in a period, after which the shares are met exactly.

  The examples of each source are evenly spaced. So in every stretch of examples, wherever it starts
  and however long it is, the number of examples of each source differs from its share by at most
  the number of the other sources.
  """
  period = math.lcm(*(share.denominator for share in shares))
  counts = [int(share * period) for share in shares]
  # Quotients are correctly rounded, so equal times are equal numbers on every machine.
  times = np.concatenate([(2 * np.arange(count) + 1) / (2 * count) for count in counts])
  sources = np.repeat(np.arange(len(counts)), counts)
  return sources[np.argsort(times, kind="stable")]


def part_seed(seed: int, part: int) -> int:
  """The seed of the order of a mixture's source."""
  return _stream_seed(seed, _PARTS + part)


def _stream_seed(seed: int, stream: int) -> int:
  """Spreads seeds: grain shuffles epoch e by seed + e, so close seeds would repeat orders."""
  return int(np.random.SeedSequence((seed, stream)).generate_state(1)[0])


def order_of(
  source: Source, seed: int, stream: int = 0, *, balance: float = 0.0
) -> grain.MapDataset | BalancedOrder:
  """Example number -> record.

  In a mixture, every source has its own order, with the records of one after the other.

  Args:
    source: the records.
    seed: not negative.
    stream: different streams of one seed give independent orders. In a mixture, stream s at example
      n is of the source of example n + s, so the images of a mosaic are from several sources.
    balance: power with which classes are balanced (`BalancedOrder`), within each source of a
      mixture; 0: not at all.

  Raises:
    ValueError: a class that cannot be balanced.
  """
  if isinstance(source, MixedSource):
    orders = []
    for number, part in enumerate(source.parts):
      try:
        orders.append(order_of(part, part_seed(seed, number), stream, balance=balance))
      except ValueError as error:
        raise ValueError(f"{source.name(number)}: {error}") from error
    return MixedOrder(orders, source.starts, source.shares, shift=stream).as_dataset()
  if balance:
    labels = cast(LabelledSource, source).labels
    return BalancedOrder(labels, source.class_names, seed, power=balance)
  return shuffled(len(source), seed, stream)

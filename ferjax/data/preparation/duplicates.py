"""Finds images that are the same or look alike, and decides which of them to drop.

Exact duplicates have the same pixels. The perceptual hashes of near duplicates (256 bits, package
ImageHash) differ in at most `NEAR_BITS` bits. All pairs are compared, so none is missed.
`ferjax data check` reports both; `prepare --drop-duplicates` and `prepare --leak-free` drop them by
the same definition.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Int, UInt8, UInt64

from ferjax.data.datasets.entries import Entry

LEAK_FREE = "leak-free"
DROP_DUPLICATES = ("none", "across-splits", "conflicting", "all", LEAK_FREE)
NEAR_BITS = 32  # of 256 that may differ; see docs/datasets.md
HASH_SIDE = 16  # bits of a hash: this squared
_PRIORITY = ("test", "val", "train")  # an image stays in the first of these that contains it
_BLOCK = 32  # hashes compared with all others at once


@dataclasses.dataclass(frozen=True, slots=True)
class Signature:
  """The hashes by which images are compared.

  Attributes:
    digest: SHA-256 of size and pixels, 32 bytes.
    hash: perceptual hash, 32 bytes.
  """

  digest: bytes
  hash: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class HashedEntry:
  """An entry with its split and the signature of its image."""

  split: str
  entry: Entry
  signature: Signature

  @property
  def location(self) -> str:
    return location(self.split, self.entry)

  @property
  def label(self) -> tuple[int, ...]:
    """The classes in sorted order: labels are compared regardless of the order of the boxes."""
    return tuple(sorted(self.entry.classes))


def location(split: str, entry: Entry) -> str:
  """The name of an entry in messages: "train: list.txt:12 (images/a.jpg)"."""
  return f"{split}: {entry.origin}"


def signature(image: UInt8[np.ndarray, "h w 3"]) -> Signature:
  # Imported here because its dependency SciPy is slow to import.
  import imagehash
  from PIL import Image

  digest = hashlib.sha256(np.array(image.shape[:2]).tobytes() + image.tobytes()).digest()
  bits = imagehash.phash(Image.fromarray(image), hash_size=HASH_SIDE).hash
  return Signature(digest, np.packbits(bits.reshape(-1)).tobytes())


def describe_pair(one: HashedEntry, other: HashedEntry, bits: int) -> str:
  """A sentence about two images; `bits` of their hashes differ."""
  if one.signature.digest == other.signature.digest:
    text = f"{one.location} is the same image as {other.location}"
  else:
    difference = f"{bits} of {HASH_SIDE**2} bits differ"
    text = f"{one.location} looks like {other.location} ({difference})"
  return f"{text}: across splits" if one.split != other.split else text


def neighbours(
  hashes: UInt64[np.ndarray, "n w"], limit: int, *, block: int = _BLOCK
) -> Iterator[tuple[int, Int[np.ndarray, "m"], Int[np.ndarray, "m"]]]:
  """Finds pairs of hashes that differ in at most `limit` bits.

  Args:
    hashes: of n images.
    limit: maximum number of bits.
    block: number of hashes compared with all others at once; memory grows with it.

  Yields:
    i, the indices j > i of its neighbours, and the numbers of differing bits; in the order of i,
    only for i with neighbours.
  """
  words = np.ascontiguousarray(hashes.T)
  for start in range(0, len(hashes), block):
    size = min(block, len(hashes) - start)
    bits = np.zeros((size, len(hashes) - start), np.uint16)
    for word in words:
      bits += np.bitwise_count(word[start : start + size, None] ^ word[None, start:])
    for row, is_near in enumerate(bits <= limit):
      columns = row + 1 + np.flatnonzero(is_near[row + 1 :])
      if len(columns):
        yield start + row, start + columns, bits[row, columns].astype(np.int64)


def near_pairs(seen: Sequence[HashedEntry]) -> Iterator[tuple[HashedEntry, HashedEntry, int]]:
  """Pairs of images that look alike but are not the same, with the number of differing bits."""
  for i, others, bits in neighbours(_hashes(seen), NEAR_BITS):
    for j, number in zip(others.tolist(), bits.tolist(), strict=True):
      if seen[i].signature.digest != seen[j].signature.digest:
        yield seen[i], seen[j], number


def _hashes(seen: Sequence[HashedEntry]) -> UInt64[np.ndarray, "n 4"]:
  joined = b"".join(one.signature.hash for one in seen)
  return np.frombuffer(joined, np.uint64).reshape(-1, 4)


def check_mode(mode: str) -> None:
  if mode not in DROP_DUPLICATES:
    raise ValueError(
      f"unknown mode {mode!r} to drop duplicates; known: {', '.join(DROP_DUPLICATES)}"
    )


def find_dropped(seen: Iterable[HashedEntry], mode: str) -> list[tuple[HashedEntry, str]]:
  """The records that `mode` drops, each with a sentence that states why.

  An image stays in the first of test, val and train that contains it.

  - "across-splits": images that are the same or look alike and are in different splits are dropped
    from the later ones.
  - "conflicting": images that are the same but have different labels are dropped from the later
    splits; if the labels differ within val or within train, none of them is kept there.
  - "all": both; and of images within one split that are the same or look alike, only the first is
    kept.
  - "leak-free": the other way round: every record of train is kept, and those of val and test that
    are the same as, or look like, one of train are dropped.

  So only "all" and "leak-free" drop records of test. After "across-splits" and "all", `check` would
  report no pair across splits, after "leak-free" none with train.

  Args:
    seen: in the order of the set.
    mode: one of `DROP_DUPLICATES`.

  Raises:
    ValueError: unknown mode.
  """
  check_mode(mode)
  if mode == LEAK_FREE:
    return list(_leaked(seen))
  ordered = sorted(seen, key=lambda one: _PRIORITY.index(one.split))  # stable
  dropped: dict[int, str] = {}  # index in `ordered` -> why
  if mode in ("conflicting", "all"):
    dropped.update(_conflicting(ordered))
  if mode in ("across-splits", "all"):
    _drop_later(ordered, dropped, within=mode == "all")
  return [(ordered[number], dropped[number]) for number in sorted(dropped)]


def _leaked(seen: Iterable[HashedEntry]) -> Iterator[tuple[HashedEntry, str]]:
  """The records of val and test that are the same as, or look like, a record of train."""
  ordered = sorted(seen, key=lambda one: one.split != "train")  # stable
  dropped: set[int] = set()
  for i, others, bits in neighbours(_hashes(ordered), NEAR_BITS):
    if ordered[i].split != "train":
      return
    for j, number in zip(others.tolist(), bits.tolist(), strict=True):
      if ordered[j].split != "train" and j not in dropped:
        dropped.add(j)
        yield ordered[j], describe_pair(ordered[j], ordered[i], number)


def _conflicting(ordered: Sequence[HashedEntry]) -> Iterator[tuple[int, str]]:
  """The dropped records of images with different labels, with the reason."""
  groups: dict[bytes, list[int]] = {}
  for number, one in enumerate(ordered):
    groups.setdefault(one.signature.digest, []).append(number)
  for group in groups.values():
    first, *_ = members = [ordered[number] for number in group]
    if len({one.label for one in members}) == 1:
      continue
    labels = {one.label for one in members if one.split == first.split}
    keeps_first = len(labels) == 1 or first.split == _PRIORITY[0]
    for number, one in zip(group, members, strict=True):
      if one.split != first.split:
        yield number, f"{describe_pair(one, first, 0)}; labels of this image differ"
      elif not keeps_first:
        other = next(other for other in members if other.label != one.label)
        yield number, f"{describe_pair(one, other, 0)}, with another label: none is kept"


def _drop_later(ordered: Sequence[HashedEntry], dropped: dict[int, str], *, within: bool) -> None:
  """Drops records that are the same as, or look like, an earlier record that is kept."""
  for i, others, bits in neighbours(_hashes(ordered), NEAR_BITS):
    if i in dropped:
      continue
    for j, number in zip(others.tolist(), bits.tolist(), strict=True):
      if j not in dropped and (within or ordered[i].split != ordered[j].split):
        dropped[j] = describe_pair(ordered[j], ordered[i], number)

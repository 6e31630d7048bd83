"""Checks of a data set as it lies on disk: every image is opened, nothing is written.

  annotation  what is wrong in a list or table          image       unreadable, or at odds with it
  duplicate   one image twice                           near        two images that look the same
  label       one image, two labels                     group       a subject or clip in two splits
  size        very small images or faces, odd shapes    balance     a class that hardly occurs

Exact duplicates have the same pixels. Near ones are found by a perceptual hash of 256 bits (the
package ImageHash): all pairs are compared, so none is missed.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Int, UInt64

from ferjax.data.datasets.entries import Entry
from ferjax.data.examples import Loaded, in_threads, load
from ferjax.data.preparation.plan import Plan, class_counts

ERRORS = ("annotation", "image", "duplicate", "label", "group")
WARNINGS = ("near", "size", "balance")
NEAR_BITS = 32  # of 256 that may differ; see docs/datasets.md
_HASH_SIDE = 16  # bits of a hash: this squared
_MIN_SIDE = 20  # pixels of an image or a face, below which an expression is hardly seen
_MAX_ASPECT = 3.0  # of an image of a face, or a face's box
_RARE = 0.01  # of the records of a split
_BLOCK = 512  # hashes compared with all others at once
_MAX_PAIRS = 100_000  # of near duplicates that are listed


@dataclasses.dataclass(frozen=True)
class Finding:
  """One thing that a check found."""

  kind: str
  message: str

  @property
  def is_error(self) -> bool:
    return self.kind in ERRORS


@dataclasses.dataclass(frozen=True)
class _Seen:
  """What is kept of an image."""

  digest: bytes
  hash: np.ndarray  # u64[4]
  size: tuple[int, int]
  faces: list[tuple[float, float]]  # width and height of each box


def check_plan(
  plan: Plan, progress: Callable[[int], object] = lambda number: None
) -> list[Finding]:
  """All findings, the kinds in the order of this module's list.

  Args:
    plan: of the data set; its cut of validation is checked as well.
    progress: told of images that were opened.
  """
  findings = [Finding("annotation", problem) for problem in plan.problems]
  entries = [(split, entry) for split, members in plan.entries.items() for entry in members]
  seen: list[tuple[str, Entry, _Seen]] = []

  def look(item: tuple[str, Entry]) -> _Seen:
    options = plan.options
    return _look(load(item[1], overhang=plan.data_set.overhang, margin=options.margin))

  for (split, entry), outcome in in_threads(look, entries):
    if isinstance(outcome, ValueError):
      findings.append(Finding("image", str(outcome)))
    else:
      seen.append((split, entry, outcome))
    progress(1)
  findings += _duplicates(seen)
  findings += _near_duplicates(seen)
  findings += _groups(entries)
  findings += _sizes(seen)
  findings += _balance(plan)
  return findings


def summary(findings: Sequence[Finding]) -> dict[str, int]:
  """Number of findings of each kind that any check has."""
  counts = collections.Counter(finding.kind for finding in findings)
  return {kind: counts[kind] for kind in ERRORS + WARNINGS}


def _look(loaded: Loaded) -> _Seen:
  # Imported here: SciPy, which it brings, is slow to import.
  import imagehash
  from PIL import Image

  height, width = loaded.image.shape[:2]
  digest = hashlib.sha256(np.array([height, width]).tobytes() + loaded.image.tobytes()).digest()
  bits = imagehash.phash(Image.fromarray(loaded.image), hash_size=_HASH_SIDE).hash
  words = np.packbits(bits.reshape(-1)).view(np.uint64)
  sides = (loaded.boxes[:, 2:] - loaded.boxes[:, :2]).tolist()
  return _Seen(digest, words, (width, height), [(w, h) for w, h in sides])


def _duplicates(seen: Sequence[tuple[str, Entry, _Seen]]) -> Iterator[Finding]:
  first: dict[bytes, tuple[str, Entry]] = {}
  for split, entry, image in seen:
    other_split, other = first.setdefault(image.digest, (split, entry))
    if other is entry:
      continue
    where = f"{_place(split, entry)} is the same image as {_place(other_split, other)}"
    if other_split != split:
      where += ": across splits"
    yield Finding("duplicate", where)
    if sorted(other.classes) != sorted(entry.classes):
      yield Finding("label", f"{where}, with another label")


def _near_duplicates(seen: Sequence[tuple[str, Entry, _Seen]]) -> Iterator[Finding]:
  if not seen:
    return
  hashes = np.stack([image.hash for _, _, image in seen])
  for count, (i, j, bits) in enumerate(near_pairs(hashes, NEAR_BITS)):
    if count == _MAX_PAIRS:
      reason = "are they all blank, or frames of one film? The others are not listed"
      yield Finding("near", f"more than {_MAX_PAIRS:,} pairs of images look alike: {reason}")
      return
    (other_split, other, other_image), (split, entry, image) = seen[i], seen[j]
    if image.digest == other_image.digest:
      continue
    where = (
      f"{_place(split, entry)} looks like {_place(other_split, other)} ({bits} of "
      f"{_HASH_SIDE**2} bits differ)"
    )
    if other_split != split:
      where += ": across splits"
    if sorted(other.classes) != sorted(entry.classes):
      where += ", with another label"
    yield Finding("near", where)


def near_pairs(hashes: UInt64[np.ndarray, "n w"], limit: int) -> Iterator[tuple[int, int, int]]:
  """Pairs i < j of hashes that differ in at most `limit` bits, with their number."""
  for start in range(0, len(hashes), _BLOCK):
    block, rest = hashes[start : start + _BLOCK], hashes[start:]
    # One word rules out nearly all pairs.
    first = np.bitwise_count(block[:, None, 0] ^ rest[None, :, 0])
    rows, columns = np.nonzero(first <= limit)
    above = columns > rows
    rows, columns = rows[above], columns[above]
    bits = _distance(block[rows], rest[columns])
    for k in np.flatnonzero(bits <= limit):
      yield start + int(rows[k]), start + int(columns[k]), int(bits[k])


def _distance(a: UInt64[np.ndarray, "n w"], b: UInt64[np.ndarray, "n w"]) -> Int[np.ndarray, "n"]:
  return np.bitwise_count(a ^ b).sum(axis=1, dtype=np.int64)


def _groups(entries: Sequence[tuple[str, Entry]]) -> Iterator[Finding]:
  places: dict[str, dict[str, Entry]] = {}
  for split, entry in entries:
    if entry.group:
      places.setdefault(entry.group, {}).setdefault(split, entry)
  for group, splits in places.items():
    if len(splits) > 1:
      where = ", ".join(_place(split, entry) for split, entry in splits.items())
      yield Finding("group", f"subject or clip {group!r} is in several splits: {where}")


def _sizes(seen: Sequence[tuple[str, Entry, _Seen]]) -> Iterator[Finding]:
  for split, entry, image in seen:
    if entry.boxes is None:
      shapes = [("the image", image.size)]
    else:
      shapes = [(f"box {i}", face) for i, face in enumerate(image.faces, start=1)]
    for what, (width, height) in shapes:
      if min(width, height) < _MIN_SIDE:
        reason = f"is smaller than {_MIN_SIDE} pixels"
      elif max(width, height) > _MAX_ASPECT * min(width, height):
        reason = f"is more than {_MAX_ASPECT:g} times as long as wide"
      else:
        continue
      yield Finding("size", f"{_place(split, entry)}: {what} ({width:g}x{height:g}) {reason}")


def _balance(plan: Plan) -> Iterator[Finding]:
  for split, members in plan.entries.items():
    counts = class_counts(members, plan.options.class_names)
    total = sum(counts.values())
    for name, count in counts.items():
      if count < _RARE * total:
        yield Finding("balance", f"{split}: {count} of {total} labels are {name}")


def _place(split: str, entry: Entry) -> str:
  return f"{split}: {entry.origin}"

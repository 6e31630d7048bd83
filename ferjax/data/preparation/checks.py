"""Checks a data set on disk: opens every image, writes nothing.

  annotation  an error in a list or table
  image       unreadable, or contradicts the annotation
  duplicate   the same image twice
  label       the same image with two labels
  group       a subject or clip in two splits
  near        two similar images
  size        very small images or faces, extreme aspect ratios
  balance     a rare class

`ferjax.data.preparation.duplicates` defines duplicates.
"""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

from ferjax.data.datasets.entries import Entry
from ferjax.data.examples import Loaded, in_threads, load
from ferjax.data.preparation.duplicates import (
  HashedEntry,
  describe_pair,
  location,
  near_pairs,
  signature,
)
from ferjax.data.preparation.plan import Plan, class_counts

ERRORS = ("annotation", "image", "duplicate", "label", "group")
WARNINGS = ("near", "size", "balance")
_MIN_SIDE = 20  # pixels of an image or a face; expressions are hardly visible below
_MAX_ASPECT = 3.0  # of a face image or box
_RARE = 0.01  # fraction of the labels of a split
_MAX_PAIRS = 100_000  # listed near duplicates


@dataclasses.dataclass(frozen=True)
class Finding:
  """One finding of a check."""

  kind: str
  message: str

  @property
  def is_error(self) -> bool:
    return self.kind in ERRORS


@dataclasses.dataclass(frozen=True, slots=True)
class _MeasuredEntry(HashedEntry):
  """Adds width and height of the image and of each box, pixels."""

  size: tuple[int, int]
  faces: list[tuple[float, float]]


def check_plan(
  plan: Plan, progress: Callable[[int], object] = lambda number: None
) -> list[Finding]:
  """All findings: annotations, images, duplicates and labels, near, groups, sizes, balance.

  Args:
    plan: all its splits are checked, a new validation split too.
    progress: called with the number of opened images.
  """
  findings = [Finding("annotation", problem) for problem in plan.problems]
  entries = [(split, entry) for split, members in plan.entries.items() for entry in members]
  seen: list[_MeasuredEntry] = []

  def measure(item: tuple[str, Entry]) -> _MeasuredEntry:
    options = plan.options
    return _measure(*item, load(item[1], overhang=plan.data_set.overhang, margin=options.margin))

  for _, outcome in in_threads(measure, entries):
    if isinstance(outcome, ValueError):
      findings.append(Finding("image", str(outcome)))
    else:
      seen.append(outcome)
    progress(1)
  findings += _duplicates(seen)
  findings += near_duplicates(seen)
  findings += _groups(entries)
  findings += _sizes(seen)
  findings += _balance(plan)
  return findings


def summary(findings: Sequence[Finding]) -> dict[str, int]:
  """Number of findings of every kind, including 0."""
  counts = collections.Counter(finding.kind for finding in findings)
  return {kind: counts[kind] for kind in ERRORS + WARNINGS}


def _measure(split: str, entry: Entry, loaded: Loaded) -> _MeasuredEntry:
  height, width = loaded.image.shape[:2]
  sides = (loaded.boxes[:, 2:] - loaded.boxes[:, :2]).tolist()
  faces = [(w, h) for w, h in sides]
  return _MeasuredEntry(split, entry, signature(loaded.image), (width, height), faces)


def _duplicates(seen: Sequence[HashedEntry]) -> Iterator[Finding]:
  first: dict[bytes, HashedEntry] = {}
  for one in seen:
    other = first.setdefault(one.signature.digest, one)
    if other is one:
      continue
    where = describe_pair(one, other, 0)
    yield Finding("duplicate", where)
    if other.label != one.label:
      yield Finding("label", f"{where}, with another label")


def near_duplicates(seen: Sequence[HashedEntry], *, limit: int = _MAX_PAIRS) -> Iterator[Finding]:
  """Findings of kind "near": `limit` pairs, and one that reports if there are more."""
  pairs = near_pairs(seen)
  for other, one, bits in itertools.islice(pairs, limit):
    where = describe_pair(one, other, bits)
    yield Finding("near", where if other.label == one.label else f"{where}, with another label")
  if next(pairs, None) is not None:
    reason = "are they all blank, or frames of one film? The others are not listed"
    yield Finding("near", f"more than {limit:,} pairs of images look alike: {reason}")


def _groups(entries: Sequence[tuple[str, Entry]]) -> Iterator[Finding]:
  places: dict[str, dict[str, Entry]] = {}
  for split, entry in entries:
    if entry.group:
      places.setdefault(entry.group, {}).setdefault(split, entry)
  for group, splits in places.items():
    if len(splits) > 1:
      where = ", ".join(location(split, entry) for split, entry in splits.items())
      yield Finding("group", f"subject or clip {group!r} is in several splits: {where}")


def _sizes(seen: Sequence[_MeasuredEntry]) -> Iterator[Finding]:
  for one in seen:
    if one.entry.boxes is None:
      shapes = [("the image", one.size)]
    else:
      shapes = [(f"box {i}", face) for i, face in enumerate(one.faces, start=1)]
    for what, (width, height) in shapes:
      if min(width, height) < _MIN_SIDE:
        reason = f"is smaller than {_MIN_SIDE} pixels"
      elif max(width, height) > _MAX_ASPECT * min(width, height):
        reason = f"has one side more than {_MAX_ASPECT:g} times the other"
      else:
        continue
      yield Finding("size", f"{one.location}: {what} ({width:g}x{height:g}) {reason}")


def _balance(plan: Plan) -> Iterator[Finding]:
  for split, members in plan.entries.items():
    counts = class_counts(members, plan.options.class_names)
    total = sum(counts.values())
    for name, count in counts.items():
      if count < _RARE * total:
        yield Finding("balance", f"{split}: {count} of {total} labels are {name}")

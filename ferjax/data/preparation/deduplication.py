"""Removes duplicates from a plan.

For this, every image is opened once more before the first record is written. The signatures are
stored with the finished shards, so an interrupted run resumes here as well.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence

from ferjax.data.datasets.entries import Entry, RecordError
from ferjax.data.preparation.duplicates import HashedEntry, Signature, check_mode, find_dropped
from ferjax.data.preparation.plan import Plan
from ferjax.data.preparation.shards import Notes, ShardStore

# Entries -> index of each, and its signature, or why its image cannot be read.
Read = Callable[[Sequence[Entry]], Iterator[tuple[int, Signature | str]]]


def without_duplicates(
  plan: Plan,
  mode: str,
  store: ShardStore,
  read: Read,
  *,
  per_file: int,
  progress: Callable[[int], object],
) -> tuple[Plan, dict[str, list[str]]]:
  """The plan without the records that `mode` drops, and split -> a sentence about each of these.

  An image that cannot be read is not a duplicate.

  Args:
    plan: of all records.
    mode: one of `DROP_DUPLICATES`.
    store: keeps the signatures.
    read: opens the images of entries.
    per_file: number of signatures per file.
    progress: called with the number of records whose signatures were stored before, and of dropped
      records.

  Raises:
    ValueError: unknown mode.
    RecordError: a split would be empty.
  """
  check_mode(mode)
  if mode == "none":
    return plan, {}
  seen = []
  for name, split, members in signature_files(plan, per_file):
    notes = store.notes(name)
    if notes is None:
      notes = write_signatures(store, read, name, members)
    else:
      progress(len(members))
    for place, (digest, perceptual) in notes["signatures"]:
      signature = Signature(bytes.fromhex(digest), bytes.fromhex(perceptual))
      seen.append(HashedEntry(split, members[place], signature))
  dropped = find_dropped(seen, mode)
  progress(len(dropped))
  gone = {(one.split, one.entry.key) for one, _ in dropped}
  kept = {
    split: [entry for entry in entries if (split, entry.key) not in gone]
    for split, entries in plan.entries.items()
  }
  why = {split: [text for one, text in dropped if one.split == split] for split in plan.entries}
  for split, entries in kept.items():
    if not entries:
      raise RecordError(
        f"--drop-duplicates {mode} would empty the split {split!r}: all its {len(why[split])} "
        f"records are duplicates, the first: {why[split][0]}; check whether the split is a copy of "
        "another"
      )
  return dataclasses.replace(plan, entries=kept), why


def signature_files(plan: Plan, per_file: int) -> Iterator[tuple[str, str, Sequence[Entry]]]:
  """Name, split and entries of each file of signatures."""
  for split, entries in plan.entries.items():
    for start in range(0, len(entries), per_file):
      yield f"signatures-{split}-{start}", split, entries[start : start + per_file]


def write_signatures(store: ShardStore, read: Read, name: str, members: Sequence[Entry]) -> Notes:
  """Writes one of `signature_files`."""
  return store.write(name, lambda path: _note(path, read(members)))


def _note(path: str, outcomes: Iterator[tuple[int, Signature | str]]) -> Notes:
  pathlib.Path(path).touch()  # the notes contain everything
  return {
    "signatures": [
      (place, (outcome.digest.hex(), outcome.hash.hex()))
      for place, outcome in outcomes
      if isinstance(outcome, Signature)
    ]
  }

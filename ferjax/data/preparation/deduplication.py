"""Leaving duplicates out of what is prepared.

Every image is opened once more for it, before the first record is written. What was read of the
images lies with the finished shards, so that an interrupted run goes on here as well.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence

from ferjax.data.datasets.layout import Entry
from ferjax.data.datasets.records import RecordError
from ferjax.data.preparation.duplicates import Seen, Signature, check_mode, find_dropped
from ferjax.data.preparation.plan import Plan
from ferjax.data.preparation.shards import Notes, ShardStore

# Entries -> place of each, and its signature or why its image cannot be read.
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
  """The plan without the records that `mode` drops, and these: split -> a sentence about each.

  An image that cannot be read is no duplicate.

  Args:
    plan: of all records.
    mode: one of `DROP_DUPLICATES`.
    store: keeps what was read.
    read: opens the images of entries.
    per_file: entries of which the signatures lie in one file.
    progress: told of records whose signatures were there, and of records dropped.

  Raises:
    ValueError: there is no such mode.
    RecordError: nothing would be left of a split.
  """
  check_mode(mode)
  if mode == "none":
    return plan, {}
  seen = []
  for split, entries in plan.entries.items():
    for start in range(0, len(entries), per_file):
      piece = entries[start : start + per_file]
      name = f"signatures-{split}-{start}"
      notes = store.notes(name)
      if notes is None:
        notes = store.write(name, lambda path, piece=piece: _note(path, read(piece)))
      else:
        progress(len(piece))
      for place, (digest, perceptual) in notes["signatures"]:
        signature = Signature(bytes.fromhex(digest), bytes.fromhex(perceptual))
        seen.append(Seen(split, piece[place], signature))
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
        f"--drop-duplicates {mode} leaves nothing of the split {split!r}: its "
        f"{len(why[split])} records are duplicates, the first: {why[split][0]}; check whether the "
        "split is a copy of another"
      )
  return dataclasses.replace(plan, entries=kept), why


def _note(path: str, outcomes: Iterator[tuple[int, Signature | str]]) -> Notes:
  pathlib.Path(path).touch()  # the notes are all that there is to keep
  return {
    "signatures": [
      (place, (outcome.digest.hex(), outcome.hash.hex()))
      for place, outcome in outcomes
      if isinstance(outcome, Signature)
    ]
  }

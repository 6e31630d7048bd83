"""What the report of a prepared set needs besides its plan.

It is in the set's folder from before that folder gets its name until the report is written: so the
report of a preparation that was stopped in between can still be written.
"""

import json
from typing import NamedTuple

from etils import epath

from ferjax.data.datasets.entries import Entry
from ferjax.data.preparation.plan import Plan

FILE = "unreported.json"


class Written(NamedTuple):
  """The records that were written and left out, by split; see `RecordsBuilder`."""

  kept: dict[str, list[Entry]]
  sizes: dict[str, list[list[int]]]
  left_out: dict[str, list[str]]
  duplicates: dict[str, list[str]]


def save(folder: epath.Path, written: Written, fingerprint: str) -> None:
  """Writes the file; `fingerprint` is that of the plan."""
  keys = {split: [entry.key for entry in entries] for split, entries in written.kept.items()}
  content = {"fingerprint": fingerprint, **written._asdict(), "kept": keys}
  (folder / FILE).write_text(json.dumps(content))


def load(folder: epath.Path, plan: Plan, fingerprint: str) -> Written | None:
  """Reads the file; None if there is none, or only that of another plan."""
  file = folder / FILE
  if not file.exists():
    return None
  content = json.loads(file.read_text())
  if content.pop("fingerprint") != fingerprint:
    return None
  entries = {entry.key: entry for members in plan.entries.values() for entry in members}
  kept = {split: [entries[key] for key in keys] for split, keys in content.pop("kept").items()}
  return Written(kept=kept, **content)


def remove(folder: epath.Path) -> None:
  """Deletes the file: the report is complete."""
  (folder / FILE).unlink(missing_ok=True)

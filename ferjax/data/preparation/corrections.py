"""Corrected labels: a table of records with their label in the set and a new one.

    record,given,label
    1204,anger,fear
    1310,sadness,unknown

A record with the label `unknown` is left out. Further columns are ignored.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from ferjax.data.datasets.entries import Entry, LayoutError, RecordError
from ferjax.data.datasets.parsing import parse_class, parse_optional_class, read_rows
from ferjax.data.label_columns import GIVEN, LABEL, RECORD
from ferjax.data.preparation.plan import Plan
from ferjax.expressions import UNKNOWN, UNLABELLED
from ferjax.output import escaped


@dataclasses.dataclass(frozen=True)
class _Correction:
  given: int
  label: int
  origin: str


def corrected(plan: Plan, table: str | os.PathLike) -> Plan:
  """A plan with the labels of a table.

  The splits are those of the labels as released, so a correction moves no record to another split.

  Args:
    plan: of a set for classification.
    table: its columns are `record`, a record's key; `given`, its label in the set; and `label`.

  Raises:
    LayoutError: a missing table or column, or nothing to correct.
    RecordError: a row that does not fit the set; the message names it.
    ValueError: the plan is for detection.
  """
  path = pathlib.Path(table)
  if plan.options.task != "classification":
    raise ValueError(
      f"--labels {path} corrects the labels of faces, but the set is prepared for "
      f"{plan.options.task}; label boxes with the source csv (`ferjax data label`)"
    )
  corrections, names = _read(path, plan), plan.options.class_names
  entries = {
    split: [x for entry in members if (x := _apply(entry, corrections, names)) is not None]
    for split, members in plan.entries.items()
  }
  known = {escaped(entry.key) for members in plan.entries.values() for entry in members}
  if unused := [key for key in corrections if key not in known]:
    raise RecordError(
      f"{corrections[unused[0]].origin}: the set has no record {unused[0]!r}; the table must be of "
      "the same set, with the same options"
    )
  for split, members in entries.items():
    if not members:
      raise LayoutError(f"{path}: all records of the split {split!r} have the label {UNKNOWN}")
  changes = [x for x in corrections.values() if x.label != x.given]
  dropped = sum(x.label == UNLABELLED for x in changes)
  note = f"{path.name}: {len(changes) - dropped:,} labels corrected, {dropped:,} records left out"
  return dataclasses.replace(plan, entries=entries, corrections=note)


def _apply(
  entry: Entry, corrections: Mapping[str, _Correction], names: Sequence[str]
) -> Entry | None:
  """The entry with its new label; None if it is left out."""
  correction = corrections.get(escaped(entry.key))
  if correction is None:
    return entry
  given = entry.classes[0]
  if given != correction.given:
    raise RecordError(
      f"{correction.origin}: the column {GIVEN} is {names[correction.given]}, but the label in the "
      f"set is {names[given]}; the table must be of the same set, with the same options"
    )
  if correction.label == given:
    return entry
  is_left_out = correction.label == UNLABELLED
  return None if is_left_out else dataclasses.replace(entry, label=correction.label)


def _read(path: pathlib.Path, plan: Plan) -> dict[str, _Correction]:
  corrections: dict[str, _Correction] = {}
  for key, correction in _rows(path, plan):
    if key in corrections:
      raise RecordError(f"{correction.origin}: the record {key!r} is in {corrections[key].origin}")
    corrections[key] = correction
  if not corrections:
    raise LayoutError(f"{path}: no rows; expected a row for each record to correct")
  return corrections


def _rows(path: pathlib.Path, plan: Plan) -> Iterator[tuple[str, _Correction]]:
  names = plan.options.class_names
  for line, cells in read_rows(path, (RECORD, GIVEN, LABEL)):
    origin = f"{path}:{line}"
    if not cells[LABEL]:
      raise RecordError(
        f"{origin}: the column {LABEL} is empty; expected a class, or {UNKNOWN}: leave the face out"
      )
    given = parse_class(cells[GIVEN], names, origin)
    label = parse_optional_class(cells[LABEL], names, origin)
    yield cells[RECORD], _Correction(given, label, origin)

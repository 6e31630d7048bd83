"""Tables of an audit: suspected labels, which a person corrects, and predictions to audit with."""

import csv
import math
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ferjax.audit.issues import Issues
from ferjax.data.datasets.entries import Entry, LayoutError, RecordError
from ferjax.data.datasets.parsing import read_rows
from ferjax.data.label_columns import CONFIDENCE, GIVEN, LABEL, PROBABILITY, RECORD, WEIGHTS
from ferjax.output import atomic_writer, escaped

QUALITY, SUGGESTED = "quality", "suggested"
_TOLERANCE = 0.01  # of the sum of probabilities that are written with two digits or more


def write_issues(
  path: pathlib.Path,
  entries: Sequence[Entry],
  class_names: Sequence[str],
  probabilities: Float[np.ndarray, "n k"],
  issues: Issues,
  source: str,
) -> None:
  """Writes the suspected records, the least likely label first.

  The column `label` is the label of the set: a person corrects it, and
  `ferjax.data.preparation.corrections` reads it.

  Args:
    path: of the table.
    entries: all records.
    class_names: in the order of the class ids.
    probabilities: out of fold.
    issues: found with them.
    source: names what gave the probabilities.
  """
  columns = [RECORD, "origin", "split", GIVEN, LABEL, SUGGESTED, CONFIDENCE, QUALITY, WEIGHTS]
  with atomic_writer(path) as file:
    table = csv.DictWriter(file, [*columns, *(f"{PROBABILITY}{name}" for name in class_names)])
    table.writeheader()
    for i in issues.suspected:
      entry, row = entries[i], probabilities[i]
      given = class_names[entry.classes[0]]
      table.writerow(
        {
          RECORD: escaped(entry.key),
          "origin": escaped(entry.origin),
          "split": entry.split,
          GIVEN: given,
          LABEL: given,
          SUGGESTED: class_names[int(issues.suggested[i])],
          CONFIDENCE: f"{row.max():.4f}",
          QUALITY: f"{issues.quality[i]:.4f}",
          WEIGHTS: source,
          **{f"{PROBABILITY}{c}": f"{p:.4f}" for c, p in zip(class_names, row, strict=True)},
        }
      )


def read_predictions(
  path: pathlib.Path, entries: Sequence[Entry], class_names: Sequence[str]
) -> Float[np.ndarray, "n k"]:
  """The probabilities of a table with the columns `record` and `p_CLASS` for each class.

  Args:
    path: of the table; records that are not in `entries` are ignored.
    entries: the records; `record` is their key.
    class_names: in the order of the columns of the result.

  Raises:
    LayoutError: a missing table or column, or a record without a row.
    RecordError: a row without probabilities.
  """
  columns = [f"{PROBABILITY}{name}" for name in class_names]
  found: dict[str, np.ndarray] = {}
  for line, cells in read_rows(path, (RECORD, *columns)):
    origin = f"{path}:{line}"
    if cells[RECORD] in found:
      raise RecordError(f"{origin}: the record {cells[RECORD]!r} has a row before this one")
    values = np.array([_probability(cells[column], column, origin) for column in columns])
    if abs(values.sum() - 1) > _TOLERANCE:
      raise RecordError(
        f"{origin}: the probabilities of {', '.join(columns)} add up to {values.sum():g}; expected "
        "1"
      )
    found[cells[RECORD]] = values / values.sum()
  missing = [entry for entry in entries if escaped(entry.key) not in found]
  if missing:
    example = f"the record {escaped(missing[0].key)!r} ({missing[0].origin})"
    raise LayoutError(
      f"{path} has no row of {example}, nor of {len(missing) - 1:,} others; expected one of each "
      "record, from a model that was not trained on it"
    )
  return np.stack([found[escaped(entry.key)] for entry in entries])


def _probability(text: str, column: str, origin: str) -> float:
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not 0 <= value <= 1:
    raise RecordError(f"{origin}: {column} is {text!r}; expected a probability, 0 to 1")
  return value

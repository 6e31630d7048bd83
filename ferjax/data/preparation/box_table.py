"""The boxes of any data set as rows of a table, which the source `csv` reads."""

import csv
import pathlib
from collections.abc import Sequence

from ferjax.data.datasets.csv_table import COLUMNS, CORNERS, CSV, read_cells
from ferjax.data.datasets.entries import Entry, RecordError
from ferjax.data.datasets.parsing import relative_key
from ferjax.data.examples import Loaded
from ferjax.data.preparation.plan import Plan
from ferjax.expressions import UNKNOWN, UNLABELLED
from ferjax.output import atomic_writer

Row = dict[str, str]  # cells by column
GROUP = "group"


class BoxTable:
  """Collects the rows of a data set's records.

  The rows of a `csv` table keep all of their cells, and their order; only paths relative to the
  folder of the table become relative to the folder of the set. The rows of other sets have such
  paths, and boxes in pixels, clipped to the image.

  Args:
    plan: of the data set, for detection.
    root: the folder that the plan was made from.
  """

  def __init__(self, plan: Plan, root: pathlib.Path):
    self._root = root
    self._class_names = plan.options.class_names
    self._cells: dict[int, Row] = {}  # by line of a table
    self._rows: list[tuple[int, Row]] = []  # each with its place
    if plan.data_set is CSV:
      self._cells = read_cells(root, plan.options)
      self.columns = list(next(iter(self._cells.values())))
    else:
      has_groups = any(entry.group for entries in plan.entries.values() for entry in entries)
      self.columns = [*COLUMNS, *CORNERS, *([GROUP] if has_groups else [])]

  def add(self, entry: Entry, loaded: Loaded) -> list[Row]:
    """Adds the rows of a record, and returns those of its boxes, in order; they can be changed."""
    if self._cells:
      placed = [(line, self._cells[line]) for line in entry.lines]
      for _, row in placed:
        if not (self._root / row["image"]).is_file():  # the new table may be in another folder
          row["image"] = self._path(entry)
    else:
      placed = [(len(self._rows) + i, row) for i, row in enumerate(self._new_rows(entry, loaded))]
    self._rows += placed
    return [row for _, row in placed][: len(entry.classes)]

  def check_path(self, entry: Entry) -> None:
    """Raises a RecordError if the table cannot contain the path of the image."""
    try:
      self._path(entry).encode()
    except UnicodeEncodeError:
      raise RecordError(
        f"{entry.origin}: the file name has bytes that are not UTF-8, which a table cannot "
        "contain; rename the file"
      ) from None

  def write(self, path: pathlib.Path) -> None:
    """Writes all rows; cells of missing columns are empty."""
    with atomic_writer(path) as file:
      table = csv.DictWriter(file, self.columns)
      table.writeheader()
      table.writerows(row for _, row in sorted(self._rows, key=lambda placed: placed[0]))

  def __len__(self) -> int:
    return len(self._rows)

  def _new_rows(self, entry: Entry, loaded: Loaded) -> list[Row]:
    row = {"image": self._path(entry), "split": entry.split}
    if entry.group:
      row[GROUP] = entry.group
    return [
      row | {"label": self._name(c)} | dict(zip(CORNERS, _texts(box), strict=True))
      for c, box in zip(entry.classes, loaded.boxes.tolist(), strict=True)
    ] or [row]

  def _path(self, entry: Entry) -> str:
    return relative_key(str(entry.image), self._root)

  def _name(self, index: int) -> str:
    return UNKNOWN if index == UNLABELLED else self._class_names[index]


def _texts(box: Sequence[float]) -> list[str]:
  return [f"{edge:.7g}" for edge in box]  # the digits of float32

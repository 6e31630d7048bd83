"""The table of faces as CSV and Parquet, a row for each face and frame."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

CSV, PARQUET = "faces.csv", "faces.parquet"
RAW, SMOOTHED = "raw_", "smoothed_"  # before the names of the classes
_ROWS = 4096  # of a group: so many are in memory


def face_schema(class_names: Sequence[str], *, with_detections: bool) -> pa.Schema:
  """The columns: docs/video.md describes them."""
  columns: list[tuple[str, pa.DataType]] = [("time", pa.float64()), ("frame", pa.int64())]
  columns.append(("track", pa.int32()))
  columns += [(edge, pa.float64()) for edge in ("x1", "y1", "x2", "y2")]
  columns += [("score", pa.float64()), ("expression", pa.string())]
  columns += [("smoothed_score", pa.float64()), ("smoothed_expression", pa.string())]
  if with_detections:
    columns += [("detection_score", pa.float64()), ("detection_expression", pa.string())]
  columns += [(kind + name, pa.float64()) for kind in (RAW, SMOOTHED) for name in class_names]
  return pa.schema(columns)


class FaceTable:
  """Writes the rows to both files while a film is read; `close` gives them their names.

  Attributes:
    rows: the number of rows so far.
  """

  def __init__(self, folder: pathlib.Path, schema: pa.Schema):
    """Creates partial files in the folder, which exists.

    Raises:
      OSError: they cannot be created.
    """
    self.rows = 0
    self._folder, self._schema = folder, schema
    self._waiting: list[Mapping[str, Any]] = []
    self._csv = pyarrow.csv.CSVWriter(str(self._partial(CSV)), schema)
    self._parquet = pyarrow.parquet.ParquetWriter(str(self._partial(PARQUET)), schema)

  def add(self, row: Mapping[str, Any]) -> None:
    """Adds a row; every column has a value, or None.

    Raises:
      OSError: it cannot be written.
    """
    self._waiting.append(row)
    self.rows += 1
    if len(self._waiting) >= _ROWS:
      self._write()

  def close(self) -> None:
    """Completes the files.

    Raises:
      OSError: they cannot be written.
    """
    self._write()
    self._csv.close()
    self._parquet.close()
    for name in (CSV, PARQUET):
      os.replace(self._partial(name), self._folder / name)

  def discard(self) -> None:
    """Removes the partial files, after an error."""
    for name in (CSV, PARQUET):
      self._partial(name).unlink(missing_ok=True)

  def _write(self) -> None:
    table = pa.Table.from_pylist(self._waiting, schema=self._schema)
    self._csv.write_table(table)
    self._parquet.write_table(table)
    self._waiting = []

  def _partial(self, name: str) -> pathlib.Path:
    return self._folder / f".partial.{name}"

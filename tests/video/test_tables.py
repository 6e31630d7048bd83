import csv

import pyarrow.parquet
import pytest

from ferjax.video.tables import FaceTable, face_schema

NAMES = ("glücklich", 'a, "b"')


def _row(number):
  row = dict.fromkeys(face_schema(NAMES, with_detections=True).names)
  return row | {
    "time": number / 25,
    "frame": number,
    "track": 1 + number % 2,
    "score": 0.5,
    "expression": NAMES[number % 2],
  }


def test_many_rows(tmp_path):
  table = FaceTable(tmp_path, face_schema(NAMES, with_detections=True))
  for number in range(5000):
    table.add(_row(number))
  assert not (tmp_path / "faces.csv").exists()
  table.close()
  assert table.rows == 5000
  with (tmp_path / "faces.csv").open(newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  read = pyarrow.parquet.read_table(tmp_path / "faces.parquet").to_pylist()
  assert len(rows) == len(read) == 5000
  for number in (0, 4095, 4096, 4999):
    assert read[number] == _row(number)
    assert rows[number] == {
      name: "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
      for name, value in _row(number).items()
    }
  assert sorted(path.name for path in tmp_path.iterdir()) == ["faces.csv", "faces.parquet"]


def test_no_rows(tmp_path):
  FaceTable(tmp_path, face_schema(("a",), with_detections=False)).close()
  assert pyarrow.parquet.read_table(tmp_path / "faces.parquet").num_rows == 0
  assert (tmp_path / "faces.csv").read_text().count("\n") == 1


def test_discarded(tmp_path):
  table = FaceTable(tmp_path, face_schema(("a",), with_detections=False))
  table.discard()
  assert not list(tmp_path.iterdir())
  with pytest.raises(OSError, match="partial"):
    FaceTable(tmp_path / "missing", face_schema(("a",), with_detections=False))

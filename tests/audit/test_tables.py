import csv

import numpy as np
import pytest

from ferjax.audit.issues import Issues
from ferjax.audit.tables import read_predictions, write_issues
from ferjax.data.datasets.entries import Entry, LayoutError, RecordError

NAMES = ("neutral", "anger")
ENTRIES = [Entry(f"list.txt:{i}", key, "", "train", i % 2) for i, key in enumerate("abc")]
HEAD = "record,p_neutral,p_anger\n"


def test_suspected_records_are_written_in_order(tmp_path):
  probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.25, 0.75]])
  issues = Issues(np.array([0.9, 0.3, 0.25]), np.array([2, 1]), np.array([0, 0, 1]))
  write_issues(tmp_path / "labels.csv", ENTRIES, NAMES, probabilities, issues, "atto")
  with open(tmp_path / "labels.csv", newline="") as file:
    rows = list(csv.DictReader(file))
  assert [row["record"] for row in rows] == ["c", "b"]
  assert rows[0] == {
    "record": "c", "origin": "list.txt:2", "split": "train", "given": "neutral",
    "label": "neutral", "suggested": "anger", "confidence": "0.7500", "quality": "0.2500",
    "weights": "atto", "p_neutral": "0.2500", "p_anger": "0.7500",
  }  # fmt: skip


def test_predictions_are_read_by_record(tmp_path):
  (tmp_path / "own.csv").write_text(
    "p_anger,fold,record,p_neutral\n0.2,1,c,0.8\n0.5,1,a,0.5\n1,2,b,0\n0,0,other,1\n"
  )
  found = read_predictions(tmp_path / "own.csv", ENTRIES, NAMES)
  np.testing.assert_allclose(found, [[0.5, 0.5], [0, 1], [0.8, 0.2]])


@pytest.mark.parametrize(
  ("text", "error", "message"),
  [
    ("record,p_neutral\n", LayoutError, "own.csv:1: no column 'p_anger'"),
    (f"{HEAD}a,0.5,x\n", RecordError, "own.csv:2: p_anger is 'x'; expected a probability, 0 to 1"),
    (f"{HEAD}a,-0.5,1.5\n", RecordError, "own.csv:2: p_neutral is '-0.5'; expected a probabil"),
    (f"{HEAD}a,0.5,0.3\n", RecordError, "p_neutral, p_anger add up to 0.8; expected 1"),
    (f"{HEAD}a,1,0\na,1,0\n", RecordError, "own.csv:3: the record 'a' has a row before this"),
    (f"{HEAD}a,1,0\n", LayoutError, r"no row of the record 'b' \(list.txt:1\), nor of 1 others"),
  ],
)
def test_bad_predictions_are_refused(tmp_path, text, error, message):
  (tmp_path / "own.csv").write_text(text)
  with pytest.raises(error, match=message):
    read_predictions(tmp_path / "own.csv", ENTRIES, NAMES)

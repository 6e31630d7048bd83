"""The command; what it computes is tested in tests/reports."""

import json

import numpy as np
import pytest

from ferjax.commands.main import main
from ferjax.reports.predictions import FILE, Predictions
from ferjax.tasks.classification.metrics import ClassificationMetrics


@pytest.fixture
def runs(tmp_path):
  for name, wrong in (("a", 8), ("b", 1)):
    truth = np.arange(30) % 3
    predicted = np.where(np.arange(30) < wrong, (truth + 1) % 3, truth)
    arrays = {"index": np.arange(30), "truth": truth, "predicted": predicted}
    metrics = ClassificationMetrics.from_arrays(
      ("x", "y", "z"), {**arrays, "probability": np.full(30, 0.5)}
    )
    (tmp_path / name).mkdir()
    records = np.arange(30, dtype=np.uint64)
    Predictions(metrics, metrics.compute(), records, name, 5, 1.0, "val", "").write(
      tmp_path / name / FILE
    )
  return tmp_path


def test_text_json_and_page(runs, capsys):
  words = ["compare", str(runs / "a"), str(runs / "b")]
  assert main([*words, "--report", str(runs / "new" / "page.html")]) == 0
  text = capsys.readouterr().out
  assert "30 records of the validation split" in text
  assert "b    accuracy           +0.2333" in text
  assert f"written to {runs / 'new' / 'page.html'}" in text
  assert (runs / "new" / "page.html").read_text().startswith("<!DOCTYPE html>")
  assert main([*words, "--json"]) == 0
  found = json.loads(capsys.readouterr().out)
  assert found["differences"][0]["metrics"]["accuracy"]["value"] == pytest.approx(7 / 30)
  assert found["differences"][0]["metrics"]["accuracy"]["excludes_zero"] is True


def test_errors(runs, capsys):
  assert main(["compare", str(runs / "a"), str(runs / "none")]) == 2
  assert capsys.readouterr().err.startswith(f"ferjax: error: {runs / 'none'}: no such folder")
  wrong = ["compare", str(runs / "a"), str(runs / "b"), "--report", str(runs)]
  assert main(wrong) == 2
  assert "is a folder; expected to write a file there" in capsys.readouterr().err

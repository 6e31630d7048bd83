import numpy as np
import pytest

from ferjax.reports.history import read_history


def test_series(tmp_path):
  (tmp_path / "metrics.jsonl").write_text(
    '{"step": 2, "epoch": 0.5, "train/loss": 3}\n{"step": 4, "epoch": 1, "eval/map": NaN}\n'
    '{"step": 4, "epoch": 1, "train/loss": 2}\n{"step": 6, "train/lo'
  )
  history = read_history(tmp_path)
  steps, values = history.series("train/loss")
  assert (steps.tolist(), values.tolist()) == ([2, 4], [3, 2])
  assert np.isnan(history.series("eval/map")[1]).all()
  assert history.series("none")[0].size == 0
  assert history.names() == {"train/loss", "eval/map"}


def test_no_file_and_a_damaged_one(tmp_path):
  assert read_history(tmp_path).lines == []
  (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n[1]\n{"step": 2}\n')
  with pytest.raises(ValueError, match=r"metrics.jsonl:2 is damaged: '\[1\]'; delete this line"):
    read_history(tmp_path)

import json

import numpy as np
import pytest

from ferjax.reports.predictions import FILE, has_predictions, read_predictions, record_ids


@pytest.mark.parametrize("kind", ["classifier", "detector"])
def test_the_file_has_everything(kind, made, tmp_path):
  metrics = getattr(made, kind)()
  source = made.Images(len(metrics.arrays()["index"]))
  written = made.evaluation(metrics, source, selection="on the test split: why not", split="test")
  written.write(tmp_path / FILE)
  read = read_predictions(tmp_path / FILE)
  assert read.metrics.compute() == metrics.compute()
  assert read.task == written.task
  assert read.values == written.values
  assert (read.checkpoint, read.step, read.epoch) == ("run/checkpoints/20", 20, 2.0)
  assert (read.split, read.selection) == ("test", "on the test split: why not")
  assert read.records.tolist() == record_ids(source, np.arange(len(source))).tolist()
  assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_records_are_known_by_their_origin(made):
  few, many = (record_ids(made.Images(n), np.arange(n)) for n in (3, 50))
  assert few.tolist() == many[:3].tolist()
  assert len(set(many.tolist())) == 50
  other = record_ids(made.Images(50, folder="val"), np.arange(50))
  assert not set(many.tolist()) & set(other.tolist())


def test_metrics_of_other_packages_are_not_written(made):
  assert has_predictions(made.classifier())
  assert not has_predictions(object())


def test_damaged_files(made, tmp_path):
  path = tmp_path / FILE
  with pytest.raises(FileNotFoundError):
    read_predictions(path)
  made.evaluation(made.classifier(), made.Images(40)).write(path)
  whole = path.read_bytes()
  with np.load(path) as file:
    arrays = dict(file)
  contents = [b"", b"no archive", whole[:200], whole[:-30]]
  for content in contents:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"predictions\.npz cannot be read .*; evaluate again"):
      read_predictions(path)
  meta = json.loads(str(arrays["meta"]))
  for change, reason in (
    ({"meta": json.dumps({**meta, "format": 2})}, "format 2, expected 1"),
    ({"meta": json.dumps({**meta, "task": "segmentation"})}, "segmentation"),
    ({"meta": "[]"}, ""),
    ({"truth": np.array([object()])}, "pickle"),
  ):
    np.savez(path, **{**arrays, **change})
    with pytest.raises(ValueError, match=rf"predictions\.npz cannot be read .*{reason}"):
      read_predictions(path)

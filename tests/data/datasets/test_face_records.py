"""Labels of records, hard and soft."""

import pickle

import numpy as np
import pytest
from PIL import Image

from ferjax.data.datasets.face_records import FaceRecord, FaceSource, class_counts
from ferjax.data.datasets.records import LabelledSource
from ferjax.data.image import ImageError

NAMES = ("neutral", "happiness", "anger")


@pytest.fixture
def folder(tmp_path):
  for name, level in (("a.png", 10), ("b.png", 20)):
    Image.new("RGB", (40, 30), (level,) * 3).save(tmp_path / name)
  return tmp_path


def _source(folder, *labels):
  records = [
    FaceRecord(f"t.csv:{i}", str(folder / name), label)
    for i, (name, label) in enumerate(zip(("a.png", "b.png"), labels, strict=False))
  ]
  return FaceSource(records, NAMES, ["t.csv:9: gone"], origin="t.csv")


def test_reads_records(folder, caplog):
  with caplog.at_level("INFO"):
    source = _source(folder, 2, (0.25, 0.75, 0.0))
  assert "t.csv: 2 images: neutral 0, happiness 1, anger 1" in caplog.text
  assert isinstance(source, LabelledSource)
  assert (len(source), source.task, source.class_names) == (2, "classification", NAMES)
  assert source.skipped == ["t.csv:9: gone"]
  assert source.origin(1) == "t.csv:1"
  np.testing.assert_array_equal(source.labels, [[0, 0, 1], [0.25, 0.75, 0]])
  assert source.labels.dtype == np.float32
  for copy in (source, pickle.loads(pickle.dumps(source))):
    example = copy[1]
    assert (example["image"] == 20).all()
    assert example["image"].shape == (30, 40, 3)
    np.testing.assert_array_equal(example["label"], [0.25, 0.75, 0])


def test_damaged_image_is_named_on_access(folder):
  source = _source(folder, 0, 1)
  (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:40])
  assert source[0]["label"].tolist() == [1, 0, 0]
  with pytest.raises(ImageError, match=r"^t.csv:1: "):
    source[1]


@pytest.mark.parametrize(
  ("label", "message"),
  [
    (3, r"t.csv:1: class 3; expected 0..2"),
    (-1, "class -1; expected"),
    ((0.5, 0.5), r"t.csv:1: label \(0.5, 0.5\); expected 3 probabilities that sum to 1"),
    ((0.5, 0.5, 0.5), "expected 3 probabilities"),
    ((1.5, -0.5, 0.0), "expected 3 probabilities"),
    ((float("nan"), 0.5, 0.5), "expected 3 probabilities"),
  ],
)
def test_impossible_labels_are_refused(folder, label, message):
  with pytest.raises(ValueError, match=message):
    _source(folder, 0, label)


def test_counts():
  labels = np.array([[0.4, 0.6, 0], [1, 0, 0], [0, 1, 0]], np.float32)
  assert class_counts(labels) == [1, 2, 0]
  assert class_counts(labels[:0]) == [0, 0, 0]

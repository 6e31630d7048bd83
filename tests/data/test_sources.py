"""Sources of entries: examples, labels and bad records."""

import pickle

import numpy as np
import pytest
from PIL import Image

from ferjax.data import image as image_lib
from ferjax.data import sources
from ferjax.data.datasets.base import Reading
from ferjax.data.datasets.entries import Entry, Pixels, RecordError
from ferjax.data.image import ImageError

NAMES = ("neutral", "happiness", "anger")


@pytest.fixture
def folder(tmp_path):
  for name, level in (("a.png", 10), ("b.png", 20)):
    Image.new("RGB", (40, 30), (level,) * 3).save(tmp_path / name)
  return tmp_path


def _source(folder, *labels):
  entries = [
    Entry(f"t.csv:{i}", name, str(folder / name), "train", label)
    for i, (name, label) in enumerate(zip(("a.png", "b.png"), labels, strict=False))
  ]
  return sources.ReleasedFaces(entries, NAMES, ["t.csv:9: gone"])


def test_reads_entries(folder):
  source = _source(folder, 2, (0.25, 0.75, 0.0))
  assert isinstance(source, sources.LabelledSource)
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
  assert sources.class_counts(labels) == [1, 2, 0]
  assert sources.class_counts(labels[:0]) == [0, 0, 0]


def test_pixels_and_boxes(folder):
  entries = [
    Entry("t:1", "1", Pixels(bytes(range(6)), 3, 2), "train", 0),
    Entry("t:2", "2", str(folder / "a.png"), "train", 1, crop=(10.0, 5.0, 20.0, 25.0)),
  ]
  source = sources.ReleasedFaces(entries, NAMES, opening=sources.Opening(margin=0.5))
  np.testing.assert_array_equal(source[0]["image"][..., 0], [[0, 1, 2], [3, 4, 5]])
  assert source[1]["image"].shape == (30, 20, 3)  # 5 and 10 pixels more, clipped to the image
  boxes = ((0.25, 0.5, 0.5, 1.0), (0.0, 0.0, 1.0, 1.0))
  entry = Entry("t:3", "3", str(folder / "a.png"), "train", (2, 0), boxes=boxes, relative=True)
  empty = Entry("t:4", "4", str(folder / "b.png"), "train", (), boxes=())
  source = sources.ReleasedDetection([entry, empty], NAMES)
  np.testing.assert_array_equal(source[0]["boxes"], [[10, 15, 20, 30], [0, 0, 40, 30]])
  assert source[0]["label"].tolist() == [2, 0]
  assert (source[1]["boxes"].shape, source[1]["label"].shape) == ((0, 4), (0,))
  assert (source.max_boxes, source.task) == (2, "detection")
  with pytest.raises(IndexError):
    source[2]


def test_a_large_source_pickles_to_few_bytes():
  """Each worker gets a copy."""
  path = "/data/faces/{:06d}.jpg"
  names = [path.format(i) for i in range(999)]
  entries = [Entry(f"t.csv:{i}", name, name, "train", i % 3) for i, name in enumerate(names)]
  assert len(pickle.dumps(sources.ReleasedFaces(entries, NAMES))) < 250 * len(entries)


def test_only_record_errors_are_problems():
  def parse(row):
    if row < 0:
      raise RecordError(f"row {row}")
    return Entry(str(row), str(row), "", "train", 1 // row)

  reading = Reading()
  reading.add_all([1, -1, 2, -2], parse)
  assert [entry.origin for entry in reading.entries] == ["1", "2"]
  assert reading.problems == ["row -1", "row -2"]
  with pytest.raises(ZeroDivisionError):
    reading.add_all([0], parse)


class Damaged:
  task, class_names, skipped = "detection", ("a",), []

  def __init__(self, error, file="list.txt"):
    self.error, self.file = error, file

  def __len__(self):
    return 6

  def origin(self, index):
    return f"{self.file}:{index + 1}"

  def __getitem__(self, index):
    if index in (2, 4):
      raise self.error(f"{self.origin(index)}: damaged")
    return {"number": index}


@pytest.mark.parametrize("error", [image_lib.ImageError, RecordError])
def test_bad_example_is_an_error_or_none(error):
  source = Damaged(error)
  assert isinstance(source, sources.Source)
  assert sources.load_example(source, 3, "error") == {"number": 3}
  assert sources.load_example(source, 2, "skip") is None
  with pytest.raises(error, match=r"list.txt:3: damaged"):
    sources.load_example(source, 2, "error")


def test_bugs_are_not_treated_as_bad_examples():
  with pytest.raises(KeyError):
    sources.load_example(Damaged(KeyError), 2, "skip")


def test_reason_of_a_skipped_example_is_logged_once(caplog):
  source = Damaged(RecordError, "once.txt")
  with caplog.at_level("WARNING"):
    for _ in range(3):
      for index in range(6):
        sources.load_example(source, index, "skip")
  assert [record.getMessage() for record in caplog.records] == [
    "skipped: once.txt:3: damaged",
    "skipped: once.txt:5: damaged",
  ]

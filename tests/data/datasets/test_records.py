"""Boxes against their image, and bad entries."""

import numpy as np
import pytest

from ferjax.data import image as image_lib
from ferjax.data.datasets import records


def _fit(*boxes, **options):
  boxes = np.array(boxes, np.float32).reshape(-1, 4)
  return records.fit_boxes(boxes, 100, 80, origin="list.txt:1", **options).tolist()


def test_small_overhang_is_clipped():
  assert _fit((-2, -1, 102, 81), (1, 2, 3, 4)) == [[0, 0, 100, 80], [1, 2, 3, 4]]
  assert _fit() == []


def test_large_overhang_needs_permission():
  with pytest.raises(records.RecordError, match=r"list.txt:1: box .* 3 pixels over the edge"):
    _fit((1, 2, 3, 4), (50, 10, 103, 20))
  with pytest.raises(records.RecordError, match=r"box .* inf pixels over"):
    _fit((50, 10, np.inf, 20))
  assert _fit((-50, 10, 300, 20), overhang=np.inf) == [[0, 10, 100, 20]]


@pytest.mark.parametrize("box", [(100, 10, 101, 20), (-2, 10, 0, 20), (5, 300, 9, 400)])
def test_box_outside_is_always_an_error(box):
  with pytest.raises(records.RecordError, match="lies outside the image of 100x80 pixels"):
    _fit(box, overhang=np.inf)


def test_only_record_errors_are_skipped():
  def parse(entry):
    if entry < 0:
      raise records.RecordError(f"entry {entry}")
    return records.Record(str(entry), "", (), (1 // entry,))

  read, skipped = records.read_records([1, -1, 2, -2], parse, origin="x", on_bad_record="skip")
  assert [record.origin for record in read] == ["1", "2"]
  assert skipped == ["entry -1", "entry -2"]
  with pytest.raises(ZeroDivisionError):
    records.read_records([0], parse, origin="x", on_bad_record="skip")


class Damaged:
  task, class_names, skipped = "detection", ("a",), []

  def __init__(self, error):
    self.error = error

  def __len__(self):
    return 6

  def origin(self, index):
    return f"list.txt:{index + 1}"

  def __getitem__(self, index):
    if index in (2, 4):
      raise self.error(f"{self.origin(index)}: damaged")
    return {"number": index}


@pytest.mark.parametrize("error", [image_lib.ImageError, records.RecordError])
def test_bad_example_is_an_error_or_none(error):
  source = Damaged(error)
  assert isinstance(source, records.Source)
  assert records.load_example(source, 3, "error") == {"number": 3}
  assert records.load_example(source, 2, "skip") is None
  with pytest.raises(error, match=r"list.txt:3: damaged"):
    records.load_example(source, 2, "error")


def test_bugs_are_not_taken_for_bad_examples():
  with pytest.raises(KeyError):
    records.load_example(Damaged(KeyError), 2, "skip")


def test_reason_of_a_skipped_example_is_logged_once(caplog):
  records._warn_once.cache_clear()
  source = Damaged(records.RecordError)
  with caplog.at_level("WARNING"):
    for _ in range(3):
      for index in range(6):
        records.load_example(source, index, "skip")
  assert [record.getMessage() for record in caplog.records] == [
    "skipped: list.txt:3: damaged",
    "skipped: list.txt:5: damaged",
  ]


def test_class_names_are_read_as_people_write_them():
  names = ("neutral", "happiness", "anger")
  assert records.parse_class("Angry", names, "t.csv:3") == 2
  with pytest.raises(
    records.RecordError, match=r"t.csv:3: class 'fear' is not one of neutral, happiness, anger \("
  ):
    records.parse_class("fear", names, "t.csv:3")


def test_lines_keep_their_numbers(tmp_path):
  path = tmp_path / "list.txt"
  path.write_bytes("\ufeffa.jpg\r\n\n  b.jpg 5 \n".encode())
  assert records.read_lines(path) == [(1, "a.jpg"), (3, "b.jpg 5")]
  path.write_bytes(b"a.jpg\n\nb\xe9.jpg\n")
  with pytest.raises(records.RecordError, match=r"list.txt:3: not UTF-8 text; save the file as"):
    records.read_lines(path)

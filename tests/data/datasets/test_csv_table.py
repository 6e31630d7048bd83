"""Rows of the table, good and bad."""

import pickle

import numpy as np
import pytest
from PIL import Image

from ferjax.data.datasets.base import Options
from ferjax.data.datasets.csv_table import CSV
from ferjax.data.datasets.entries import LayoutError
from ferjax.data.image import ImageError
from ferjax.data.loading import open_released
from ferjax.expressions import UNLABELLED

NAMES = ("neutral", "happiness", "anger")


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "images").mkdir()
  for name, level in (("a.png", 10), ("b, c.png", 20)):
    Image.new("RGB", (40, 30), (level,) * 3).save(tmp_path / "images" / name)
  return tmp_path


def _source(folder, text, on_bad_record="error", split="train"):
  (folder / "labels.csv").write_text(text, encoding="utf-8")
  return _open(folder, "labels.csv", split, on_bad_record)


def _open(folder, table, split="train", on_bad_record="error", task=""):
  options = Options(task=task, class_names=NAMES, table=table)
  return open_released(CSV, folder, split, options, on_bad_record=on_bad_record, validates=False)


def test_reads_the_rows_of_a_split(folder):
  source = _source(
    folder,
    "\ufeffperson,split , label,image\r\n"
    "p1,train,Angry,images/a.png\r\n"
    "p1,val,no such class,images/gone.png\r\n"
    "\r\n"
    'p2, train,happiness,"images/b, c.png"\r\n'
    f"p3,train,neutral,{folder}/images/a.png\r\n",
  )
  assert [source.origin(i) for i in range(2)] == [
    "labels.csv:2 (images/a.png)",
    "labels.csv:5 (images/b, c.png)",
  ]
  np.testing.assert_array_equal(source.labels, np.eye(3)[[2, 1, 0]])
  assert [int(source[i]["image"][0, 0, 0]) for i in range(3)] == [10, 20, 10]
  assert source[0]["label"].tolist() == [0, 0, 1]
  assert source.skipped == []
  np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[0]["image"], source[0]["image"])


@pytest.mark.parametrize(
  ("header", "message"),
  [
    (
      "image,label,person",
      r"labels.csv:1: no column 'split'; columns found: image, label, person;",
    ),
    (
      "image;label;split",
      r"no column 'image', 'label', 'split'; columns found: image;label;split; expected comma",
    ),
    ("Image,label,split", r"no column 'image'; columns found: Image, label, split"),
    ("", r"no column 'image', 'label', 'split'; columns found: none"),
  ],
)
def test_missing_column_is_named_with_existing_ones(folder, header, message):
  with pytest.raises(ValueError, match=message):
    _source(folder, f"{header}\nimages/a.png,anger,train\n" if header else "")


@pytest.mark.parametrize(
  ("row", "message"),
  [
    (
      "images/a.png,fear,train",
      r"labels.csv:3 \(images/a.png\): class 'fear' is not one of neutral, happi",
    ),
    ("images/a.png,2,train", "class '2' is not one of"),
    ("images/a.png,,train", "class '' is not one of"),
    ("images/gone.png,anger,train", r"labels.csv:3 .*image file not found: .*images/gone.png"),
    (",anger,train", "labels.csv:3: the column image is empty"),
  ],
)
def test_bad_row_is_named_or_skipped(folder, row, message):
  text = f"image,label,split\nimages/a.png,anger,train\n{row}\nimages/a.png,neutral,train\n"
  with pytest.raises(ValueError, match=message) as caught:
    _source(folder, text)
  assert 'on_bad_record="skip"' in str(caught.value)
  source = _source(folder, text, "skip")
  np.testing.assert_array_equal(source.labels, np.eye(3)[[2, 0]])
  (reason,) = source.skipped
  assert reason.startswith("labels.csv:3")


def test_skipped_rows_are_counted(folder, caplog):
  text = "image,label,split\nimages/a.png,anger,train\nimages/gone.png,anger,train\n"
  with caplog.at_level("WARNING"):
    _source(folder, text, "skip")
  assert "left out 1 bad records of 2" in caplog.text


def _open_val(folder, text):
  """With a named validation split, so that none is taken from train."""
  (folder / "labels.csv").write_text(text)
  options = Options(class_names=NAMES, files={"val": "val"})
  return open_released(CSV, folder, "val", options)


def test_empty_split_lists_the_existing_ones(folder):
  text = "image,label,split\nimages/a.png,anger,test\nimages/a.png,anger,train\nx,y,train\nz\n"
  with pytest.raises(
    ValueError,
    match=r"column split val of the split val not found in .*labels.csv \('test' from line 2 on, "
    r"'train' from line 3 on, '' from line 5 on\); existing: test, train",
  ):
    _open_val(folder, text)
  with pytest.raises(ValueError, match=r"split 'train': empty; existing splits: none"):
    _source(folder, "image,label,split\n")
  with pytest.raises(
    ValueError, match=r"all 1 records are bad or left out, the first: labels.csv:2"
  ):
    _source(folder, "image,label,split\nimages/gone.png,anger,train\n", "skip")


def test_unreadable_tables(folder):
  with pytest.raises(ValueError, match=r"missing  .*faces.csv  \(a table: image, label, split\)"):
    _open(folder, "faces.csv")
  (folder / "faces.csv").write_bytes(b"image,label,split\n\xff\xfe,anger,train\n")
  with pytest.raises(ValueError, match="not UTF-8 text"):
    _open(folder, "faces.csv")
  (folder / "faces.csv").write_text("image,label,split\n" + "x" * 200_000 + ",anger,train\n")
  with pytest.raises(ValueError, match="malformed: field larger than field limit"):
    _open(folder, "faces.csv")
  with pytest.raises(ValueError, match="unknown on_bad_record 'drop'"):
    _open(folder, "labels.csv", on_bad_record="drop")


def test_damaged_image_is_named_on_access(folder):
  (folder / "images" / "a.png").write_bytes(b"not an image")
  source = _source(folder, "image,label,split\nimages/a.png,anger,train\n")
  with pytest.raises(ImageError, match=r"^labels.csv:2 \(images/a.png\): not an image"):
    source[0]


def test_images_next_to_the_table_are_found(folder):
  (folder / "images" / "t.csv").write_text("image,label,split\na.png,anger,train\n")
  source = _open(folder, "images/t.csv")
  assert source.origin(0) == "images/t.csv:2 (a.png)"
  assert int(source[0]["image"][0, 0, 0]) == 10


def test_a_table_is_decoded_by_its_byte_order_mark(folder):
  (folder / "images" / "a.png").rename(folder / "images" / "\u00e9.png")
  table = "image,label,split\r\nimages/\u00e9.png,anger,train\r\n"
  (folder / "labels.csv").write_text(table, encoding="utf-16")
  assert _open(folder, "labels.csv").origin(0) == "labels.csv:2 (images/\u00e9.png)"


def test_a_split_of_any_name(folder):
  rows = "images/a.png,anger,fold 1\nimages/a.png,fear,fold 2\nimages/a.png,neutral,fold 3\n"
  (folder / "labels.csv").write_text(f"image,label,split\n{rows}")
  # Both are named, so the third is ignored; its bad row is not read.
  options = Options(class_names=NAMES, files={"train": "fold 1", "val": "fold 3"})
  labels = [open_released(CSV, folder, split, options).labels for split in ("train", "val")]
  np.testing.assert_array_equal(labels, np.eye(3)[[[2], [0]]])


def test_a_classifier_leaves_out_faces_of_unknown_class(folder):
  text = "image,label,split\nimages/a.png,Unknown,train\nimages/a.png,anger,train\n"
  assert _source(folder, text).labels.tolist() == [[0, 0, 1]]


def _boxes(folder, rows, on_bad_record="error"):
  header = "image,label,split,x1,y1,x2,y2,person"
  (folder / "labels.csv").write_text("\n".join([header, *rows]) + "\n")
  return _open(folder, "labels.csv", on_bad_record=on_bad_record, task="detection")


def test_rows_of_a_detector_are_boxes(folder):
  source = _boxes(
    folder,
    [
      "images/a.png,anger,train,1,2,11,12,",
      '"images/b, c.png",,train,,,,,',
      "images/a.png,anger,val,1,2,11,12,",
      "images/a.png,unknown,train,20.5,2,30,12,p1",
    ],
  )
  assert [source.origin(i) for i in range(2)] == [
    "labels.csv:2 (images/a.png)",
    "labels.csv:3 (images/b, c.png)",
  ]
  np.testing.assert_array_equal(source[0]["boxes"], [[1, 2, 11, 12], [20.5, 2, 30, 12]])
  assert source[0]["label"].tolist() == [2, UNLABELLED]
  assert source[1]["boxes"].shape == (0, 4)
  assert (len(source), source.max_boxes, source.labelled_boxes) == (2, 2, 1)


@pytest.mark.parametrize(
  ("row", "message"),
  [
    ("images/a.png,fear,train,1,2,3,4,", r"labels.csv:3 .*class 'fear' is not .* anger, unknown"),
    ("images/a.png,,train,1,2,3,4,", "labels.csv:3 .*class '' is not one of"),
    ("images/a.png,anger,train,1,2,,4,", r"labels.csv:3 .*the column x2 is ''; expected a number"),
    ("images/a.png,anger,train,3,2,1,4,", r"labels.csv:3 .*box \(3, 2, 1, 4\) has no area"),
    ("images/gone.png,anger,train,1,2,3,4,", "labels.csv:3 .*image file not found"),
    (",anger,train,1,2,3,4,", "labels.csv:3: the column image is empty"),
  ],
)
def test_a_bad_box_is_named_with_its_row(folder, row, message):
  rows = ["images/a.png,anger,train,1,2,11,12,", row]
  with pytest.raises(ValueError, match=message):
    _boxes(folder, rows)


def test_a_table_without_corners_is_for_classifiers(folder):
  (folder / "labels.csv").write_text("image,label,split\nimages/a.png,anger,train\n")
  with pytest.raises(ValueError, match="no column 'x1', 'y1', 'x2', 'y2'; columns found: image"):
    _open(folder, "labels.csv", task="detection")


def _with_columns(folder, text, columns, task=""):
  (folder / "labels.csv").write_text(text)
  options = Options(task=task, class_names=NAMES, columns=columns)
  return open_released(CSV, folder, "train", options, validates=False)


def test_named_columns_become_attributes(folder):
  rows = "image,label,split,age,light\nimages/a.png,anger,train,31,dim\n"
  rows += '"images/b, c.png",neutral,train,,bright\n'
  source = _with_columns(folder, rows, ("light", "age"))
  assert source.attributes == {"light": ["dim", "bright"], "age": ["31", ""]}
  assert _with_columns(folder, rows, ()).attributes == {}
  with pytest.raises(LayoutError, match=r"labels.csv:1: no column 'gender'; columns found: image"):
    _with_columns(folder, rows, ("gender",))


def test_faces_of_a_photograph_may_have_several_values(folder):
  rows = "image,label,split,x1,y1,x2,y2,age,light\nimages/a.png,anger,train,1,2,9,9,8,dim\n"
  rows += 'images/a.png,anger,train,11,2,19,9,70,dim\n"images/b, c.png",,train,,,,,,dim\n'
  source = _with_columns(folder, rows, ("age", "light"), task="detection")
  assert source.attributes == {"age": ["several", ""], "light": ["dim", "dim"]}

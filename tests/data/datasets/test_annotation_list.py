"""Lines of the annotation list, good and bad."""

import pickle

import numpy as np
import pytest
from PIL import Image

from ferjax.data.datasets.annotation_list import ANNOTATION_LIST
from ferjax.data.datasets.base import Options
from ferjax.data.image import ImageError
from ferjax.data.loading import open_released
from ferjax.expressions import UNLABELLED

NAMES = ("neutral", "happiness", "sadness")


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "images").mkdir()
  for name, level in (("a.jpg", 10), ("my holiday photo.png", 20), ("b,c.png", 30)):
    Image.new("RGB", (100, 80), (level,) * 3).save(tmp_path / "images" / name)
  return tmp_path


def _source(folder, text, on_bad_record="error"):
  (folder / "train.txt").write_text(text, encoding="utf-8")
  return _open(folder, on_bad_record)


def _open(folder, on_bad_record="error", split="train", **files):
  options = Options(class_names=NAMES, files=files)
  return open_released(
    ANNOTATION_LIST, folder, split, options, on_bad_record=on_bad_record, validates=False
  )


def test_reads_lines(folder):
  source = _source(
    folder,
    "images/a.jpg 10,20,30,40,0 50.5,1e1,60,+20.25,2\n\n"
    "images/my holiday photo.png\t5,5,95,75,1\n"
    "images/b,c.png\r\n"
    f"{folder}/images/my holiday photo.png\n",
  )
  assert len(source) == 4
  assert source.class_names == NAMES
  assert source.skipped == []
  assert source.max_boxes == 2
  first = source[0]
  np.testing.assert_array_equal(first["boxes"], [[10, 20, 30, 40], [50.5, 10, 60, 20.25]])
  assert first["label"].tolist() == [0, 2]
  assert first["image"].shape == (80, 100, 3)
  assert (first["boxes"].dtype, first["label"].dtype) == (np.float32, np.int32)
  assert (source[1]["image"] == 20).all()
  np.testing.assert_array_equal(source[1]["boxes"], [[5, 5, 95, 75]])
  assert (source[2]["image"] == 30).all()
  assert source[2]["boxes"].shape == (0, 4)
  assert source[3]["label"].shape == (0,)
  assert source.origin(1) == "train.txt:3 (images/my holiday photo.png)"


def test_the_class_of_a_face_may_be_unknown(folder):
  source = _source(folder, "images/a.jpg 10,20,30,40,-1 50,10,60,20,2\n")
  assert source[0]["label"].tolist() == [UNLABELLED, 2]
  assert source.labelled_boxes == 1
  assert _source(folder, "images/a.jpg 10,20,30,40,-1\n").labelled_boxes == 0


def test_byte_order_mark_is_ignored(folder):
  assert len(_source(folder, "\ufeffimages/a.jpg 10,20,30,40,0\n")) == 1


@pytest.mark.parametrize(
  ("line", "message"),
  [
    ("images/a.jpg 10,20,30,0", r"train.txt:2 .*malformed field '10,20,30,0'; expected `path"),
    ("images/a.jpg 10,20,x,40,0", r"train.txt:2 .*malformed field '10,20,x,40,0'"),
    ("images/a.jpg 10,20,nan,40,0", r"train.txt:2 .*malformed field '10,20,nan,40,0'"),
    ("images/a.jpg 1,2,3,4,0,9 1,2,3,4,0", r"malformed field '1,2,3,4,0,9'"),
    ("10,20,30,40,0", r"train.txt:2: no image path before '10,20,30,40,0'"),
    ("images/a.jpg 30,20,10,40,0", r"train.txt:2 .*box \(30, 20, 10, 40\) has no area"),
    ("images/a.jpg 10,20,30,20,0", r"box \(10, 20, 30, 20\) has no area; expected x1 < x2"),
    (
      "images/a.jpg 10,20,30,40,3",
      "class 3 is not one of -1 unknown, 0 neutral, 1 happiness, 2 sadness",
    ),
    ("images/a.jpg 10,20,30,40,-2", "class -2 is not one of"),
    ("images/a.jpg 10,20,30,40,1.5", "class 1.5 is not one of"),
    ("images/gone.jpg 10,20,30,40,0", r"train.txt:2 .*image file not found: .*images/gone\.jpg"),
    ("images 10,20,30,40,0", "image file not found"),
  ],
)
def test_bad_line_is_named_or_skipped(folder, line, message):
  text = f"images/a.jpg 1,2,3,4,0\n{line}\nimages/b,c.png 1,2,3,4,1\n"
  with pytest.raises(ValueError, match=message) as caught:
    _source(folder, text)
  assert 'on_bad_record="skip"' in str(caught.value)
  source = _source(folder, text, "skip")
  assert [source.origin(i).split()[0] for i in range(len(source))] == ["train.txt:1", "train.txt:3"]
  (reason,) = source.skipped
  assert reason.startswith("train.txt:2")


def test_skipped_lines_are_logged(folder, caplog):
  with caplog.at_level("WARNING"):
    _source(folder, "images/gone.jpg\nimages/a.jpg\n", "skip")
  assert "left out 1 bad records of 2" in caplog.text
  assert "gone.jpg" in caplog.text


def test_empty_or_missing_list(folder):
  with pytest.raises(ValueError, match=r"train.txt: empty; expected `path"):
    _source(folder, "\n \n")
  with pytest.raises(
    ValueError, match=r"all 1 records are bad or left out, the first: train.txt:1"
  ):
    _source(folder, "images/gone.jpg\n", "skip")
  with pytest.raises(
    ValueError, match=r"list dev.txt of the split val not found in .*existing: train.txt"
  ):
    _open(folder, split="val", val="dev.txt")
  (folder / "train.txt").write_bytes(b"images/\xff\xfe.jpg\n")
  with pytest.raises(ValueError, match="not UTF-8"):
    _open(folder)


def test_unknown_policy_is_refused(folder):
  with pytest.raises(ValueError, match="unknown on_bad_record 'drop'; known: error, skip"):
    _source(folder, "images/a.jpg\n", "drop")


def test_boxes_are_checked_against_the_image_on_access(folder):
  source = _source(folder, "images/a.jpg -1.5,0,102,80.5,0\n")
  np.testing.assert_array_equal(source[0]["boxes"], [[0, 0, 100, 80]])
  source = _source(folder, "images/a.jpg 50,40,110,60,0\n")
  with pytest.raises(
    ValueError,
    match=r"train.txt:1 \(images/a.jpg\): box \(50, 40, 110, 60\) extends 10 pixels beyond "
    "the image of 100x80 pixels",
  ):
    source[0]
  source = _source(folder, "images/a.jpg 200,40,300,60,0\n")
  with pytest.raises(ValueError, match="is outside the image of 100x80"):
    source[0]


def test_damaged_image_is_named_on_access(folder):
  (folder / "images" / "a.jpg").write_bytes(b"not an image")
  source = _source(folder, "images/b,c.png\nimages/a.jpg\n")
  with pytest.raises(ImageError, match=r"^train.txt:2 \(images/a.jpg\): not an image"):
    source[1]


def test_pickles(folder):
  source = pickle.loads(pickle.dumps(_source(folder, "images/a.jpg 10,20,30,40,0\n")))
  np.testing.assert_array_equal(source[0]["boxes"], [[10, 20, 30, 40]])


def test_images_next_to_the_list_are_found(folder):
  (folder / "images" / "lists.txt").write_text("a.jpg 10,20,30,40,0\nb,c.png\n")
  source = _open(folder, train="images/lists.txt")
  assert source.origin(0) == "images/lists.txt:1 (a.jpg)"
  assert (source[1]["image"] == 30).all()


def test_other_text_files_are_ignored(folder):
  (folder / "README.txt").write_text("Faces of my holidays.\nimages/ holds them.\n")
  (folder / "notes.txt").write_bytes(b"\xff\x00\xfe")
  assert len(_source(folder, "images/a.jpg\n")) == 1


def test_a_list_is_decoded_by_its_byte_order_mark(folder):
  (folder / "images" / "a.jpg").rename(folder / "images" / "\u00e4.jpg")
  (folder / "train.txt").write_text("images/\u00e4.jpg 10,20,30,40,0\n", encoding="utf-16")
  assert (_open(folder)[0]["image"] == 10).all()

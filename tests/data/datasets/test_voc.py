"""A miniature Pascal VOC folder."""

import numpy as np
import pytest
from PIL import Image

from ferjax.data.datasets.base import Options
from ferjax.data.datasets.voc import VOC
from ferjax.data.loading import open_released
from ferjax.expressions import UNLABELLED

NAMES = ("neutral", "happiness")
OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult>
<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"""


def _open(root, on_bad_record="error", split="train", **files):
  options = Options(class_names=NAMES, files=files)
  return open_released(VOC, root, split, options, on_bad_record=on_bad_record, validates=False)


def _object(name, box, difficult=0):
  x1, y1, x2, y2 = box
  return OBJECT.format(name=name, difficult=difficult, x1=x1, y1=y1, x2=x2, y2=y2)


def _write(root, name, objects="", filename=None, image=None):
  for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
    (root / part).mkdir(parents=True, exist_ok=True)
  filename = f"<filename>{filename}</filename>" if filename else ""
  text = f"<annotation>{filename}{objects}</annotation>"
  (root / "Annotations" / f"{name}.xml").write_text(text)
  image = f"{name}.jpg" if image is None else image
  Image.new("RGB", (60, 40)).save(root / "JPEGImages" / image)
  with open(root / "ImageSets" / "Main" / "train.txt", "a") as lines:
    lines.write(f"{name}\n")


def test_reads_objects_and_converts_pixels(tmp_path):
  objects = _object("happiness", (1, 1, 60, 40)) + _object("neutral", (11, 6, 20, 15), difficult=1)
  _write(tmp_path, "000001", objects)
  _write(tmp_path, "000002")
  source = _open(tmp_path)
  assert len(source) == 2
  # 1-based inclusive pixels 1..60 are the edges 0..60; 11..20 are ten pixels from 10 to 20.
  np.testing.assert_array_equal(source[0]["boxes"], [[0, 0, 60, 40], [10, 5, 20, 15]])
  assert source[0]["label"].tolist() == [1, 0]
  assert source[1]["boxes"].shape == (0, 4)
  assert source.origin(0) == "Annotations/000001.xml (000001.jpg)"


def test_the_name_unknown_is_a_face_without_a_class(tmp_path):
  _write(tmp_path, "a", _object("Unknown", (1, 1, 9, 9)) + _object("neutral", (1, 1, 9, 9)))
  assert _open(tmp_path)[0]["label"].tolist() == [UNLABELLED, 0]
  options = Options(class_names=("Unknown", "neutral"))
  source = open_released(VOC, tmp_path, "train", options, validates=False)
  assert source[0]["label"].tolist() == [0, 1]  # one of the classes


def test_image_of_another_suffix_or_name(tmp_path):
  _write(tmp_path, "a", image="a.png")
  _write(tmp_path, "b", filename=r"C:\pictures\other.jpg", image="other.jpg")
  source = _open(tmp_path)
  assert [source[i]["image"].shape for i in range(2)] == [(40, 60, 3)] * 2
  assert source.origin(1).endswith("(other.jpg)")


@pytest.mark.parametrize(
  ("objects", "message"),
  [
    (
      _object("bored", (1, 1, 9, 9)),
      r"bad.xml \(bad.jpg\): object 1: class 'bored' is not one of neutral, happiness, unknown",
    ),
    (
      _object("neutral", (1, 1, 9, 9)) + _object("neutral", (9, 1, 3, 9)),
      r"object 2: box \(9, 1, 3, 9\) has no area",
    ),
    (_object("neutral", ("x", 1, 3, 9)), "object 1: malformed bndbox .*'xmin': 'x'"),
    (_object("neutral", ("nan", 1, 3, 9)), "has no area"),
    ("<object><name>neutral</name></object>", "object 1: malformed bndbox .*None"),
    ("<object>", r"Annotations/bad.xml: malformed XML"),
  ],
)
def test_bad_annotation_is_named_or_skipped(tmp_path, objects, message):
  _write(tmp_path, "good", _object("neutral", (1, 1, 9, 9)))
  _write(tmp_path, "bad", objects)
  with pytest.raises(ValueError, match=message):
    _open(tmp_path)
  source = _open(tmp_path, "skip")
  assert len(source) == 1
  assert len(source.skipped) == 1
  assert "bad.xml" in source.skipped[0]


def test_missing_files_are_named(tmp_path):
  _write(tmp_path, "a")
  with pytest.raises(
    ValueError, match=r"image set dev of the split val not found in .*; existing: train"
  ):
    _open(tmp_path, split="val", val="dev")
  (tmp_path / "JPEGImages" / "a.jpg").unlink()
  with pytest.raises(ValueError, match=r"a.xml: image file not found: .*a\.jpg"):
    _open(tmp_path)
  (tmp_path / "Annotations" / "a.xml").unlink()
  with pytest.raises(ValueError, match=r"Annotations/a.xml: file not found"):
    _open(tmp_path)
  (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("")
  with pytest.raises(ValueError, match=r"train.txt: empty; expected one image name"):
    _open(tmp_path)


def test_entities_are_refused(tmp_path):
  _write(tmp_path, "a")
  bomb = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><annotation>&b;</annotation>'
  (tmp_path / "Annotations" / "a.xml").write_text(bomb)
  with pytest.raises(ValueError, match="XML entities are not allowed"):
    _open(tmp_path)


def test_box_of_another_image_size_is_refused_on_access(tmp_path):
  _write(tmp_path, "a", _object("neutral", (1, 1, 600, 400)))
  source = _open(tmp_path)
  with pytest.raises(ValueError, match=r"a.xml \(a.jpg\): box .* beyond the image"):
    source[0]


GREETING = "\u8868\u60c5"  # "expression"


@pytest.mark.parametrize(
  ("declared", "codec"),
  [
    ("gb2312", "gb2312"),
    ("GBK", "gbk"),
    ("Shift_JIS", "shift_jis"),
    ("utf-8", "utf-8-sig"),
    ("UTF-16", "utf-16"),
    ("", "utf-8"),
    ("", "utf-16"),
  ],
)
def test_encodings_that_python_supports(tmp_path, declared, codec):
  _write(tmp_path, "a")
  encoding = f' encoding="{declared}"' if declared else ""
  text = f'<?xml version="1.0"{encoding}?>\r\n<annotation><folder>{GREETING}</folder>'
  text += f"{_object('neutral', (1, 1, 9, 9))}</annotation>"
  (tmp_path / "Annotations" / "a.xml").write_bytes(text.encode(codec))
  np.testing.assert_array_equal(_open(tmp_path)[0]["boxes"], [[0, 0, 9, 9]])


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b'<?xml version="1.0" encoding="utf8x"?><annotation/>', "unknown encoding 'utf8x' in its XML"),
    (b'<?xml version="1.0" encoding="rot13"?><annotation/>', "unknown encoding 'rot13'"),
    (
      b'<?xml version="1.0" encoding="gb2312"?><a>\xff\xff</a>',
      "not gb2312 text, contrary to its XML dec",
    ),
    (b"<annotation>\xff</annotation>", "1: not UTF-8 text; save the file as UTF-8"),
    (b"<annotation>\x00</annotation>", "malformed XML"),
  ],
)
def test_an_undecodable_annotation_is_one_bad_record(tmp_path, content, message):
  _write(tmp_path, "good", _object("neutral", (1, 1, 9, 9)))
  _write(tmp_path, "bad")
  (tmp_path / "Annotations" / "bad.xml").write_bytes(content)
  with pytest.raises(ValueError, match=rf"^Annotations/bad.xml:.*{message}"):
    _open(tmp_path)
  source = _open(tmp_path, "skip")
  assert len(source) == len(source.skipped) == 1


def test_an_annotation_that_is_a_folder_is_one_bad_record(tmp_path):
  _write(tmp_path, "good")
  _write(tmp_path, "bad")
  (tmp_path / "Annotations" / "bad.xml").unlink()
  (tmp_path / "Annotations" / "bad.xml").mkdir()
  assert "Annotations/bad.xml: cannot be read" in _open(tmp_path, "skip").skipped[0]


def test_images_next_to_the_annotations_are_found(tmp_path):
  _write(tmp_path, "a", image="a.jfif")
  (tmp_path / "JPEGImages/a.jfif").rename(tmp_path / "Annotations/a.jfif")
  assert _open(tmp_path)[0]["image"].shape == (40, 60, 3)


def test_image_sets_of_the_challenge_are_not_splits(tmp_path):
  _write(tmp_path, "a")
  for name in ("trainval", "face_train", "face_trainval", "happy_person_val"):
    (tmp_path / f"ImageSets/Main/{name}.txt").write_text("a -1\n")
  assert len(_open(tmp_path)) == 1
  (tmp_path / "ImageSets/Main/trainval.txt").write_text("a\n")
  assert len(_open(tmp_path, split="val", val="trainval")) == 1

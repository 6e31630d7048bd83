"""References are validated, and images are found in common locations."""

import json

import numpy as np
import pytest
from PIL import Image

from ferjax.data.datasets.base import Options
from ferjax.data.datasets.coco_json import COCO_JSON
from ferjax.data.loading import open_released
from ferjax.expressions import UNLABELLED

NAMES = ("neutral", "happiness")


def _write(root, file, image, categories, category_id=1, encoding="utf-8"):
  path = root / file
  path.parent.mkdir(parents=True, exist_ok=True)
  (root / image).parent.mkdir(parents=True, exist_ok=True)
  Image.new("RGB", (60, 40)).save(root / image)
  face = {"image_id": 7, "category_id": category_id, "bbox": [10, 5, 20, 30]}
  content = {
    "images": [{"id": 7, "file_name": (root / image).name}],
    "annotations": [face],
    "categories": categories,
  }
  path.write_text(json.dumps(content), encoding=encoding)


def _open(root, on_bad_record="error", **files):
  options = Options(class_names=NAMES, files=files)
  return open_released(
    COCO_JSON, root, "train", options, on_bad_record=on_bad_record, validates=False
  )


def test_unused_categories_are_not_validated(tmp_path):
  others = [{"id": 0, "name": "faces"}, {"id": None, "name": "x"}, {"name": "y"}, {"id": 3}]
  categories = [*others, {"id": 1, "name": "Happy"}]
  _write(tmp_path, "annotations/train.json", "images/a.jpg", categories)
  example = _open(tmp_path)[0]
  assert example["label"].tolist() == [1]
  np.testing.assert_array_equal(example["boxes"], [[10, 5, 30, 35]])


@pytest.mark.parametrize(
  ("categories", "message"),
  [
    ([{"id": 1, "name": "faces"}], r"category 1: class 'faces' is not one of neutral, happiness"),
    ([{"id": 1}], r"category 1: class 'None' is not one of"),
    ([{"id": 2, "name": "Happy"}], r"category_id 1; known: 2"),
    (
      [{"id": 1, "name": "sad"}, {"id": 1, "name": "Happy"}],
      r"category_id 1 has several names: 'sad', 'Happy'",
    ),
  ],
)
def test_a_category_in_use_must_be_known(tmp_path, categories, message):
  _write(tmp_path, "annotations/train.json", "images/a.jpg", categories)
  with pytest.raises(ValueError, match=rf"annotations\[0\] \(a.jpg\): {message}"):
    _open(tmp_path)


@pytest.mark.parametrize(
  ("file", "image"),
  [
    ("train/_annotations.coco.json", "train/a.jpg"),
    ("annotations/instances_train2017.json", "train2017/a.jpg"),
    ("annotations/instances_train2017.json", "images/train2017/a.jpg"),
    ("annotations/faces.json", "a.jpg"),
    ("annotations/faces.json", "images/train/a.jpg"),
  ],
)
def test_image_locations(tmp_path, file, image):
  _write(tmp_path, file, image, [{"id": 1, "name": "neutral"}])
  assert _open(tmp_path, train=file)[0]["image"].shape == (40, 60, 3)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_json_of_other_encodings(tmp_path, encoding):
  categories = [{"id": 1, "name": "neutral"}]
  _write(tmp_path, "annotations/train.json", "images/a.jpg", categories, encoding=encoding)
  assert len(_open(tmp_path)) == 1


@pytest.mark.parametrize("content", [b"{\xff\xfe", b"[" * 100_000, b'{"images": [1]}', b"7"])
def test_files_that_are_not_coco_are_named(tmp_path, content):
  (tmp_path / "annotations").mkdir()
  (tmp_path / "annotations/train.json").write_bytes(content)
  with pytest.raises(
    ValueError, match=r"annotations/train.json: (malformed JSON|no list 'images')"
  ):
    _open(tmp_path)


def test_too_large_numbers_are_one_bad_record(tmp_path):
  categories = [{"id": 1, "name": "neutral"}]
  _write(tmp_path, "annotations/train.json", "images/a.jpg", categories)
  path = tmp_path / "annotations/train.json"
  path.write_text(path.read_text().replace("[10, 5,", f"[{10**400}, 5,"))
  with pytest.raises(
    ValueError, match=r"annotations\[0\] \(a.jpg\): bbox .*expected \[x, y, width"
  ):
    _open(tmp_path)


def test_the_category_unknown_is_of_faces_without_a_class(tmp_path):
  categories = [{"id": 1, "name": "unknown"}]
  _write(tmp_path, "annotations/train.json", "images/a.jpg", categories)
  assert _open(tmp_path)[0]["label"].tolist() == [UNLABELLED]

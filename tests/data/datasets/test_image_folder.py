"""Miniature folders of classes, good and bad."""

import numpy as np
import pytest
from PIL import Image

from ferjax.data.datasets.base import Options
from ferjax.data.datasets.image_folder import IMAGE_FOLDER
from ferjax.data.image import ImageError
from ferjax.data.loading import open_released

NAMES = ("neutral", "happiness", "anger")


def _open(folder, name, class_names=NAMES, on_bad_record="error"):
  options = Options(class_names=class_names, files={"train": name, "val": name})
  return open_released(IMAGE_FOLDER, folder, "val", options, on_bad_record=on_bad_record)


def _save(path, level=0):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new("RGB", (40, 30), (level,) * 3).save(path)


@pytest.fixture
def folder(tmp_path):
  _save(tmp_path / "train" / "Happy" / "b.png", 20)
  _save(tmp_path / "train" / "Happy" / "a.JPG", 10)
  _save(tmp_path / "train" / "neutral" / "person 1" / "c.webp", 30)
  (tmp_path / "train" / "anger").mkdir()
  _save(tmp_path / "val" / "anger" / "d.jpg", 40)
  return tmp_path


def test_reads_a_split_in_order(folder, caplog):
  (folder / "train" / "README.txt").write_text("not an image")
  _save(folder / "train" / "neutral" / ".hidden.jpg")
  _save(folder / "train" / ".cache" / "x.jpg")
  with caplog.at_level("INFO"):
    source = _open(folder, "train")
  assert "3 images: neutral 1, happiness 2, anger 0" in caplog.text
  assert [source.origin(i) for i in range(3)] == [
    "train/Happy/a.JPG",
    "train/Happy/b.png",
    "train/neutral/person 1/c.webp",
  ]
  np.testing.assert_array_equal(source.labels, np.eye(3)[[1, 1, 0]])
  assert (source[1]["image"] == 20).all()
  assert source[1]["image"].shape == (30, 40, 3)
  assert source[1]["label"].tolist() == [0, 1, 0]
  assert len(_open(folder, "val")) == 1


def test_follows_links_to_folders(folder):
  (folder / "dev").mkdir()
  (folder / "dev" / "happiness").symlink_to(folder / "train" / "Happy")
  assert len(_open(folder, "dev")) == 2


@pytest.mark.parametrize("on_bad_record", ["error", "skip"])
def test_unknown_class_folder_is_named(folder, on_bad_record):
  (folder / "train" / "bored").mkdir()
  with pytest.raises(
    ValueError,
    match=r"folder .*train/bored does not match a class; known: neutral, happiness, "
    r"anger \(data.class_names, or .*; rename it, move it away",
  ):
    _open(folder, "train", on_bad_record=on_bad_record)
  with pytest.raises(ValueError, match=r"train/Happy does not match a class"):
    _open(folder, "train", ("neutral", "anger"), on_bad_record)


def test_image_outside_the_class_folders_is_a_bad_record(folder):
  _save(folder / "train" / "stray.png")
  with pytest.raises(ValueError, match=r"stray.png is outside the class folders; .*\"skip\""):
    _open(folder, "train")
  source = _open(folder, "train", on_bad_record="skip")
  assert len(source) == 3
  assert len(source.skipped) == 1
  assert "stray.png" in source.skipped[0]


def test_empty_split(folder):
  (folder / "dev" / "neutral").mkdir(parents=True)
  with pytest.raises(
    ValueError,
    match=r"dev: empty; no images; expected DIR/<split>/<class>/\*.jpg; .* folders: neutral",
  ):
    _open(folder, "dev")


def test_missing_folders(folder):
  with pytest.raises(
    ValueError, match=r"classes test of the split val not found in .*; existing: train, val"
  ):
    _open(folder, "test")
  with pytest.raises(
    ValueError, match=r"folder not found: .*nowhere. Lay out the images as DIR/<split>/"
  ):
    _open(folder / "nowhere", "train")


def test_classes_without_splits_are_explained(folder):
  with pytest.raises(
    ValueError,
    match=r"train contains the class folders Happy, anger, neutral, but no split folder; "
    r"expected DIR/<split>/<class>/\*.jpg: move them into .*train/train",
  ):
    open_released(IMAGE_FOLDER, folder / "train", "val", Options(class_names=NAMES))


def test_damaged_image_is_named_on_access(folder):
  (folder / "val" / "anger" / "d.jpg").write_bytes(b"not an image")
  with pytest.raises(ImageError, match=r"^val/anger/d.jpg: not an image"):
    _open(folder, "val")[0]


def test_unknown_policy_is_refused(folder):
  with pytest.raises(ValueError, match="unknown on_bad_record 'drop'; known: error, skip"):
    _open(folder, "train", on_bad_record="drop")

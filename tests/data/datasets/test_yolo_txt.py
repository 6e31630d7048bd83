"""Images and labels in folders, with files of operating systems and tools."""

import numpy as np
import pytest
from PIL import Image

from ferjax.data.datasets.base import Options
from ferjax.data.datasets.yolo_txt import YOLO_TXT
from ferjax.data.loading import open_released
from ferjax.expressions import UNLABELLED

NAMES = ("neutral", "happiness")


@pytest.fixture
def folder(tmp_path):
  for part in ("images", "labels"):
    (tmp_path / part / "train").mkdir(parents=True)
  for i in range(3):
    Image.new("RGB", (60, 40)).save(tmp_path / f"images/train/{i}.jpg")
    (tmp_path / f"labels/train/{i}.txt").write_text(f"{i % 2} 0.5 0.5 0.5 0.5\n")
  return tmp_path


def _open(folder, on_bad_record="error"):
  options = Options(class_names=NAMES)
  return open_released(
    YOLO_TXT, folder, "train", options, on_bad_record=on_bad_record, validates=False
  )


def test_only_classes_in_use_must_be_known(folder):
  (folder / "classes.txt").write_text("Happy\nneutral\nhelmet\n")
  assert [_open(folder)[i]["label"].tolist() for i in range(3)] == [[1], [0], [1]]
  (folder / "labels/train/0.txt").write_text("2 0.5 0.5 0.5 0.5\n")
  with pytest.raises(
    ValueError, match=r"labels/train/0.txt:1 .*classes.txt:3: class 'helmet' is n"
  ):
    _open(folder)
  assert len(_open(folder, "skip")) == 2


def test_the_class_of_a_face_may_be_unknown(folder):
  (folder / "labels/train/0.txt").write_text("-1 0.5 0.5 0.5 0.5\n")
  assert _open(folder)[0]["label"].tolist() == [UNLABELLED]
  (folder / "classes.txt").write_text("neutral\nunknown\n")
  assert [_open(folder)[i]["label"].tolist() for i in range(2)] == [[UNLABELLED]] * 2
  (folder / "labels/train/0.txt").write_text("-2 0.5 0.5 0.5 0.5\n")
  with pytest.raises(ValueError, match=r"class '-2'; expected 0..1, or -1 if it is unknown"):
    _open(folder)


def test_hidden_and_system_files_are_ignored(folder):
  for name in ("._0.jpg", "Thumbs.db", "desktop.ini", ".DS_Store"):
    (folder / "images/train" / name).write_bytes(b"x")
  (folder / "labels/train/._0.txt").write_bytes(b"\xff")
  assert _open(folder).skipped == []
  assert len(_open(folder)) == 3


def test_labels_next_to_the_images_are_found(folder):
  (folder / "labels/train/0.txt").rename(folder / "images/train/0.txt")
  (folder / "images/train/1.jpg").rename(folder / "labels/train/1.jpg")
  source = _open(folder)
  assert {source.origin(i) for i in range(3)} == {
    "images/train/0.txt (images/train/0.jpg)",
    "labels/train/1.txt (labels/train/1.jpg)",
    "labels/train/2.txt (images/train/2.jpg)",
  }
  np.testing.assert_array_equal(source[0]["boxes"], [[15, 10, 45, 30]])


def test_every_suffix_that_pillow_opens(folder):
  (folder / "images/train/0.jpg").rename(folder / "images/train/0.JFIF")
  Image.new("RGB", (60, 40)).save(folder / "images/train/1.jp2")
  (folder / "images/train/1.jpg").unlink()
  assert [_open(folder)[i]["image"].shape for i in range(3)] == [(40, 60, 3)] * 3

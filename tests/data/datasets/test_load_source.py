"""Every data set that a config can name, and what is said when it cannot be read."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from ferjax.config import DataConfig
from ferjax.data.datasets import load_source
from ferjax.data.datasets.annotation_list import AnnotationList
from ferjax.data.datasets.records import Source


def _config(**changes):
  return dataclasses.replace(DataConfig(image_size=64), **changes)


def test_synthetic_splits_differ_and_follow_the_seed():
  config = _config(train_examples=3, val_examples=2)
  train, val = load_source(config, "train", seed=1), load_source(config, "val", seed=1)
  assert (len(train), len(val)) == (3, 2)
  assert isinstance(train, Source)
  assert train.class_names == config.class_names
  assert not np.array_equal(train[0]["image"], val[0]["image"])
  np.testing.assert_array_equal(load_source(config, "train", seed=1)[0]["image"], train[0]["image"])
  for split in ("train", "val"):
    other = load_source(config, split, seed=2)[0]["image"]
    assert not np.array_equal(other, train[0]["image"])
    assert not np.array_equal(other, val[0]["image"])


def test_annotation_list_by_split(tmp_path):
  Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
  (tmp_path / "t.txt").write_text("a.png 1,2,30,31,0\n")
  (tmp_path / "v.txt").write_text("a.png\na.png\n")
  config = _config(source="annotation_list", dir=str(tmp_path), train="t.txt", val="v.txt")
  assert isinstance(load_source(config, "train"), AnnotationList)
  assert isinstance(load_source(config, "train"), Source)
  assert [len(load_source(config, split)) for split in ("train", "val")] == [1, 2]
  with pytest.raises(ValueError, match=r"data.val is empty; .*--config.data.val=FILE"):
    load_source(dataclasses.replace(config, val=""), "val")


def test_voc_and_raf_db_take_the_split_of_their_own_name(tmp_path):
  main = tmp_path / "ImageSets" / "Main"
  main.mkdir(parents=True)
  config = _config(source="voc", dir=str(tmp_path))
  with pytest.raises(ValueError, match=r"image set not found: .*val\.txt"):
    load_source(config, "val")
  with pytest.raises(ValueError, match=r"image set not found: .*test\.txt"):
    load_source(dataclasses.replace(config, val="test"), "val")
  with pytest.raises(ValueError, match="unknown split 'dev' of RAF-DB"):
    load_source(dataclasses.replace(config, source="raf_db", val="dev"), "val")


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"source": "coco"}, "unknown data.source 'coco'; known: synthetic, raf_db, annotation_list"),
    ({"source": "raf_db"}, r"data.dir is empty.*RAF-DB is free.*fer_yolo_mamba.py:demo"),
    ({"source": "voc"}, r"data.dir is empty.*JPEGImages.*--config.data.dir=DIR.*:demo"),
    ({"source": "annotation_list"}, r"data.dir is empty.*--config.data.dir=DIR.*:demo"),
    ({}, r"data.train_examples \(0\) must be positive"),
  ],
)
def test_unreadable_configs_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    load_source(_config(**changes), "train")


def test_unknown_split_is_refused():
  with pytest.raises(ValueError, match="unknown split 'test'; known: train, val"):
    load_source(_config(train_examples=1), "test")

"""Every data set that a config can name, and what is said when it cannot be read."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from ferjax.config import DataConfig
from ferjax.data.datasets import SPLITS, load_source
from ferjax.data.datasets.annotation_list import AnnotationList
from ferjax.data.datasets.csv_table import CsvTable
from ferjax.data.datasets.image_folder import ImageFolder
from ferjax.data.datasets.records import Source


def _config(**changes):
  return dataclasses.replace(DataConfig(image_size=64), **changes)


@pytest.mark.parametrize("name", ["synthetic", "synthetic_faces"])
def test_drawn_splits_differ_and_follow_the_seed(name):
  config = _config(source=name, train_examples=3, val_examples=2, test_examples=4)
  splits = [load_source(config, split, seed=1) for split in SPLITS]
  assert [len(source) for source in splits] == [3, 2, 4]
  assert all(isinstance(source, Source) for source in splits)
  assert {source.class_names for source in splits} == {config.class_names}
  again = load_source(config, "train", seed=1)[0]["image"]
  np.testing.assert_array_equal(again, splits[0][0]["image"])
  # Neither splits nor seeds share a picture, and that holds for near seeds.
  images = {
    load_source(config, split, seed=seed)[0]["image"].tobytes()
    for split in SPLITS
    for seed in range(4)
  }
  assert len(images) == 12


def test_tasks_of_the_sources():
  for name, task in (("synthetic", "detection"), ("synthetic_faces", "classification")):
    assert load_source(_config(source=name, train_examples=1), "train").task == task


def test_drawn_faces_are_as_large_as_they_are_needed():
  config = _config(source="synthetic_faces", train_examples=1)
  assert load_source(config, "train")[0]["image"].shape == (64, 64, 3)
  config = dataclasses.replace(config, resize=70)
  assert load_source(config, "train")[0]["image"].shape == (70, 70, 3)


def test_faces_by_split(tmp_path):
  for split, count in (("train", 2), ("dev", 1), ("test", 3)):
    (tmp_path / split / "fear").mkdir(parents=True)
    for i in range(count):
      Image.new("RGB", (32, 32)).save(tmp_path / split / "fear" / f"{i}.png")
  config = _config(source="image_folder", dir=str(tmp_path), val="dev")
  sources = [load_source(config, split) for split in SPLITS]
  assert [(type(source), len(source)) for source in sources] == [
    (ImageFolder, 2),
    (ImageFolder, 1),
    (ImageFolder, 3),
  ]
  (tmp_path / "faces.csv").write_text(
    "image,label,split\ntrain/fear/0.png,fear,train\ndev/fear/0.png,fear,dev\n"
    "test/fear/0.png,fear,test\ntest/fear/1.png,fear,test\n"
  )
  config = dataclasses.replace(config, source="csv", csv="faces.csv")
  sources = [load_source(config, split) for split in SPLITS]
  assert [(type(source), len(source)) for source in sources] == [
    (CsvTable, 1),
    (CsvTable, 1),
    (CsvTable, 2),
  ]
  with pytest.raises(ValueError, match=r"no row of split 'val'"):
    load_source(dataclasses.replace(config, val=""), "val")


def test_annotation_list_by_split(tmp_path):
  Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
  (tmp_path / "t.txt").write_text("a.png 1,2,30,31,0\n")
  (tmp_path / "v.txt").write_text("a.png\na.png\n")
  config = _config(
    source="annotation_list", dir=str(tmp_path), train="t.txt", val="v.txt", test="v.txt"
  )
  assert isinstance(load_source(config, "train"), AnnotationList)
  assert isinstance(load_source(config, "train"), Source)
  assert [len(load_source(config, split)) for split in SPLITS] == [1, 2, 2]
  with pytest.raises(ValueError, match=r"data.val is empty; .*--config.data.val=FILE"):
    load_source(dataclasses.replace(config, val=""), "val")
  with pytest.raises(ValueError, match=r"data.test is empty; .*--config.data.test=FILE"):
    load_source(dataclasses.replace(config, test=""), "test")


def test_voc_and_raf_db_take_the_split_of_their_own_name(tmp_path):
  main = tmp_path / "ImageSets" / "Main"
  main.mkdir(parents=True)
  config = _config(source="voc", dir=str(tmp_path))
  with pytest.raises(ValueError, match=r"image set not found: .*val\.txt"):
    load_source(config, "val")
  with pytest.raises(ValueError, match=r"image set not found: .*test\.txt"):
    load_source(config, "test")
  with pytest.raises(ValueError, match="unknown split 'dev' of RAF-DB"):
    load_source(dataclasses.replace(config, source="raf_db", val="dev"), "val")


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"source": "coco"},
      "unknown data.source .coco.; known: synthetic, raf_db, .*, csv",
    ),
    ({"source": "raf_db"}, r"data.dir is empty.*RAF-DB is free.*variant `demo` of a config"),
    ({"source": "voc"}, r"data.dir is empty.*JPEGImages.*--config.data.dir=DIR.*variant `demo`"),
    ({"source": "annotation_list"}, r"data.dir is empty.*--config.data.dir=DIR.*variant `demo`"),
    ({"source": "image_folder"}, r"data.dir is empty.*<split>/<class>.*'synthetic_faces' needs no"),
    ({"source": "csv"}, r"data.dir is empty.*data.csv.*--config.data.dir=DIR.*'synthetic_faces'"),
    ({}, r"data.train_examples \(0\) must be positive"),
    ({"source": "synthetic_faces"}, r"data.train_examples \(0\) must be .* 'synthetic_faces'"),
    (
      {"source": "synthetic_faces", "train_examples": 1, "resize": 48},
      r"resize \(48\) must be at least .* \(64\)",
    ),
  ],
)
def test_unreadable_configs_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    load_source(_config(**changes), "train")


def test_unknown_split_is_refused():
  with pytest.raises(ValueError, match="unknown split 'dev'; known: train, val, test"):
    load_source(_config(train_examples=1), "dev")

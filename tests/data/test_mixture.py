"""Mixtures of sources: their texts, records, messages and orders."""

import dataclasses
import functools
import pickle
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from ferjax.config import AugmentConfig, DataConfig
from ferjax.data import pipeline
from ferjax.data.datasets.entries import RecordError
from ferjax.data.image import ImageError
from ferjax.data.loading import load_source
from ferjax.data.mixture import (
  MixedFaces,
  MixedSource,
  parse_sources,
  without_folders,
)
from ferjax.data.samplers import order_of
from ferjax.data.sources import LabelledSource, Source

SHARES = (Fraction(3, 5), Fraction(2, 5))


class Boxes:
  """Record i is grey, of level `level` + i, with a box of class i % 3."""

  task, skipped = "detection", ["list.txt:9: gone"]

  def __init__(self, length, level=0, class_names=("a", "b", "c"), error=None):
    self.length, self.level, self.class_names, self.error = length, level, class_names, error

  def __len__(self):
    return self.length

  def origin(self, index):
    return f"list.txt:{index + 1}"

  def __getitem__(self, index):
    if self.error is not None and index == 1:
      raise self.error(f"{self.origin(index)}: damaged")
    image = np.full((16, 16, 3), self.level + index, np.uint8)
    box, label = np.array([[2, 2, 9, 9]], np.float32), np.array([index % 3], np.int32)
    return {"image": image, "boxes": box, "label": label}


class Faces(Boxes):
  task = "classification"

  @property
  def labels(self):
    return np.eye(3, dtype=np.float32)[np.arange(self.length) % 3]

  def __getitem__(self, index):
    return {"image": super().__getitem__(index)["image"], "label": self.labels[index]}


def _mixed(*parts, kind=MixedSource):
  return kind(parts, SHARES, ["voc in /a", "csv"])


def test_texts_are_parsed():
  config = DataConfig(
    source="voc",
    dir="/data/v",
    train="trainval",
    margin=0.5,
    train_examples=9,
    sources=(
      "voc=0.25",
      "csv=1/2,dir=/data/a, b=c,train=t,margin=0.2",
      "synthetic=1/4,max_faces=2",
    ),
  )
  same, other, rendered = parse_sources(config)
  assert [part.share for part in (same, other, rendered)] == [
    Fraction(1, 4),
    Fraction(1, 2),
    Fraction(1, 4),
  ]
  assert same.config == dataclasses.replace(config, sources=())
  # The fields that describe a set are not those of another set.
  own = {"source": "csv", "dir": "/data/a, b=c", "train": "t", "margin": 0.2, "sources": ()}
  assert other.config == dataclasses.replace(config, **own)
  assert (rendered.config.dir, rendered.config.train_examples) == ("", 9)
  assert rendered.config.max_faces == 2
  assert without_folders(config.sources)[:2] == ("voc=0.25", "csv=1/2,train=t,margin=0.2")
  assert parse_sources(DataConfig()) == []


@pytest.mark.parametrize(
  ("sources", "message"),
  [
    (("voc",), r"'voc' starts with 'voc'; expected SOURCE=SHARE,field=value"),
    (("voc=0",), "with a share above 0 and at most 1"),
    (("voc=x,dir=a",), "'voc=x,dir=a' starts with 'voc=x'"),
    (("voc=0.6", "csv=0.3"), "the shares 3/5, 3/10 add up to 9/10; expected 1"),
    (("voc=1,image_size=3",), "sets image_size; expected each of these at most once: dir, csv"),
    (("voc=1,dir=a,dir=b",), "sets dir; expected each of these at most once"),
    (("voc=1,max_faces=x",), "sets max_faces to 'x'; expected a number"),
    (("voc=0.3333333", "csv=0.6666667"), "with at most five decimals, or .* such as 1/3"),
  ],
)
def test_malformed_texts_are_refused(sources, message):
  with pytest.raises(ValueError, match=f"data.sources.*{message}"):
    parse_sources(DataConfig(sources=sources))


@pytest.mark.parametrize("kind", [MixedSource, MixedFaces])
def test_records_of_all_sources(kind):
  make = Faces if kind is MixedFaces else Boxes
  source = pickle.loads(pickle.dumps(_mixed(make(3), make(4, level=100), kind=kind)))
  assert isinstance(source, LabelledSource if kind is MixedFaces else Source)
  assert (len(source), source.task, source.class_names) == (7, make.task, ("a", "b", "c"))
  levels = [int(source[i]["image"][0, 0, 0]) for i in range(7)]
  assert levels == [0, 1, 2, 100, 101, 102, 103]
  assert (source.origin(2), source.origin(3)) == ("voc in /a: list.txt:3", "csv: list.txt:1")
  assert source.describe() == "3/5 from voc in /a (3 records), 2/5 from csv (4 records)"
  assert source.skipped == ["voc in /a: list.txt:9: gone", "csv: list.txt:9: gone"]
  if kind is MixedFaces:
    assert source.labels.argmax(1).tolist() == [0, 1, 2, 0, 1, 2, 0]
  for index in (-1, 7):
    with pytest.raises(IndexError):
      source[index]


@pytest.mark.parametrize("error", [ImageError, RecordError])
def test_a_bad_record_names_its_source(error):
  source = _mixed(Boxes(3), Boxes(3, error=error))
  with pytest.raises(error, match=r"^csv: list.txt:2: damaged"):
    source[4]


def test_sources_that_differ_are_refused():
  with pytest.raises(ValueError, match="voc in /a has records for detection, but csv for classif"):
    _mixed(Boxes(3), Faces(3))
  message = r"voc in /a has the classes a, b, c, but csv has a, b, d; only one has c, d"
  with pytest.raises(ValueError, match=message):
    _mixed(Boxes(3), Boxes(3, class_names=("a", "b", "d")))
  with pytest.raises(ValueError, match="csv has a, c, b; expected the same order"):
    _mixed(Boxes(3), Boxes(3, class_names=("a", "c", "b")))


def test_every_source_has_its_own_epochs():
  source = _mixed(Boxes(4), Boxes(5))
  order = order_of(source, seed=3)
  indices = np.array([order[i] for i in range(25)])
  first, second = indices[indices < 4], indices[indices >= 4]
  assert (len(first), len(second)) == (15, 10)
  for records, length in ((first, 4), (second, 5)):
    epochs = records[: len(records) // length * length].reshape(-1, length)
    assert (np.sort(epochs, axis=1) == np.sort(epochs[0])).all()
    assert len({tuple(epoch) for epoch in epochs}) > 1
  # A function of seed and number only; streams differ in record and source.
  assert [order_of(source, seed=3)[i] for i in (21, 7)] == [indices[21], indices[7]]
  other, stream = order_of(source, seed=4), order_of(source, seed=3, stream=1)
  others = np.array([other[i] for i in range(10)])
  assert ((others < 4) == (indices[:10] < 4)).all()
  assert (others != indices[:10]).any()
  assert [stream[i] < 4 for i in range(10)] == (indices[1:11] < 4).tolist()


def test_classes_are_balanced_within_each_source():
  class Rare(Faces):
    """One record of the last class."""

    @property
    def labels(self):
      return np.eye(3, dtype=np.float32)[[0, 0, 0, 1, 2]]

  order = order_of(_mixed(Rare(5), Rare(5), kind=MixedFaces), seed=0, balance=1.0)
  labels = np.tile(Rare(5).labels.argmax(1), 2)
  indices = np.array([order[i] for i in range(30)])
  for members in (indices[indices < 5], indices[indices >= 5]):
    assert np.bincount(labels[members]).tolist() == [len(members) // 3] * 3
  with pytest.raises(ValueError, match=r"^csv: data.balance .* no example of c"):
    order_of(_mixed(Faces(3), Faces(2), kind=MixedFaces), seed=0, balance=1.0)


def _take(dataset, count):
  iterator = iter(dataset)
  batches = [next(iterator) for _ in range(count)]
  iterator.close()
  return batches


def test_training_examples_do_not_depend_on_how_they_are_divided():
  source = _mixed(Boxes(4), Boxes(5, level=100))
  config = DataConfig(image_size=16, max_boxes=8, augment=AugmentConfig(mosaic=1.0))
  make = functools.partial(pipeline.train_dataset, source, config, seed=1, epochs=9)
  (whole,) = _take(make(batch_size=10), 1)
  assert np.count_nonzero(whole["index"] < 4) == 6
  hosts = [make(batch_size=4, start=2, process_index=i, process_count=2) for i in range(2)]
  (first,), (second,) = (_take(host, 1) for host in hosts)
  for name, value in whole.items():
    parts = np.concatenate([first[name], second[name]])
    np.testing.assert_array_equal(parts, value[2:6], err_msg=name)


def test_a_mixture_of_faces_is_trained_on():
  source = _mixed(Faces(2), Faces(3, level=100), kind=MixedFaces)
  (batch,) = _take(
    pipeline.train_dataset(source, DataConfig(image_size=16), batch_size=5, seed=0, epochs=1), 1
  )
  assert np.count_nonzero(batch["index"] < 2) == 3
  np.testing.assert_array_equal(batch["label"], source.labels[batch["index"]])


def test_a_mosaic_has_images_of_several_sources():
  source = _mixed(Boxes(2, level=10), Boxes(2, level=200))
  config = DataConfig(
    image_size=64,
    max_boxes=8,
    augment=AugmentConfig(mosaic=1.0, mixup=0.0, saturation=0.0, value=0.0, hue=0.0),
  )
  (batch,) = _take(pipeline.train_dataset(source, config, batch_size=4, seed=0, epochs=2), 1)
  for image in np.asarray(batch["image"])[..., 0]:
    levels = np.unique(image)
    assert levels[0] < levels[-1]
    assert len(levels) >= 3  # both sources, and grey


@pytest.fixture
def folder(tmp_path):
  for name in ("a", "b", "c"):
    Image.new("RGB", (32, 32)).save(tmp_path / f"{name}.png")
  (tmp_path / "train.txt").write_text("a.png 1,2,30,31,0\nb.png\n")
  (tmp_path / "val.txt").write_text("c.png 1,2,30,31,0\n")
  (tmp_path / "labels.csv").write_text("image,label,split,x1,y1,x2,y2\nb.png,fear,train,1,2,9,9\n")
  return tmp_path


def test_a_config_names_a_mixture_for_training(folder):
  config = DataConfig(
    source="annotation_list",
    dir=str(folder),
    sources=("annotation_list=0.5", f"csv=0.3,dir={folder}", "synthetic=1/5"),
    train_examples=4,
    image_size=32,
  )
  train, val = (load_source(config, split, task="detection") for split in ("train", "val"))
  assert isinstance(train, MixedSource)
  # The only row of the table is not enough to take validation from, and none is taken.
  assert [len(part) for part in train.parts] == [2, 1, 4]
  origins = [train.origin(i) for i in (1, 2)]
  assert origins == [
    f"annotation_list in {folder}: train.txt:2 (b.png)",
    f"csv in {folder}: labels.csv:2 (b.png)",
  ]
  assert train.origin(3).startswith("synthetic: ")
  assert val.origin(0) == "val.txt:1 (c.png)"


def test_an_error_of_a_source_names_its_text(folder):
  config = DataConfig(sources=("synthetic=0.5", "csv=0.5"), train_examples=4, image_size=32)
  with pytest.raises(ValueError, match=r"^data.sources 'csv=0.5': data.dir is empty"):
    load_source(config, "train", task="detection")
  config.sources = ("synthetic=0.5", f"csv=0.5,dir={folder},csv=other.csv")
  with pytest.raises(ValueError, match=r"(?s)^data.sources 'csv=0.5,dir=.*missing .*other.csv"):
    load_source(config, "train", task="detection")
  config.sources = ("coco=1",)
  with pytest.raises(ValueError, match=r"^data.sources 'coco=1': unknown data.source 'coco'"):
    load_source(config, "train", task="detection")

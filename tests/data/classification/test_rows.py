"""Batches of a classifier from the pipeline: the examples do not depend on how they are divided."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from ferjax.config import DataConfig, FaceAugmentConfig
from ferjax.data import pipeline
from ferjax.data.classification import views
from ferjax.data.datasets.entries import RecordError
from ferjax.data.image import ImageError
from ferjax.data.loading import load_source

PLAIN = FaceAugmentConfig(flip=0.0, rotation=0.0)
NAMES = ("a", "b", "c")


class FakeSource:
  """Record i is an image of noise around level 10 * i, of class 0 except for every fourth."""

  task, class_names, skipped = "classification", NAMES, []

  def __init__(self, length=11, bad=(), error=ImageError):
    self.length, self.bad, self.error = length, bad, error

  @property
  def labels(self):
    classes = [0 if i % 4 else 1 + i // 4 % 2 for i in range(self.length)]
    return np.eye(3, dtype=np.float32)[classes]

  def __len__(self):
    return self.length

  def origin(self, index):
    return f"list.txt:{index + 1}"

  def __getitem__(self, index):
    if index in self.bad:
      raise self.error(f"{self.origin(index)}: damaged")
    noise = np.random.default_rng(index).integers(10, size=(40, 36, 3))
    return {"image": (noise + 10 * index).astype(np.uint8), "label": self.labels[index]}


def _config(**changes):
  return dataclasses.replace(DataConfig(image_size=32), **changes)


def _all(dataset, count=None):
  iterator = iter(dataset)
  batches = list(iterator) if count is None else [next(iterator) for _ in range(count)]
  iterator.close()
  return batches


def _train(count, source=None, config=None, **options):
  source = FakeSource() if source is None else source
  config = _config() if config is None else config
  options = {"batch_size": 4, "seed": 3, "epochs": 10, **options}
  return _all(pipeline.train_dataset(source, config, **options), count)


def _rows(batches):
  return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}


def _assert_equal(a, b):
  assert a.keys() == b.keys()
  for key, value in a.items():
    np.testing.assert_array_equal(value, b[key], err_msg=key)


def test_batches_follow_the_contract():
  evaluation = pipeline.eval_dataset(FakeSource(), _config(), batch_size=4)
  for batch in (_train(1)[0], _all(evaluation, 1)[0]):
    assert {key: (value.shape, value.dtype) for key, value in batch.items()} == {
      "image": ((4, 32, 32, 3), np.uint8),
      "label": ((4, 3), np.float32),
      "mask": ((4,), bool),
      "skipped": ((4,), bool),
      "index": ((4,), np.int32),
    }
    assert batch["mask"].all()
    assert not batch["skipped"].any()


def test_rows_contain_their_record():
  source, config = FakeSource(), _config(face_augment=PLAIN)
  rows = _rows(_train(3, source, config))
  for image, label, index in zip(rows["image"], rows["label"], rows["index"], strict=True):
    np.testing.assert_array_equal(label, source.labels[index])
    record = source[index]["image"]
    # Resizing from 36 to 32 pixels keeps the levels in the record's range, and in no other's.
    assert record.min() <= image.min() <= image.max() <= record.max()


@pytest.mark.parametrize("balance", [False, True])
def test_neither_batch_size_nor_start_nor_hosts_change_an_example(balance):
  config = _config(balance=balance)
  expected = _rows(_train(30, config=config, batch_size=1))
  _assert_equal(_rows(_train(5, config=config, batch_size=6)), expected)
  tail = {key: value[7:27] for key, value in expected.items()}
  _assert_equal(_rows(_train(5, config=config, start=7)), tail)
  hosts = [_train(5, config=config, start=7, process_index=i, process_count=2) for i in range(2)]
  _assert_equal(_rows([batch for step in zip(*hosts, strict=True) for batch in step]), tail)
  # One record, sampled twice, is augmented differently.
  images = {image.tobytes() for image in expected["image"]}
  assert len(images) == 30


def test_an_epoch_contains_every_record_once():
  order = _rows(_train(4, batch_size=11))["index"].reshape(4, 11)
  assert (np.sort(order, axis=1) == np.arange(11)).all()
  assert len({tuple(epoch) for epoch in order}) == 4


def test_balance_samples_classes_equally_often():
  rows = _rows(_train(6, config=_config(balance=True)))
  np.testing.assert_array_equal(rows["label"].sum(0), 8)
  with pytest.raises(ValueError, match=r"data.balance samples .* no example of c; remove these"):
    _train(1, FakeSource(4), _config(balance=True))


@pytest.mark.parametrize(("length", "count"), [(11, 1), (11, 2), (8, 4)])
def test_evaluation_reads_the_middle_of_every_record_once(length, count):
  source, config = FakeSource(length), _config(resize=36, grey=True)
  hosts = [
    _all(pipeline.eval_dataset(source, config, batch_size=4, process_index=i, process_count=count))
    for i in range(count)
  ]
  rows = _rows([batch for step in zip(*hosts, strict=True) for batch in step])
  assert len(rows["mask"]) == -(-length // 4) * 4
  assert rows["index"][rows["mask"]].tolist() == list(range(length))
  assert not rows["skipped"].any()
  np.testing.assert_array_equal(rows["label"][rows["mask"]], source.labels)
  assert (rows["label"][~rows["mask"]] == 0).all()
  for index in range(length):
    view = views.center_view(source[index]["image"], 32, resize=36, grey=True)
    # Grey images have one channel until they are on the device.
    np.testing.assert_array_equal(rows["image"][index], view[..., :1])


def test_ten_crop():
  source, config = FakeSource(3), _config(resize=36)
  (batch,) = _all(pipeline.eval_dataset(source, config, batch_size=4, ten_crop=True))
  assert batch["image"].shape == (4, 10, 32, 32, 3)
  expected = views.ten_views(source[1]["image"], 32, resize=36)
  np.testing.assert_array_equal(batch["image"][1], expected)
  assert batch["mask"].tolist() == [True, True, True, False]
  np.testing.assert_array_equal(batch["label"][:3], source.labels)


@pytest.mark.parametrize("error", [ImageError, RecordError])
@pytest.mark.parametrize("ten_crop", [False, True])
def test_bad_record_stops_or_is_masked(error, ten_crop):
  source = FakeSource(6, bad=(2,), error=error)
  options = {"batch_size": 6, "ten_crop": ten_crop}
  with pytest.raises(error, match=r"list.txt:3: damaged"):
    _train(1, source, batch_size=6)
  iterator = iter(pipeline.eval_dataset(source, _config(), **options))
  with pytest.raises(error, match=r"list.txt:3: damaged"):
    next(iterator)
  iterator.close()
  config = _config(on_bad_record="skip")
  (evaluated,) = _all(pipeline.eval_dataset(source, config, **options))
  for batch in (evaluated, *_train(1, source, config, batch_size=6)):
    assert batch["index"][batch["skipped"]].tolist() == [2]
    np.testing.assert_array_equal(batch["mask"], ~batch["skipped"])
    assert (batch["label"][batch["skipped"]] == 0).all()
    assert (batch["image"][batch["skipped"]] == 128).all()


def test_damaged_file_is_named(tmp_path):
  (tmp_path / "train" / "fear").mkdir(parents=True)
  Image.new("RGB", (40, 40)).save(tmp_path / "train" / "fear" / "a.png")
  (tmp_path / "train" / "fear" / "b.png").write_bytes(b"not an image")
  # Two images are too few to take a validation split from.
  config = _config(source="image_folder", dir=str(tmp_path), val="train")
  source = load_source(config, "train")
  with pytest.raises(ImageError, match=r"^train/fear/b.png: not an image"):
    _train(1, source, config)
  (batch,) = _train(1, source, dataclasses.replace(config, on_bad_record="skip"))
  assert sorted(batch["skipped"]) == [False, False, True, True]


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"image_size": 0}, r"image_size \(0\) must be at least 1 pixel"),
    ({"resize": 31}, r"resize \(31\) must be at least .* \(32\)"),
    ({"mean": (0.5, 0.5)}, r"data.mean \(0.5, 0.5\) .* must be three numbers each"),
  ],
)
def test_invalid_sizes_are_refused(changes, message):
  # Set as on the command line, without validation.
  config = _config()
  for name, value in changes.items():
    setattr(config, name, value)
  with pytest.raises(ValueError, match=message):
    _train(1, config=config)
  with pytest.raises(ValueError, match=message):
    pipeline.eval_dataset(FakeSource(), config, batch_size=4)


def test_ranges_and_empty_sources_are_refused():
  with pytest.raises(ValueError, match=r"face_augment.flip \(2.0\) must be a probability"):
    _train(1, config=_config(face_augment=FaceAugmentConfig(flip=2.0)))
  with pytest.raises(ValueError, match="the data set is empty"):
    _train(1, FakeSource(0))

"""The sequence of examples does not depend on batch size, hosts and workers."""

import dataclasses

import grain
import numpy as np
import pytest

from ferjax.config import AugmentConfig, DataConfig
from ferjax.data import image as image_lib
from ferjax.data import pipeline
from ferjax.data.datasets.entries import RecordError

PLAIN = AugmentConfig(
  scale=(1.0, 1.0), aspect_jitter=0.0, flip=0.0, hue=0.0, saturation=0.0, value=0.0, mosaic=0.0
)


class FakeSource:
  """Record i is a grey of level 8 + i with `i % 4` boxes of label `i % 7`."""

  task = "detection"
  class_names = tuple("abcdefg")
  skipped = []

  def __init__(self, length=11, bad=(), boxes=None, error=image_lib.ImageError):
    self.length, self.bad, self.boxes, self.error = length, bad, boxes, error

  def __len__(self):
    return self.length

  def origin(self, index):
    return f"list.txt:{index + 1}"

  def __getitem__(self, index):
    if index in self.bad:
      raise self.error(f"{self.origin(index)}: damaged")
    count = index % 4 if self.boxes is None else self.boxes
    offsets = np.arange(count, dtype=np.float32)
    boxes = np.stack([offsets, offsets, offsets + 10, offsets + 12 + offsets], -1)
    return {
      "image": np.full((24, 32, 3), 8 + index, np.uint8),
      "boxes": boxes.reshape(-1, 4),
      "label": np.full(count, index % 7, np.int32),
    }


def _config(**changes):
  return dataclasses.replace(DataConfig(image_size=32, max_boxes=8), **changes)


def _take(dataset, count):
  iterator = iter(dataset)
  batches = [next(iterator) for _ in range(count)]
  iterator.close()
  return batches


def _all(dataset):
  iterator = iter(dataset)
  batches = list(iterator)
  iterator.close()
  return batches


def _train(source=None, config=None, **options):
  options = {"batch_size": 4, "seed": 3, "epochs": 10, **options}
  source = FakeSource() if source is None else source
  config = _config() if config is None else config
  return pipeline.train_dataset(source, config, **options)


def _rows(batches):
  return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}


def _assert_equal(a, b):
  assert a.keys() == b.keys()
  for key, value in a.items():
    np.testing.assert_array_equal(value, b[key], err_msg=key)


def test_batches_follow_the_contract():
  (batch,) = _take(_train(), 1)
  shapes = {key: (value.shape, value.dtype) for key, value in batch.items()}
  assert shapes == {
    "image": ((4, 32, 32, 3), np.uint8),
    "boxes": ((4, 8, 4), np.float32),
    "label": ((4, 8), np.int32),
    "box_mask": ((4, 8), bool),
    "mask": ((4,), bool),
    "skipped": ((4,), bool),
    "index": ((4,), np.int32),
    "placement": ((4, 6), np.float32),
  }
  assert batch["mask"].all()
  assert not batch["skipped"].any()
  np.testing.assert_array_equal(batch["placement"], [[1, 1, 0, 0, 32, 32]] * 4)


def test_unaugmented_row_contains_its_record():
  for batch in _take(_train(config=_config(augment=PLAIN)), 3):
    for row, index in enumerate(batch["index"]):
      count = batch["box_mask"][row].sum()
      assert count == index % 4
      assert (batch["label"][row, :count] == index % 7).all()
      assert (batch["boxes"][row, count:] == 0).all()
      assert (batch["image"][row] == 8 + index).all(-1).sum() == 24 * 32


def test_each_epoch_is_another_permutation():
  order = _rows(_take(_train(batch_size=11), 4))["index"].reshape(4, 11)
  assert (np.sort(order, axis=1) == np.arange(11)).all()
  assert len({tuple(epoch) for epoch in order}) == 4
  other = _rows(_take(_train(batch_size=11, seed=4), 4))["index"].reshape(4, 11)
  # Close seeds must not give the same orders one epoch apart.
  assert not {tuple(epoch) for epoch in order} & {tuple(epoch) for epoch in other}


def test_examples_do_not_depend_on_the_batch_size():
  expected = _rows(_take(_train(batch_size=4), 6))
  _assert_equal(_rows(_take(_train(batch_size=12), 2)), expected)
  _assert_equal(_rows(_take(_train(batch_size=1), 24)), expected)


def test_start_skips_to_an_example():
  expected = _rows(_take(_train(batch_size=1), 25))
  actual = _rows(_take(_train(batch_size=2, start=7), 9))
  _assert_equal(actual, {key: value[7:] for key, value in expected.items()})


@pytest.mark.parametrize("count", [2, 4])
def test_hosts_together_get_the_examples_of_one(count):
  expected = _take(_train(start=5), 4)
  hosts = [_take(_train(start=5, process_index=i, process_count=count), 4) for i in range(count)]
  for number, batch in enumerate(expected):
    _assert_equal(_rows([host[number] for host in hosts]), batch)


def test_seed_changes_augmentation():
  a = _rows(_take(_train(FakeSource(1, boxes=1)), 1))
  b = _rows(_take(_train(FakeSource(1, boxes=1), seed=4), 1))
  assert not np.array_equal(a["image"], b["image"])
  # Four examples of one record: each is augmented differently.
  assert not np.array_equal(a["image"][0], a["image"][1])


def test_mosaic_stops_at_its_epoch():
  config = _config(
    augment=dataclasses.replace(PLAIN, mosaic=1.0, mixup=0.0, mosaic_until=0.5), max_boxes=16
  )
  (batch,) = _take(_train(FakeSource(12, boxes=3), config, batch_size=24, epochs=2), 1)
  levels = [len(np.unique(image[..., 0])) for image in batch["image"]]
  # Without mosaic, the image has two levels: its own and the grey of the border.
  assert min(levels[:12]) > 2
  assert max(levels[12:]) == 2


def test_mosaic_uses_other_records():
  config = _config(augment=dataclasses.replace(PLAIN, mosaic=1.0, mixup=1.0), max_boxes=16)
  (batch,) = _take(_train(FakeSource(7, boxes=3), config, batch_size=7), 1)
  labels = [
    set(label[mask].tolist()) for label, mask in zip(batch["label"], batch["box_mask"], strict=True)
  ]
  assert np.mean([len(seen) for seen in labels]) > 2
  assert any(index % 7 not in seen or len(seen) > 1 for index, seen in enumerate(labels))


def test_state_resumes_exactly():
  iterator = iter(_train())
  for _ in range(3):
    next(iterator)
  state = iterator.get_state()
  expected = [next(iterator) for _ in range(3)]
  iterator.close()
  resumed = iter(_train())
  resumed.set_state(state)
  for batch in expected:
    _assert_equal(next(resumed), batch)
  resumed.set_state(state)
  _assert_equal(next(resumed), expected[0])
  resumed.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_evaluation_resumes_anywhere():
  grain.experimental.assert_equal_output_after_checkpoint(
    pipeline.eval_dataset(FakeSource(9), _config(), batch_size=4)
  )


@pytest.mark.parametrize(("length", "batch_size", "count"), [(11, 4, 1), (11, 4, 2), (8, 4, 4)])
def test_evaluation_reads_every_record_once(length, batch_size, count):
  hosts = [
    _all(
      pipeline.eval_dataset(
        FakeSource(length),
        _config(),
        batch_size=batch_size,
        process_index=i,
        process_count=count,
      )
    )
    for i in range(count)
  ]
  assert {len(host) for host in hosts} == {-(-length // batch_size)}
  rows = _rows([batch for step in zip(*hosts, strict=True) for batch in step])
  assert rows["index"][rows["mask"]].tolist() == list(range(length))
  padding = ~rows["mask"]
  assert padding.sum() == -length % batch_size
  assert not rows["skipped"].any()
  assert not rows["box_mask"][padding].any()


@pytest.mark.parametrize("error", [image_lib.ImageError, RecordError])
def test_bad_record_stops_or_is_masked(error):
  source = FakeSource(6, bad=(2,), error=error)
  iterator = iter(_train(source, batch_size=6))
  with pytest.raises(error, match=r"list.txt:3: damaged"):
    next(iterator)
  iterator.close()
  config = _config(on_bad_record="skip", augment=dataclasses.replace(PLAIN, mosaic=1.0))
  batches = {
    "train": _take(_train(source, config, batch_size=6), 1)[0],
    "eval": _all(pipeline.eval_dataset(source, config, batch_size=6))[0],
  }
  for batch in batches.values():
    assert batch["index"][batch["skipped"]].tolist() == [2]
    np.testing.assert_array_equal(batch["mask"], ~batch["skipped"])
    assert not batch["box_mask"][batch["skipped"]].any()
    assert (batch["image"][batch["skipped"]] == 128).all()


@pytest.mark.parametrize(
  ("config", "options", "message"),
  [
    ({"image_size": 0}, {}, r"image_size \(0\) must be at least 1 pixel"),
    ({"max_boxes": 0}, {}, r"max_boxes \(0\) must be positive"),
    ({"num_workers": -1}, {}, r"num_workers \(-1\)"),
    ({"on_bad_record": "ignore"}, {}, "unknown on_bad_record 'ignore'; known: error, skip"),
    ({"std": (0.2, 0.0, 0.2)}, {}, r"data.std \(0.2, 0.0, 0.2\) must be three .* positive"),
    ({"balance": True}, {}, r"data.balance \(True\) is for classifiers"),
    ({"on_device": True}, {}, r"data.on_device \(True\) is for classifiers"),
    ({"resize": 36}, {}, r"data.resize \(36\) is for classifiers"),
    ({}, {"batch_size": 5, "process_count": 2}, r"batch_size \(5\) .* hosts \(2\)"),
    ({}, {"batch_size": 0}, r"batch_size \(0\) must be a positive"),
    ({}, {"process_index": 1}, r"process_index \(1\) must be in 0..0"),
  ],
)
def test_invalid_sizes_are_refused(config, options, message):
  options = {"batch_size": 4, **options}
  with pytest.raises(ValueError, match=message):
    pipeline.eval_dataset(FakeSource(), _config(**config), **options)
  with pytest.raises(ValueError, match=message):
    _train(config=_config(**config), **options)


def test_other_invalid_arguments_are_refused():
  with pytest.raises(ValueError, match="the data set is empty"):
    _train(FakeSource(0))
  for name in ("seed", "epochs", "start"):
    with pytest.raises(ValueError, match=rf"{name} \(-1\) must be at least"):
      _train(**{name: -1})
  with pytest.raises(ValueError, match=r"augment.scale"):
    _train(config=_config(augment=AugmentConfig(scale=(2.0, 1.0))))
  with pytest.raises(ValueError, match="ten_crop is for classifiers"):
    pipeline.eval_dataset(FakeSource(), _config(), batch_size=4, ten_crop=True)

"""Single rows of a detector's batch, by hand."""

import dataclasses

import grain
import numpy as np
import pytest

from ferjax.config import AugmentConfig, DataConfig
from ferjax.data.detection import rows as detection_rows
from ferjax.data.image import ImageError
from ferjax.expressions import UNLABELLED

PLAIN = AugmentConfig(
  scale=(1.0, 1.0), aspect_jitter=0.0, flip=0.0, hue=0.0, saturation=0.0, value=0.0, mosaic=0.0
)


class FakeSource:
  """Record i is 32 by 24 pixels of level 8 + i; its box j is 10 by 12 + j pixels, at (j, j)."""

  task, class_names, skipped = "detection", tuple("abcdefg"), []

  def __init__(self, *counts):
    self.counts = counts

  def __len__(self):
    return len(self.counts)

  def origin(self, index):
    return f"list.txt:{index + 1}"

  def __getitem__(self, index):
    count = self.counts[index]
    offsets = np.arange(count, dtype=np.float32)
    boxes = np.stack([offsets, offsets, offsets + 10, offsets + 12 + offsets], -1)
    return {
      "image": np.full((24, 32, 3), 8 + index, np.uint8),
      "boxes": boxes.reshape(-1, 4),
      "label": np.full(count, index % 7, np.int32),
    }


def _config(**changes):
  return dataclasses.replace(DataConfig(image_size=32, max_boxes=8, augment=PLAIN), **changes)


def _train_row(source, config, number):
  order = [grain.MapDataset.range(len(source)).repeat()] * detection_rows.NUM_STREAMS
  order = grain.experimental.ZipMapDataset(order)
  row = detection_rows.TrainRow(source, config, order=order, seed=0, mosaic_examples=0)
  return row.map(number)


def test_evaluation_letterboxes():
  rows = detection_rows.EvalRow(FakeSource(0, 1, 2, 3), _config(image_size=64))
  row = rows.map(3)
  np.testing.assert_array_equal(row["placement"], [2, 2, 0, 8, 32, 24])
  np.testing.assert_array_equal(row["boxes"][:2], [[0, 8, 20, 32], [2, 10, 22, 36]])
  assert [int(rows.map(i)["box_mask"].sum()) for i in range(4)] == [0, 1, 2, 3]
  np.testing.assert_array_equal(row["image"][:8], np.full((8, 64, 3), 128, np.uint8))


def test_grey_rows_have_one_channel_of_luma():
  class Red(FakeSource):
    def __getitem__(self, index):
      if index == 1:
        raise ImageError("damaged")
      image = np.tile(np.array([255, 0, 0], np.uint8), (32, 32, 1))
      return super().__getitem__(index) | {"image": image}

  source, config = Red(1, 1), _config(grey=True, on_bad_record="skip")
  rows = [_train_row(source, config, number) for number in range(2)]
  rows += [detection_rows.EvalRow(source, config).map(number) for number in range(3)]
  levels = [76, 128, 76, 128, 128]  # 0.299 * 255; damaged; damaged; padding
  assert [row["skipped"].item() for row in rows] == [False, True, False, True, False]
  for row, level in zip(rows, levels, strict=True):
    np.testing.assert_array_equal(row["image"], np.full((32, 32, 1), level, np.uint8))


def test_unlabelled_boxes_are_kept():
  class Unlabelled(FakeSource):
    def __getitem__(self, index):
      return super().__getitem__(index) | {"label": np.full(2, UNLABELLED, np.int32)}

  source = Unlabelled(2, 2)
  mosaic = dataclasses.replace(PLAIN, mosaic=1.0, mixup=1.0)
  order = [grain.MapDataset.range(2).repeat()] * detection_rows.NUM_STREAMS
  order = grain.experimental.ZipMapDataset(order)
  train = detection_rows.TrainRow(
    source, _config(augment=mosaic), order=order, seed=0, mosaic_examples=9
  )
  for row in (train.map(0), detection_rows.EvalRow(source, _config()).map(0)):
    assert row["box_mask"].sum() >= 2
    np.testing.assert_array_equal(row["label"], np.where(row["box_mask"], UNLABELLED, 0))


def test_training_keeps_the_largest_boxes_and_evaluation_all():
  source, config = FakeSource(5, 5), _config(max_boxes=2)
  row = _train_row(source, config, 3)
  assert row["index"] == 1
  sides = row["boxes"][:, 2:] - row["boxes"][:, :2]
  np.testing.assert_allclose(sides[:, 1], [15, 16], atol=1e-5)
  assert row["box_mask"].all()
  with pytest.raises(ValueError, match=r"list.txt:2: 5 boxes are more than data.max_boxes \(2\)"):
    detection_rows.EvalRow(source, config).map(1)
  source.max_boxes = 5
  row = detection_rows.EvalRow(source, config).map(1)
  assert row["box_mask"].tolist() == [True] * 5

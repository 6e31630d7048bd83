"""Rows of a detector's batches: `ferjax.typing.DetectionBatch` without the first axis.

Images are uint8, with one channel if grey; the device normalises them. They become grey last, so
the colour augmentation of a photograph varies its grey levels too.
"""

from typing import Any

import grain
import numpy as np
from absl import logging

from ferjax.config import DataConfig
from ferjax.data.detection import augment
from ferjax.data.image import GREY, letterbox, luma, place_boxes
from ferjax.data.sources import Source, load_example

NUM_STREAMS = 5  # records per row: its own, three for a mosaic, one for mixup

Row = dict[str, np.ndarray]


class TrainRow(grain.transforms.Map):
  """Example number -> an augmented row.

  Args:
    source: the examples.
    config: image size and augmentation.
    order: example number -> `NUM_STREAMS` records.
    seed: of the augmentation.
    mosaic_examples: number of examples before mosaic stops.
  """

  def __init__(
    self,
    source: Source,
    config: DataConfig,
    *,
    order: grain.MapDataset,
    seed: int,
    mosaic_examples: int,
  ):
    self._source = source
    self._config = config
    self._order = order
    self._seed = seed
    self._mosaic_examples = mosaic_examples

  def map(self, number: int) -> Row:
    index, *partners = self._order[number]
    config = self._config
    size = config.image_size
    own = load_example(self._source, index, config.on_bad_record)
    if own is None:
      return _row(_grey(size), config.max_boxes, grey=config.grey, index=index, skipped=True)
    example = augment.training_example(
      own,
      self._partner,
      partners,
      np.random.default_rng((self._seed, number)),
      size=size,
      config=config.augment,
      mosaic_allowed=number < self._mosaic_examples,
    )
    example = _keep_largest(example, config.max_boxes)
    return _row(example, config.max_boxes, grey=config.grey, index=index)

  def _partner(self, index: int) -> augment.Example:
    example = load_example(self._source, index, self._config.on_bad_record)
    return _grey(self._config.image_size) if example is None else example


class EvalRow(grain.transforms.Map):
  """Record number -> a letterboxed row; numbers beyond the source give padding rows."""

  def __init__(self, source: Source, config: DataConfig):
    self._source = source
    self._config = config
    self._max_boxes = max(config.max_boxes, getattr(source, "max_boxes", 0))

  def map(self, number: int) -> Row:
    size = self._config.image_size
    if number >= len(self._source):
      return self._row(_grey(size), index=0, mask=False)
    example = load_example(self._source, number, self._config.on_bad_record)
    if example is None:
      return self._row(_grey(size), index=number, skipped=True)
    if len(example["label"]) > self._max_boxes:
      raise ValueError(
        f"{self._source.origin(number)}: {len(example['label'])} boxes are more than "
        f"data.max_boxes ({self._max_boxes}); evaluation needs them all: raise data.max_boxes"
      )
    image, placement = letterbox(example["image"], size)
    boxes = place_boxes(example["boxes"], placement)
    placed: augment.Example = {"image": image, "boxes": boxes, "label": example["label"]}
    return self._row(placed, index=number, placement=placement)

  def _row(self, example: augment.Example, **fields: Any) -> Row:
    return _row(example, self._max_boxes, grey=self._config.grey, **fields)


def _grey(size: int) -> augment.Example:
  return {
    "image": np.full((size, size, 3), GREY, np.uint8),
    "boxes": np.zeros((0, 4), np.float32),
    "label": np.zeros(0, np.int32),
  }


def _keep_largest(example: augment.Example, max_boxes: int) -> augment.Example:
  """Drops the smallest surplus boxes and keeps the order of the others."""
  count = len(example["label"])
  if count <= max_boxes:
    return example
  logging.log_first_n(
    logging.WARNING,
    "a training example has %d boxes; the %d largest are kept (data.max_boxes)",
    1,
    count,
    max_boxes,
  )
  sides = example["boxes"][:, 2:] - example["boxes"][:, :2]
  keep = np.sort(np.argsort(-sides.prod(axis=1), kind="stable")[:max_boxes])
  return {
    "image": example["image"],
    "boxes": example["boxes"][keep],
    "label": example["label"][keep],
  }


def _row(
  example: augment.Example,
  max_boxes: int,
  *,
  grey: bool,
  index: int,
  placement: np.ndarray | None = None,
  mask: bool = True,
  skipped: bool = False,
) -> Row:
  """Pads the boxes; without a placement, the input is the original image."""
  size, count = example["image"].shape[0], len(example["label"])
  if placement is None:
    placement = np.array([1, 1, 0, 0, size, size], np.float32)
  boxes = np.zeros((max_boxes, 4), np.float32)
  label = np.zeros(max_boxes, np.int32)
  boxes[:count], label[:count] = example["boxes"], example["label"]
  return {
    "image": luma(example["image"]) if grey else example["image"],
    "boxes": boxes,
    "label": label,
    "box_mask": np.arange(max_boxes) < count,
    "mask": np.array(mask and not skipped),
    "skipped": np.array(skipped),
    "index": np.array(index, np.int32),
    "placement": placement,
  }

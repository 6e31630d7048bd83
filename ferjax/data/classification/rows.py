"""Rows of a classifier's batches: `ferjax.typing.ClassificationBatch` without the first axis.

Images are uint8, with one channel if grey; `ferjax.data.pipeline` normalises batches.
"""

from typing import cast

import grain
import numpy as np
from jaxtyping import Float, UInt8

from ferjax.config import DataConfig
from ferjax.data.classification.augment import training_view
from ferjax.data.classification.views import NUM_VIEWS, center_view, ten_views
from ferjax.data.image import GREY
from ferjax.data.samplers import BalancedOrder
from ferjax.data.sources import Source, load_example

Row = dict[str, np.ndarray]


class TrainRow(grain.transforms.Map):
  """Example number -> an augmented row.

  Args:
    source: the examples.
    config: image size and augmentation.
    order: example number -> record.
    seed: of the augmentation.
  """

  def __init__(
    self,
    source: Source,
    config: DataConfig,
    *,
    order: grain.MapDataset | BalancedOrder,
    seed: int,
  ):
    self._source = source
    self._config = config
    self._order = order
    self._seed = seed

  def map(self, number: int) -> Row:
    index = cast(int, self._order[number])
    config = self._config
    example = load_example(self._source, index, config.on_bad_record)
    if example is None:
      return _filling(self._source, config, (), index=index, skipped=True)
    view = training_view(
      example["image"],
      np.random.default_rng((self._seed, number)),
      config.image_size,
      resize=config.resize,
      grey=config.grey,
      config=config.face_augment,
    )
    return _row(view, example["label"], index=index)


class EvalRow(grain.transforms.Map):
  """Record number -> a row of one or ten views; numbers beyond the source give padding rows."""

  def __init__(self, source: Source, config: DataConfig, *, ten_crop: bool):
    self._source = source
    self._config = config
    self._prepare = ten_views if ten_crop else center_view
    self._views = (NUM_VIEWS,) if ten_crop else ()

  def map(self, number: int) -> Row:
    config = self._config
    if number >= len(self._source):
      return _filling(self._source, config, self._views, index=0, skipped=False)
    example = load_example(self._source, number, config.on_bad_record)
    if example is None:
      return _filling(self._source, config, self._views, index=number, skipped=True)
    view = self._prepare(
      example["image"], config.image_size, resize=config.resize, grey=config.grey
    )
    if config.grey:
      view = view[..., :1]
    return _row(view, example["label"], index=number)


def _filling(
  source: Source, config: DataConfig, views: tuple[int, ...], *, index: int, skipped: bool
) -> Row:
  """A grey padding row that is excluded from loss and metrics."""
  channels = 1 if config.grey else 3
  image = np.full((*views, config.image_size, config.image_size, channels), GREY, np.uint8)
  label = np.zeros(len(source.class_names), np.float32)
  return _row(image, label, index=index, mask=False, skipped=skipped)


def _row(
  image: UInt8[np.ndarray, "*views s s c"],
  label: Float[np.ndarray, "k"],
  *,
  index: int,
  mask: bool = True,
  skipped: bool = False,
) -> Row:
  return {
    "image": image,
    "label": label,
    "mask": np.array(mask),
    "skipped": np.array(skipped),
    "index": np.array(index, np.int32),
  }

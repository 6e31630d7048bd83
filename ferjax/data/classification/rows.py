"""Rows of a classifier's batches: `ferjax.typing.ClassificationBatch` without the first axis.

Images are uint8, with one channel if grey; the device normalises them.
"""

from typing import Any, Generic, TypeVar, cast

import grain
import numpy as np
from jaxtyping import Float, UInt8

from ferjax.config import DataConfig
from ferjax.data.classification.augment import (
  View,
  draw_view,
  rotation_matrix,
  training_view,
)
from ferjax.data.classification.mixing import draw_mixing, mixes
from ferjax.data.classification.stored import StoredFaces
from ferjax.data.classification.views import (
  NUM_VIEWS,
  center_view,
  scaled_size,
  short_side,
  ten_views,
)
from ferjax.data.image import GREY
from ferjax.data.samplers import BalancedOrder
from ferjax.data.sources import Source, load_example

Row = dict[str, Any]
Records = TypeVar("Records", Source, StoredFaces)


class _TrainingRow(grain.transforms.Map, Generic[Records]):
  """What the rows of a training set are made from.

  Args:
    records: the source of the examples, or the stored set.
    config: image size and augmentation.
    order: example number -> record.
    seed: of the augmentation.
  """

  def __init__(
    self,
    records: Records,
    config: DataConfig,
    *,
    order: grain.MapDataset | BalancedOrder,
    seed: int,
  ):
    self._records = records
    self._config = config
    self._order = order
    self._seed = seed


class TrainRow(_TrainingRow[Source]):
  """Example number -> an augmented row; arguments as for `_TrainingRow`."""

  def map(self, number: int) -> Row:
    index = cast(int, self._order[number])
    config = self._config
    example = load_example(self._records, index, config.on_bad_record)
    mixing = _mixing(config, self._seed, number)
    if example is None:
      return _filling(self._records, config, (), index=index, skipped=True) | mixing
    view = training_view(
      example["image"],
      np.random.default_rng((self._seed, number)),
      config.image_size,
      resize=config.resize,
      grey=config.grey,
      config=config.face_augment,
    )
    return _row(view, example["label"], index=index) | mixing


class StoredTrainRow(_TrainingRow[StoredFaces]):
  """Example number -> the view of a stored image: `ferjax.typing.StoredBatch` without an axis.

  The same record and the same view as `TrainRow` gives; arguments as for `_TrainingRow`.
  """

  def map(self, number: int) -> Row:
    index = cast(int, self._order[number])
    skipped = bool(self._records.skipped[index])
    view = self._whole() if skipped else self._drawn(number)
    return {
      "view": _as_arrays(view, number),
      "label": self._records.labels[index],
      "mask": np.array(not skipped),
      "skipped": np.array(skipped),
      "index": np.array(index, np.int32),
      **_mixing(self._config, self._seed, number),
    }

  def _drawn(self, number: int) -> View:
    stored, config = self._records, self._config
    return draw_view(
      np.random.default_rng((self._seed, number)),
      stored.width,
      stored.height,
      config.image_size,
      resize=config.resize,
      channels=stored.channels,
      config=config.face_augment,
    )

  def _whole(self) -> View:
    """Without augmentation, so that the view of a grey image is grey everywhere."""
    short = short_side(self._config.image_size, self._config.resize)
    width, height = scaled_size(self._records.width, self._records.height, short)
    return View(width=width, height=height)


def _mixing(config: DataConfig, seed: int, number: int) -> Row:
  """The field of a training row for mixup and CutMix, if pairs are mixed."""
  if not mixes(config.face_augment):
    return {}
  return {"mixing": draw_mixing(seed, number, config.image_size, config.face_augment)}


def _as_arrays(view: View, number: int) -> Row:
  matrix = rotation_matrix(view.width, view.height, view.angle, view.left, view.top)
  return {
    "number": np.array(number % 2**32, np.uint32),
    "size": np.array((view.width, view.height), np.int32),
    "matrix": matrix.astype(np.float32),
    "flipped": np.array((view.flipped, view.vertically_flipped)),
    "gains": np.array((view.brightness, view.contrast), np.float32),
    "noisy": np.array(view.noise is not None),
    "erased": np.array(view.erased or (0, 0, 0, 0), np.int32),
  }


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

"""Batches for training and evaluation, with grain.

Training examples are an endless sequence, numbered 0, 1, 2, ...: example n belongs to epoch
`n // len(source)` and is a pure function of the seed and n. Batch size, hosts and workers only
determine how the sequence is divided. So none of them changes the training examples, and a
checkpoint only needs a position. Batches are dicts of NumPy arrays: `ferjax.typing.DetectionBatch`
or `ClassificationBatch`, depending on the source's task. Images are bytes, with one channel if
grey: the device normalises them.
"""

import functools
import gc
import signal
import sys
from typing import Any, cast

import cv2
import grain
import numpy as np
from grain._src.python.ipc import shared_memory_array

from ferjax.config import DataConfig
from ferjax.data.classification import augment as classification_augment
from ferjax.data.classification import rows as classification_rows
from ferjax.data.classification.stored import StoredFaces
from ferjax.data.classification.views import short_side
from ferjax.data.detection import augment as detection_augment
from ferjax.data.detection import rows as detection_rows
from ferjax.data.samplers import order_of
from ferjax.data.sources import LabelledSource, Source, check_on_bad_record

_PREFETCH = 4  # batches prepared in parallel, one per thread; 10 MB each for 32 images of 320 px


def train_dataset(
  source: Source,
  config: DataConfig,
  *,
  batch_size: int,
  seed: int,
  epochs: int,
  start: int = 0,
  process_index: int = 0,
  process_count: int = 1,
  stored: StoredFaces | None = None,
) -> grain.IterDataset:
  """Endless shuffled, augmented batches of this host.

  Args:
    source: its examples are sampled once per epoch, in a new order each epoch; with
      `config.balance`, its classes are sampled equally often, or nearly so
      (`ferjax.data.samplers.BalancedOrder`). Each source of a mixture has its share of every
      stretch of examples (`ferjax.data.samplers.MixedOrder`).
    config: image size, augmentation and workers. `num_workers` > 0 needs parsed absl flags, that
      is, a program run by `absl.app.run`.
    batch_size: over all hosts. Host p gets rows `[p * b, (p + 1) * b)` of each batch, with
      b = batch_size // process_count.
    seed: of order and augmentation, not negative.
    epochs: number of epochs; mosaic stops after the fraction `augment.mosaic_until` of them.
    start: number of the first example.
    process_index: of this host.
    process_count: number of hosts.
    stored: the set, if its pixels are on the devices: batches are `ferjax.typing.StoredBatch`.

  Raises:
    ValueError: an invalid size, an empty source, a class that cannot be balanced, or a bad record
      while iterating.
  """
  _check(source, config, batch_size, process_index, process_count)
  for name, value, least in (("seed", seed, 0), ("epochs", epochs, 1), ("start", start, 0)):
    if value < least:
      raise ValueError(f"{name} ({value}) must be at least {least}")
  if source.task == "classification":
    make = _classification_rows(cast(LabelledSource, source), config, seed, stored)
  else:
    make = _detection_rows(source, config, seed, epochs)
  local = batch_size // process_count
  number = functools.partial(
    _number, start=start, batch_size=batch_size, local=local, first=process_index * local
  )
  # sys.maxsize rows: the program decides when to stop.
  rows = grain.MapDataset.range(sys.maxsize).map(number).map(make)
  return _batches(rows, local, config)


def eval_dataset(
  source: Source,
  config: DataConfig,
  *,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
  ten_crop: bool = False,
) -> grain.IterDataset:
  """Every record once, in order; every host yields the same number of batches.

  A detector's images are letterboxed; boxes are never dropped, so they are padded to the maximum
  number per image. A classifier's images are centre-cropped, or, with `ten_crop`, in the ten views
  of `ferjax.data.classification.views`: [b 10 h w 3]. The last batch is padded with examples whose
  `mask` is False. Arguments and errors as for `train_dataset`.
  """
  _check(source, config, batch_size, process_index, process_count)
  if source.task == "classification":
    make = classification_rows.EvalRow(source, config, ten_crop=ten_crop)
  elif ten_crop:
    raise ValueError("ten_crop is for classifiers; this source has boxes, for a detector")
  else:
    make = detection_rows.EvalRow(source, config)
  local = batch_size // process_count
  batches = -(-len(source) // batch_size)
  number = functools.partial(
    _number, start=0, batch_size=batch_size, local=local, first=process_index * local
  )
  rows = grain.MapDataset.range(batches * local).map(number).map(make)
  # Ten views need ten times the memory.
  return _batches(rows, local, config, prefetch=1 if ten_crop else _PREFETCH)


def close(iterator: grain.DatasetIterator, config: DataConfig) -> None:
  """Stops the threads and workers of an iterator over these data sets."""
  iterator.close()
  if config.num_workers > 0:
    # At the end of the data, and after an error, the stack traces of grain's threads keep their
    # last batches alive in reference cycles. The batches are in shared memory, which has to be
    # released before the program ends.
    gc.collect()
    _wait_for_released_memory()


def _wait_for_released_memory() -> None:
  """Waits for grain's single thread that releases shared memory; at exit it drops its queue."""
  pool = getattr(shared_memory_array.SharedMemoryArray, "_del_thread_pool", None)
  if pool is not None:
    pool.apply(int)  # returns after everything that was queued before


def _detection_rows(
  source: Source, config: DataConfig, seed: int, epochs: int
) -> detection_rows.TrainRow:
  detection_augment.check_ranges(config.augment)
  orders: Any = [order_of(source, seed, i) for i in range(detection_rows.NUM_STREAMS)]
  return detection_rows.TrainRow(
    source,
    config,
    order=grain.experimental.ZipMapDataset(orders),
    seed=seed,
    mosaic_examples=round(config.augment.mosaic_until * epochs) * len(source),
  )


def _classification_rows(
  source: LabelledSource, config: DataConfig, seed: int, stored: StoredFaces | None
) -> classification_rows.TrainRow | classification_rows.StoredTrainRow:
  classification_augment.check_ranges(config.face_augment)
  order = order_of(source, seed, balance=config.balance_power if config.balance else 0.0)
  if stored is not None:
    return classification_rows.StoredTrainRow(stored, config, order=order, seed=seed)
  return classification_rows.TrainRow(source, config, order=order, seed=seed)


def _check(
  source: Source, config: DataConfig, batch_size: int, process_index: int, process_count: int
) -> None:
  if len(source) == 0:
    raise ValueError("the data set is empty; check data.source, data.dir and the split")
  if config.image_size < 1:
    raise ValueError(f"image_size ({config.image_size}) must be at least 1 pixel")
  if batch_size <= 0 or batch_size % process_count:
    raise ValueError(
      f"batch_size ({batch_size}) must be a positive multiple of the number of hosts "
      f"({process_count})"
    )
  if not 0 <= process_index < process_count:
    raise ValueError(f"process_index ({process_index}) must be in 0..{process_count - 1}")
  if config.max_boxes <= 0:
    raise ValueError(f"max_boxes ({config.max_boxes}) must be positive")
  if config.num_workers < 0:
    raise ValueError(f"num_workers ({config.num_workers}) must not be negative")
  check_on_bad_record(config.on_bad_record)
  if len(config.mean) != 3 or len(config.std) != 3 or not min(config.std) > 0:
    raise ValueError(
      f"data.mean {config.mean} and data.std {config.std} must be three numbers each, for R, G and "
      "B, and the standard deviations positive"
    )
  if source.task == "classification":
    short_side(config.image_size, config.resize)
    return
  for name in ("resize", "balance", "on_device"):
    if value := getattr(config, name):
      raise ValueError(f"data.{name} ({value}) is for classifiers; this source is for a detector")


def _number(row: int, *, start: int, batch_size: int, local: int, first: int) -> int:
  """The example number of row `row` of this host's concatenated batches."""
  batch, offset = divmod(row, local)
  return start + batch * batch_size + first + offset


def _batches(
  rows: grain.MapDataset, local: int, config: DataConfig, prefetch: int = _PREFETCH
) -> grain.IterDataset:
  """Prefetched batches of `local` rows."""
  _disable_opencv_threads()
  batches = rows.batch(local, drop_remainder=True)
  if config.num_workers == 0:
    options = grain.ReadOptions(num_threads=prefetch, prefetch_buffer_size=prefetch)
    return batches.to_iter_dataset(options)
  # Workers process whole batches in turn, so their number does not affect the result.
  sequential = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
  options = grain.MultiprocessingOptions(num_workers=config.num_workers, per_worker_buffer_size=2)
  batches = batches.to_iter_dataset(sequential).mp_prefetch(options, _set_up_worker)
  return batches.map(_copied)


def _copied(batch: Any) -> Any:
  """A copy outside of the workers' shared memory, which is released when nothing refers to it."""
  if isinstance(batch, dict):
    return {name: _copied(value) for name, value in batch.items()}
  return np.array(batch)


def _disable_opencv_threads() -> None:
  """For the whole process: images are small and already prepared in parallel."""
  cv2.setNumThreads(0)


def _set_up_worker(index: int, count: int) -> None:
  """Ctrl-C reaches every process of a terminal; only the main process handles it."""
  del index, count
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  _disable_opencv_threads()

"""Batches for training and evaluation, by grain.

Training is an endless list of examples, numbered 0, 1, 2, ...: example n belongs to epoch
`n // len(source)` and is a pure function of the seed and n. Batch size, hosts and workers only
decide how the list is cut, so none of them changes what is learned from, and a checkpoint needs
no more than a position. Batches are `ferjax.typing.DetectionBatch` of NumPy arrays.
"""

import functools
import signal
import sys

import grain
import numpy as np
from absl import logging

from ferjax.config import DataConfig
from ferjax.data import augment
from ferjax.data.datasets.records import RecordError, Source, check_on_bad_record
from ferjax.data.image import GREY, ImageError, letterbox, normalize, place_boxes

_STREAMS = 5  # records an example may draw on: its own, three of a mosaic, one of mixup
_STRIDE = 32  # of the coarsest map of a detector
_THREADS = 4
_BUFFERED = 4  # batches; 39 MB each at 32 images of 320 pixels


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
) -> grain.IterDataset:
  """Endless shuffled, augmented batches of this host.

  Args:
    source: its examples are drawn once an epoch, in another order each epoch.
    config: image size, augmentation and workers. `num_workers` > 0 needs parsed absl flags, that
      is a program that runs in `absl.app.run`.
    batch_size: over all hosts. Host p gets rows `[p * b, (p + 1) * b)` of each batch, with
      b = batch_size // process_count.
    seed: of order and augmentation, not negative.
    epochs: length of the training, of which mosaic takes the first `augment.mosaic_until`.
    start: number of the first example.
    process_index: of this host.
    process_count: number of hosts.

  Raises:
    ValueError: a size that does not fit, an empty source, a bad record while iterating.
  """
  _check(source, config, batch_size, process_index, process_count)
  augment.check_ranges(config.augment)
  for name, value, least in (("seed", seed, 0), ("epochs", epochs, 1), ("start", start, 0)):
    if value < least:
      raise ValueError(f"{name} ({value}) must be at least {least}")
  orders = [
    grain.MapDataset.range(len(source)).shuffle(seed=_stream_seed(seed, stream)).repeat()
    for stream in range(_STREAMS)
  ]
  make = _TrainExample(
    source,
    config,
    order=grain.experimental.ZipMapDataset(orders),
    seed=seed,
    mosaic_examples=round(config.augment.mosaic_until * epochs) * len(source),
  )
  local = batch_size // process_count
  number = functools.partial(
    _number, start=start, batch_size=batch_size, local=local, first=process_index * local
  )
  # sys.maxsize rows: the program decides when to stop.
  rows = grain.MapDataset.range(sys.maxsize).map(number).map(make)
  return _prefetch(rows.batch(local, drop_remainder=True), config.num_workers)


def eval_dataset(
  source: Source,
  config: DataConfig,
  *,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.IterDataset:
  """Every record once and in order, letterboxed; every host yields as many batches.

  The last batch is filled up with examples whose `mask` is False. Arguments and errors as for
  `train_dataset`; boxes are never dropped, so they are padded to the most that an image has.
  """
  _check(source, config, batch_size, process_index, process_count)
  local = batch_size // process_count
  batches = -(-len(source) // batch_size)
  number = functools.partial(
    _number, start=0, batch_size=batch_size, local=local, first=process_index * local
  )
  rows = grain.MapDataset.range(batches * local).map(number).map(_EvalExample(source, config))
  return _prefetch(rows.batch(local, drop_remainder=True), config.num_workers)


def _check(
  source: Source, config: DataConfig, batch_size: int, process_index: int, process_count: int
) -> None:
  if len(source) == 0:
    raise ValueError("the data set is empty; check data.source, data.dir and the split")
  size = config.image_size
  if size <= 0 or size % _STRIDE:
    below = size // _STRIDE * _STRIDE
    near = f"{below} or {below + _STRIDE}" if below > 0 else f"{_STRIDE}"
    raise ValueError(f"image_size ({size}) must be divisible by {_STRIDE}; nearest: {near}")
  if batch_size <= 0 or batch_size % process_count:
    raise ValueError(
      f"batch_size ({batch_size}) must be a positive multiple of the number of hosts "
      f"({process_count})"
    )
  if not 0 <= process_index < process_count:
    raise ValueError(f"process_index ({process_index}) must lie in 0..{process_count - 1}")
  if config.max_boxes <= 0:
    raise ValueError(f"max_boxes ({config.max_boxes}) must be positive")
  if config.num_workers < 0:
    raise ValueError(f"num_workers ({config.num_workers}) must not be negative")
  check_on_bad_record(config.on_bad_record)


def _stream_seed(seed: int, stream: int) -> int:
  """Far apart: grain shuffles epoch e by seed + e, so that near seeds would repeat orders."""
  return int(np.random.SeedSequence((seed, stream)).generate_state(1)[0])


def _number(row: int, *, start: int, batch_size: int, local: int, first: int) -> int:
  """The example that stands in a row of this host's batches, all batches laid end to end."""
  batch, offset = divmod(row, local)
  return start + batch * batch_size + first + offset


def _prefetch(batches: grain.MapDataset, num_workers: int) -> grain.IterDataset:
  if num_workers == 0:
    return batches.to_iter_dataset(
      grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_BUFFERED)
    )
  # Whole batches go to the workers, in turn, so that their number changes nothing.
  one_by_one = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
  options = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=2)
  return batches.to_iter_dataset(one_by_one).mp_prefetch(options, _ignore_interruption)


def _ignore_interruption(index: int, count: int) -> None:
  """Ctrl-C reaches every process of a terminal; what it means is for the main program to say."""
  del index, count
  signal.signal(signal.SIGINT, signal.SIG_IGN)


class _TrainExample(grain.transforms.Map):
  """Example number -> a row of a batch."""

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

  def map(self, number: int) -> dict[str, np.ndarray]:
    index, *partners = self._order[number]
    config = self._config
    size = config.image_size
    own = _load(self._source, index, config)
    if own is None:
      return _row(_grey(size), config.max_boxes, index=index, skipped=True)
    example = augment.training_example(
      own,
      self._partner,
      partners,
      np.random.default_rng((self._seed, number)),
      size=size,
      config=config.augment,
      mosaic_allowed=number < self._mosaic_examples,
    )
    return _row(_largest(example, config.max_boxes), config.max_boxes, index=index)

  def _partner(self, index: int) -> augment.Example:
    example = _load(self._source, index, self._config)
    return _grey(self._config.image_size) if example is None else example


class _EvalExample(grain.transforms.Map):
  """Record number -> a row of a batch; a number beyond the source gives a filling row."""

  def __init__(self, source: Source, config: DataConfig):
    self._source = source
    self._config = config
    self._max_boxes = max(config.max_boxes, getattr(source, "max_boxes", 0))

  def map(self, number: int) -> dict[str, np.ndarray]:
    size = self._config.image_size
    if number >= len(self._source):
      return _row(_grey(size), self._max_boxes, index=0, mask=False)
    example = _load(self._source, number, self._config)
    if example is None:
      return _row(_grey(size), self._max_boxes, index=number, skipped=True)
    if len(example["label"]) > self._max_boxes:
      raise ValueError(
        f"{self._source.origin(number)}: {len(example['label'])} boxes are more than "
        f"data.max_boxes ({self._max_boxes}); evaluation needs them all: raise data.max_boxes"
      )
    image, placement = letterbox(example["image"], size)
    boxes = place_boxes(example["boxes"], placement)
    placed: augment.Example = {"image": image, "boxes": boxes, "label": example["label"]}
    return _row(placed, self._max_boxes, index=number, placement=placement)


def _load(source: Source, index: int, config: DataConfig) -> augment.Example | None:
  """A record, or None if it is bad and such are to be skipped."""
  try:
    return source[index]
  except (ImageError, RecordError) as error:
    if config.on_bad_record != "skip":
      raise
    _warn_once(f"skipped: {error}")
    return None


@functools.cache
def _warn_once(message: str) -> None:
  """A bad record is met again in every epoch and evaluation; once in a process is enough."""
  logging.warning("%s", message)


def _grey(size: int) -> augment.Example:
  return {
    "image": np.full((size, size, 3), GREY, np.uint8),
    "boxes": np.zeros((0, 4), np.float32),
    "label": np.zeros(0, np.int32),
  }


def _largest(example: augment.Example, max_boxes: int) -> augment.Example:
  """Drops the smallest boxes that are too many, keeping the order of the others."""
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
  index: int,
  placement: np.ndarray | None = None,
  mask: bool = True,
  skipped: bool = False,
) -> dict[str, np.ndarray]:
  """Normalises the image and pads the boxes; without a placement, the input is the original."""
  size, count = example["image"].shape[0], len(example["label"])
  if placement is None:
    placement = np.array([1, 1, 0, 0, size, size], np.float32)
  boxes = np.zeros((max_boxes, 4), np.float32)
  label = np.zeros(max_boxes, np.int32)
  boxes[:count], label[:count] = example["boxes"], example["label"]
  return {
    "image": normalize(example["image"]),
    "boxes": boxes,
    "label": label,
    "box_mask": np.arange(max_boxes) < count,
    "mask": np.array(mask and not skipped),
    "skipped": np.array(skipped),
    "index": np.array(index, np.int32),
    "placement": placement,
  }

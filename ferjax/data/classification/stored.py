"""A data set of faces as bytes of one size, for training from the memory of the devices."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, UInt8

from ferjax.config import DataConfig
from ferjax.data.classification.augment import FaceExample, as_grey
from ferjax.data.classification.views import middle_part
from ferjax.data.examples import in_threads
from ferjax.data.image import GREY
from ferjax.data.sources import LabelledSource, load_example
from ferjax.progress import Progress

_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class StoredFaces:
  """What the host keeps of a set whose pixels are on the devices.

  Attributes:
    width, height: of all images, pixels.
    channels: 1 if grey, else 3.
    labels: class distributions of all records, in order.
    skipped: whether a record is bad; its pixels are grey, and its label is 0.
  """

  width: int
  height: int
  channels: int
  labels: Float[np.ndarray, "n k"]
  skipped: Bool[np.ndarray, "n"]


def decode_all(
  source: LabelledSource, config: DataConfig
) -> tuple[UInt8[np.ndarray, "n h w c"], StoredFaces]:
  """Decodes every record once.

  Args:
    source: the records, in order.
    config: `grey` stores one channel; `on_device_limit` and `on_bad_record` are used.

  Raises:
    ValueError: images of different sizes, no image that can be read, or more bytes than
      `on_device_limit`.
    ImageError, RecordError: a bad record, unless `on_bad_record` is "skip".
  """
  labels = np.zeros((len(source), len(source.class_names)), np.float32)
  skipped = np.ones(len(source), bool)
  pixels, first = None, 0

  def load(index: int) -> FaceExample | None:
    return load_example(source, index, config.on_bad_record)

  with Progress(len(source), "image", task="decoding the training set", keep=False) as progress:
    for index, example in in_threads(load, range(len(source))):
      progress.update()
      if isinstance(example, Exception):
        raise example
      if example is None:
        continue
      image = _middle(example["image"], grey=config.grey)
      if pixels is None:
        pixels, first = _allocate(len(source), image.shape, config.on_device_limit), index
      if image.shape != pixels.shape[1:]:
        raise ValueError(_describe_sizes(source, first, pixels.shape[1:], index, image.shape))
      pixels[index], labels[index], skipped[index] = image, example["label"], False
  if pixels is None:
    raise ValueError(f"none of the {len(source)} records can be read; correct their files")
  pixels[skipped] = GREY
  height, width, channels = pixels.shape[1:]
  return pixels, StoredFaces(width, height, channels, labels, skipped)


def _middle(image: UInt8[np.ndarray, "h w 3"], *, grey: bool) -> UInt8[np.ndarray, "i j c"]:
  """The part of an image that is resized, as in training from files."""
  x1, y1, x2, y2 = middle_part(image.shape[1], image.shape[0])
  image = image[y1:y2, x1:x2]
  return as_grey(image)[..., None] if grey else image


def _allocate(
  count: int, shape: tuple[int, ...], limit: float
) -> UInt8[np.ndarray, "{count} h w c"]:
  size = count * int(np.prod(shape, dtype=np.int64))
  if size > limit * _GIB:
    height, width, channels = shape
    raise ValueError(
      f"data.on_device: {count} images of {width}x{height} pixels with {channels} channels take "
      f"{size / _GIB:.3g} GiB of each device, more than data.on_device_limit, {limit:g} GiB. Raise "
      "it if the devices have the memory besides the network, or turn data.on_device off"
    )
  return np.empty((count, *shape), np.uint8)


def _describe_sizes(
  source: LabelledSource,
  first: int,
  expected: tuple[int, ...],
  index: int,
  found: tuple[int, ...],
) -> str:
  return (
    f"data.on_device needs images of one size: {source.origin(index)} has "
    f"{found[1]}x{found[0]} pixels, and {source.origin(first)} has {expected[1]}x{expected[0]}. "
    "Resize the images to one size, or turn data.on_device off"
  )

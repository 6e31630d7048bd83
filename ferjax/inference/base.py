"""Base class of all predictors: threads prefetch images, and the model runs on batches."""

import abc
import dataclasses
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import UInt8

from ferjax.data.image import ImageError, decode
from ferjax.inference.results import Face, Prediction

_DECODING_THREADS = 4

Image = str | os.PathLike | np.ndarray
OnBadImage = Callable[[str, ImageError], None] | None
Item = TypeVar("Item")
Inputs = TypeVar("Inputs")


@dataclasses.dataclass(frozen=True)
class Prepared(Generic[Inputs]):
  """An upright RGB image and the model's input; `path` is None for an array."""

  path: str | None
  image: UInt8[np.ndarray, "h w 3"]
  inputs: Inputs


class ImagePredictor(abc.ABC, Generic[Inputs]):
  """The interface of all predictors.

  The first call compiles a program with a fixed batch shape; a smaller last batch is padded.
  The result of an image does not depend on the other images of its batch.

  Attributes:
    class_names: in the order of the scores.
    step: of the checkpoint; None for a model without one.
    batch_size: images per batch.
    digest: identifies the weights; "" for a model without a checkpoint.
    settings: name -> value of each setting that affects the results, besides the checkpoint.
  """

  class_names: tuple[str, ...]
  step: int | None
  batch_size: int
  digest: str = ""
  settings: dict[str, Any]
  _compiled_sizes: tuple[int, ...] = ()

  def compile(self, batch_sizes: Iterable[int] = ()) -> None:
    """Compiles the model now instead of at the first image.

    From then on, a batch is padded to the smallest compiled size that holds it, so that a few
    images take less time than a full batch.

    Args:
      batch_sizes: of the programs, besides `batch_size`; larger ones are ignored.

    Raises:
      ValueError: a size is below 1.
    """
    sizes = {*batch_sizes, self.batch_size}
    check_count("a batch size", min(sizes))
    self._compiled_sizes = tuple(sorted(size for size in sizes if size <= self.batch_size))
    blank = self.prepare(np.zeros((1, 1, 3), np.uint8))
    for size in self._compiled_sizes:
      self._faces([blank] * size)

  def prepare(
    self, image: UInt8[np.ndarray, "h w 3"], *, path: str | None = None
  ) -> Prepared[Inputs]:
    """The model's input for an upright RGB image; may be called in threads.

    `path` is for `Prediction.image`.
    """
    return Prepared(path, image, self._inputs(image))

  def predict_batch(self, batch: list[Prepared[Inputs]]) -> list[Prediction]:
    """Predictions for 1 to `batch_size` prepared images, in one call of the model."""
    return [
      Prediction(prepared.path, prepared.image.shape[1], prepared.image.shape[0], faces)
      for prepared, faces in zip(batch, self._faces(batch), strict=True)
    ]

  def predict(self, images: Iterable[Image]) -> list[Prediction]:
    """Predictions for image files or RGB arrays u8[h w 3], in input order.

    Raises:
      ImageError: a file cannot be read; the message names it.
      TypeError, ValueError: an array is not u8[h w 3].
    """
    if isinstance(images, str | bytes | os.PathLike) or getattr(images, "ndim", 4) == 3:
      raise TypeError(f"predict takes a list of images, not one {type(images).__name__}: [image]")
    return [prediction for prediction, _ in self._predict(images, on_bad_image=None)]

  def predict_files(
    self, paths: Iterable[str | os.PathLike], *, on_bad_image: OnBadImage = None
  ) -> Iterator[tuple[Prediction, UInt8[np.ndarray, "h w 3"]]]:
    """Yields the prediction and the upright RGB pixels of each file, in input order.

    Files are decoded in threads while the model runs; at most two batches are in memory.

    Args:
      paths: image files; may be a generator.
      on_bad_image: called with the path and the error of an unreadable file, which is then
        skipped; if None, the error is raised.
    """
    yield from self._predict(paths, on_bad_image=on_bad_image)

  def _predict(self, images, *, on_bad_image) -> Iterator[tuple[Prediction, np.ndarray]]:
    ahead = read_ahead(
      images, self._inputs, images_ahead=self.batch_size, on_bad_image=on_bad_image
    )
    for batch in batched(ahead, self.batch_size):
      for prepared, prediction in zip(batch, self.predict_batch(batch), strict=True):
        yield prediction, prepared.image

  def _padded_size(self, count: int) -> int:
    """The number of rows that a batch of `count` images gets."""
    return next((size for size in self._compiled_sizes if size >= count), self.batch_size)

  @abc.abstractmethod
  def _inputs(self, image: UInt8[np.ndarray, "h w 3"]) -> Inputs:
    """The model's input for an image. Called in threads."""

  @abc.abstractmethod
  def _faces(self, batch: list[Prepared[Inputs]]) -> list[tuple[Face, ...]]:
    """The faces of each image in a batch of at most `batch_size` images."""


def read_ahead(
  images: Iterable[Image],
  make_inputs: Callable[[np.ndarray], Inputs],
  *,
  images_ahead: int,
  on_bad_image: OnBadImage,
) -> Iterator[Prepared[Inputs]]:
  """Yields the images in order while threads prepare the next ones.

  Errors and `on_bad_image` are those of `ImagePredictor.predict_files`.
  """

  def prepare(image: Image) -> Prepared[Inputs]:
    path, pixels = _read(image)
    return Prepared(path, pixels, make_inputs(pixels))

  waiting: deque[tuple[Image, Future[Prepared[Inputs]]]] = deque()
  with ThreadPoolExecutor(_DECODING_THREADS) as pool:
    try:
      for image in images:
        waiting.append((image, pool.submit(prepare, image)))
        if len(waiting) > images_ahead:
          yield from _take(waiting, on_bad_image)
      while waiting:
        yield from _take(waiting, on_bad_image)
    finally:
      for _, future in waiting:
        future.cancel()


def _read(image: Image) -> tuple[str | None, UInt8[np.ndarray, "h w 3"]]:
  if not isinstance(image, np.ndarray):
    return os.fspath(image), decode(image)
  if image.dtype != np.uint8:
    raise TypeError(f"an image array has dtype {image.dtype}; expected uint8 RGB, 0..255")
  if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
    raise ValueError(f"an image array has shape {image.shape}; expected (height, width, 3), RGB")
  return None, image


def _take(
  waiting: deque[tuple[Image, Future[Prepared[Inputs]]]], on_bad_image: OnBadImage
) -> Iterator[Prepared[Inputs]]:
  """Yields the first pending image; nothing if it is unreadable and may be skipped."""
  image, future = waiting.popleft()
  try:
    prepared = future.result()
  except ImageError as error:
    if on_bad_image is None or isinstance(image, np.ndarray):
      raise
    on_bad_image(os.fspath(image), error)
  else:
    yield prepared


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
  """Lists of `size` items; the last may be shorter."""
  batch: list[Item] = []
  for item in items:
    batch.append(item)
    if len(batch) == size:
      yield batch
      batch = []
  if batch:
    yield batch


def stack_padded(rows: list[np.ndarray], size: int) -> np.ndarray:
  """An array of `size` rows, padded with copies of the last one."""
  return np.stack(rows + [rows[-1]] * (size - len(rows)))


def check_count(name: str, count: int) -> None:
  """Raises a ValueError for a count below 1."""
  if count < 1:
    raise ValueError(f"{name} is {count}; expected at least 1")

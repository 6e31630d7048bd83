"""Predicts the images of concurrent requests, in batches and within limits."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ferjax.data.image import decode
from ferjax.inference.base import ImagePredictor, Prepared
from ferjax.inference.results import Prediction
from ferjax.serving.batching import Batcher, batching
from ferjax.serving.limits import Limits
from ferjax.serving.metrics import Metrics

_DECODING_THREADS = 4
_UNNAMED = "the image"
# What cameras and browsers write. Pillow runs other programs for some formats, on files on disk.
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "TIFF")


class BusyError(Exception):
  """All places are taken."""


class Places:
  """A number of places; who finds none free is refused instead of waiting."""

  def __init__(self, number: int):
    self._free = number

  @contextlib.contextmanager
  def take(self) -> Iterator[None]:
    """Takes a place for the duration of the context.

    Raises:
      BusyError: no place is free.
    """
    self.check()
    self._free -= 1
    try:
      yield
    finally:
      self._free += 1

  def check(self) -> None:
    """Raises a BusyError if no place is free."""
    if self._free == 0:
      raise BusyError


class Service:
  """Predicts images in batches; `running_service` makes one.

  Attributes:
    limits: of the service.
    uploads: places for requests whose body has not yet arrived.
    queue: places for images that have arrived and have no answer yet.
  """

  def __init__(
    self,
    predictor: ImagePredictor[Any],
    batcher: Batcher[Prepared[Any], Prediction],
    decoding: ThreadPoolExecutor,
    limits: Limits,
    metrics: Metrics,
  ):
    self.limits = limits
    self.uploads = Places(2 * limits.queue_size)
    self.queue = Places(limits.queue_size)
    self._predictor = predictor
    self._batcher = batcher
    self._decoding = decoding
    self._metrics = metrics
    # Decoded images take much more memory than files, so only two batches are decoded at a time.
    self._decoded = asyncio.Semaphore(2 * predictor.batch_size)

  async def predict(self, encoded: bytes, name: str | None) -> Prediction:
    """The prediction for an image file in memory.

    Args:
      encoded: the bytes of the file.
      name: for `Prediction.image`, and for errors.

    Raises:
      BusyError: the queue is full.
      TimeoutError: there is no result within `limits.timeout`.
      ImageError: the file cannot be decoded, or has too many pixels.
    """
    with self.queue.take(), self._metrics.waiting.track_inprogress():
      async with asyncio.timeout(self.limits.timeout), self._decoded:
        loop = asyncio.get_running_loop()
        prepared = await loop.run_in_executor(self._decoding, self._prepare, encoded, name)
        prediction = await self._batcher.submit(prepared)
    self._metrics.faces.inc(len(prediction.faces))
    return prediction

  def _prepare(self, encoded: bytes, name: str | None) -> Prepared[Any]:
    pixels = decode(
      encoded,
      origin=name or _UNNAMED,
      max_pixels=self.limits.max_pixels,
      formats=_FORMATS,
    )
    return self._predictor.prepare(pixels, path=name)


@contextlib.asynccontextmanager
async def running_service(
  predictor: ImagePredictor[Any], limits: Limits, metrics: Metrics
) -> AsyncIterator[Service]:
  """A service, as soon as its model is compiled, for the duration of the context."""
  loop = asyncio.get_running_loop()
  with ThreadPoolExecutor(_DECODING_THREADS) as decoding, ThreadPoolExecutor(1) as model:
    await loop.run_in_executor(model, predictor.compile, _batch_sizes(predictor.batch_size))

    def run(batch: list[Prepared[Any]]) -> list[Prediction]:
      with metrics.batch_seconds.time():
        return predictor.predict_batch(batch)

    async def predict_batch(batch: list[Prepared[Any]]) -> list[Prediction]:
      metrics.batch_images.observe(len(batch))
      return await loop.run_in_executor(model, run, batch)

    batcher = Batcher(predict_batch, batch_size=predictor.batch_size, batch_wait=limits.batch_wait)
    async with batching(batcher):
      yield Service(predictor, batcher, decoding, limits, metrics)


def _batch_sizes(largest: int) -> list[int]:
  """1, 2, 4, ... below `largest`: at most half of a batch is padding."""
  return [1 << power for power in range((largest - 1).bit_length())]

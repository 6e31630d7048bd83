"""Predicts a film in batches, while a thread reads the next one."""

import concurrent.futures
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from av.packet import Packet

from ferjax.inference.base import ImagePredictor, Prepared
from ferjax.video.reading import Frame, VideoReader
from ferjax.video.results import VideoResults

_PATIENCE = 0.1  # seconds between two looks whether to stop
_MOST_SOUND = 4096  # packets in a batch, of a film whose pictures cannot be decoded


class _Batch(NamedTuple):
  """Frames with their inputs, and the sound that was between them."""

  frames: list[Frame]
  prepared: list[Prepared]
  sound: list[Packet]


def analyse(
  reader: VideoReader,
  predictor: ImagePredictor,
  results: VideoResults,
  *,
  seconds: float = math.inf,
  advance: Callable[[int], object] = lambda frames: None,
  stopped: Callable[[], bool] = lambda: False,
) -> None:
  """Reads a film to its end, and adds the predictions to the results.

  At most two batches of frames are in memory. What was wrong with the film is in
  `results.damage`.

  Args:
    reader: of the film, not read yet.
    predictor: of its faces.
    results: gets them, and is not closed.
    seconds: the film is read up to this time.
    advance: is called with the number of frames that have been read since the last call.
    stopped: tells whether to stop now, with the frames so far.

  Raises:
    OSError: a file cannot be written.
  """
  done = 0
  batches = _read_ahead(reader, predictor, seconds, stopped)
  for batch in batches:
    if batch.prepared:
      predictions = predictor.predict_batch(batch.prepared)
      for frame, prediction in zip(batch.frames, predictions, strict=True):
        results.add(frame, prediction)
      advance(batch.frames[-1].index + 1 - done)
      done = batch.frames[-1].index + 1
    for packet in batch.sound:
      results.add_sound(packet)
  results.damage = reader.damage()
  if not stopped() and not results.damage:
    results.complete = True
    if math.isinf(seconds) and (missing := reader.missing()):
      results.damage, results.complete = [missing], False


def _read_ahead(
  reader: VideoReader,
  predictor: ImagePredictor,
  seconds: float,
  stopped: Callable[[], bool],
) -> Iterator[_Batch]:
  items = reader.items(until=seconds)

  def read() -> _Batch:
    batch = _Batch([], [], [])
    for item in items:
      if isinstance(item, Frame):
        batch.frames.append(item)
        batch.prepared.append(predictor.prepare(item.image))
        if len(batch.frames) == predictor.batch_size:
          break
      else:
        batch.sound.append(item)
        if len(batch.sound) == _MOST_SOUND:
          break
    return batch

  # Leaving the pool waits for the reader, at most for its time-out.
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    ahead = pool.submit(read)
    while True:
      while not (ahead.done() or stopped()):
        concurrent.futures.wait([ahead], timeout=_PATIENCE)
      if stopped():
        return
      batch = ahead.result()
      if not (batch.frames or batch.sound):
        return
      ahead = pool.submit(read)
      yield batch

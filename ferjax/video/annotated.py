"""Writes the annotated film, with the sound of the original."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from fractions import Fraction
from typing import Final

import av
import cv2
import numpy as np
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from jaxtyping import UInt8

from ferjax.video.reading import VideoReader, reason

STEM = "annotated"
_SUFFIXES = (".mp4", ".mkv")  # the second takes every kind of sound
_CODEC: Final = "libx264"
_OPTIONS = {"preset": "veryfast", "crf": "21"}
_CLOCK = 90_000  # ticks per second: all usual frame rates are whole numbers of them


class AnnotatedFilm:
  """A film with H.264 pictures at the times of the given frames, and copied sound.

  `close` gives it its name, `annotated.mp4`, or `annotated.mkv` if MP4 cannot hold the sound. A
  film without a frame is not written.
  """

  def __init__(self, folder: pathlib.Path, reader: VideoReader):
    """Prepares the film; it is created with the first frame.

    Args:
      folder: exists.
      reader: of the original, for its frame rate, its clock and its sound.

    Raises:
      ValueError: this build of PyAV cannot encode H.264.
    """
    if _CODEC not in av.codecs_available:
      raise ValueError(
        f"this build of PyAV has no {_CODEC} to encode films: install PyAV's own wheel, or "
        "--no-annotated writes no film"
      )
    self._folder, self._reader = folder, reader
    self._container: OutputContainer | None = None
    self._size = (0, 0)
    self._last_tick, self._last_sound = -1, None
    self._waiting: list[Packet] = []  # sound before the first frame

  def add(self, time: float, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Adds an RGB frame at a time in seconds, later than the one before.

    All frames get the size of the first, less a row or column if it is odd.

    Raises:
      OSError: it cannot be written.
    """
    if self._container is None:
      self._container = self._create(image.shape[1] // 2 * 2 or 2, image.shape[0] // 2 * 2 or 2)
      for packet in self._waiting:
        self.add_sound(packet)
      self._waiting = []
    if image.shape[1] // 2 * 2 != self._size[0] or image.shape[0] // 2 * 2 != self._size[1]:
      image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
    image = np.ascontiguousarray(image[: self._size[1], : self._size[0]])
    frame = VideoFrame.from_ndarray(image, format="rgb24")
    self._last_tick = max(round(time * _CLOCK), self._last_tick + 1)
    frame.pts, frame.time_base = self._last_tick, Fraction(1, _CLOCK)
    with self._writing():
      self._container.mux(self._pictures.encode(frame))

  def add_sound(self, packet: Packet) -> None:
    """Copies a packet of the sound.

    Raises:
      OSError: it cannot be written.
    """
    if self._container is None:
      self._waiting.append(packet)
    elif self._track is not None:
      shift = round((self._reader.start or 0.0) / packet.time_base)
      dts = (packet.dts or 0) - shift
      if self._last_sound is not None and dts <= self._last_sound:
        return  # damaged: a container's packets are in order
      self._last_sound = dts
      packet.pts = None if packet.pts is None else packet.pts - shift
      packet.dts, packet.stream = dts, self._track
      with self._writing():
        self._container.mux_one(packet)

  def close(self) -> str | None:
    """Completes the film; returns its name in the folder, or None if there is no frame.

    Raises:
      OSError: it cannot be written.
    """
    if self._container is None:
      return None
    with self._writing():
      self._container.mux(self._pictures.encode(None))
      self._container.close()
    name = f"{STEM}{self._partial.suffix}"
    os.replace(self._partial, self._folder / name)
    for suffix in _SUFFIXES:
      if suffix != self._partial.suffix:  # of an earlier run
        (self._folder / f"{STEM}{suffix}").unlink(missing_ok=True)
    return name

  def discard(self) -> None:
    """Removes what has been written, after an error."""
    if self._container is not None:
      self._container = None
      self._partial.unlink(missing_ok=True)

  def _create(self, width: int, height: int) -> OutputContainer:
    self._size = (width, height)
    rate = Fraction(self._reader.rate).limit_denominator(1001)
    sound = self._reader.sound
    for suffix in _SUFFIXES:
      self._partial = self._folder / f".partial.{STEM}{suffix}"
      with self._writing():
        container = av.open(str(self._partial), "w")
        pictures = container.add_stream(_CODEC, rate=rate, options=_OPTIONS)
        pictures.width, pictures.height, pictures.pix_fmt = width, height, "yuv420p"
        pictures.codec_context.time_base = Fraction(1, _CLOCK)
      try:
        self._track = None if sound is None else container.add_stream_from_template(sound)
      except ValueError:  # the format has no place for this kind of sound
        self._partial.unlink(missing_ok=True)
        continue
      self._pictures = pictures
      return container
    kind = "" if sound is None else f" ({sound.codec_context.name})"
    raise OSError(
      f"{self._reader.name}: its sound{kind} cannot be copied; --no-annotated writes no film"
    )

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """Converts FFmpeg's errors to OSErrors that name the file."""
    try:
      yield
    except (OSError, FFmpegError, ValueError) as error:
      raise OSError(
        f"{self._folder / STEM}: the annotated film cannot be written ({reason(error)}); "
        "--no-annotated writes none"
      ) from error

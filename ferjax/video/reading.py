"""Reads a film, a camera or a stream: upright frames with their times, and packets of sound."""

import dataclasses
import math
import struct
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.error import FFmpegError, tag_to_code
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from jaxtyping import UInt8

from ferjax.video.source import VideoSource

TIMEOUT = 10.0  # seconds
_DEFAULT_RATE = 25.0  # frames per second, of a film that does not say it
_MAX_PIXEL_ASPECT = 4  # wider pixels are a damaged header
# FFmpeg's numbers of errors: of PyAV's time-out, and of files that it does not understand.
_TIMED_OUT, _INVALID = tag_to_code(b"EXIT"), tag_to_code(b"INDA")


@dataclasses.dataclass(frozen=True)
class Frame:
  """A frame as it is shown: rotated and mirrored as the film says, with square pixels.

  Attributes:
    index: 0, 1, ... among the decoded frames.
    time: seconds since the start of the film; increases.
    image: RGB.
  """

  index: int
  time: float
  image: UInt8[np.ndarray, "h w 3"]


class VideoReader:
  """The frames and the sound of a film. A context manager, to be read once, by one thread.

  Attributes:
    name: of the source.
    rate: frames per second, on average.
    duration: seconds; None if unknown, as of a camera.
    count: the number of frames, estimated; None if unknown.
    size: width and height of the stored frames in pixels, as the film's header says.
    sound: the stream whose packets are returned; None without one.
    start: seconds of the film's clock at time 0.
    frames: the number of frames decoded so far.
  """

  def __init__(self, source: VideoSource, *, stride: int = 1, timeout: float = TIMEOUT):
    """Opens the source.

    Args:
      source: from `video_source`.
      stride: every how many frames one is returned, the first included.
      timeout: seconds to wait for a stream, to open it and for each packet.

    Raises:
      OSError: it cannot be opened, is no film, or does not answer; the message names it.
      ValueError: there is no picture in it, or an argument is out of range.
    """
    if stride < 1:
      raise ValueError(f"the frame stride is {stride}; expected at least 1")
    if not 0 < timeout < math.inf:
      raise ValueError(f"the time-out is {timeout} s; expected a positive number of seconds")
    self.name, self._stride, self._timeout = source.name, stride, timeout
    try:
      self._container = av.open(
        source.address, format=source.format, timeout=(timeout, timeout), metadata_errors="replace"
      )
    except (OSError, FFmpegError, ValueError) as error:
      raise OSError(self._cannot_open(source, error)) from error
    try:
      self._find_streams()
    except ValueError:
      self._container.close()
      raise
    self.frames = 0
    self._time = -1.0
    self._undecodable = self._corrupt = 0
    self._stopped = ""

  def _cannot_open(self, source: VideoSource, error: Exception) -> str:
    if _no_answer(error):
      return f"{source.name}: no answer within {self._timeout:g} s; check the address, or --timeout"
    if getattr(error, "errno", None) == _INVALID:
      return _no_video(source.name, reason(error))
    return f"{source.name}: cannot be opened ({reason(error)})"

  def _find_streams(self) -> None:
    streams = self._container.streams
    if not len(streams):
      raise ValueError(_no_video(self.name, "there is nothing in it"))
    # The cover of an album is a video stream of one picture.
    films = [s for s in streams.video if not s.disposition & Disposition.attached_pic]
    if not films:
      kinds = sorted({stream.type for stream in streams if stream not in streams.video})
      found = ", ".join(kinds) or "a picture"
      raise ValueError(f"{self.name}: no video stream (only {found}); expected a film")
    self._film = films[0]
    if self._film.codec_context is None:
      raise ValueError(f"{self.name}: its video cannot be decoded by this build of PyAV")
    self._film.thread_type = "AUTO"
    self.size = (self._film.codec_context.width, self._film.codec_context.height)
    self.sound: AudioStream | None = next(iter(streams.audio), None)
    self.rate = float(self._film.average_rate or self._film.guessed_rate or _DEFAULT_RATE)
    length, start = self._container.duration, self._container.start_time
    self.duration = None if length is None or length <= 0 else length / av.time_base
    self.start: float | None = None if start is None else start / av.time_base
    estimate = 0.0 if self.duration is None else self.duration * self.rate
    self.count = self._film.frames or round(estimate) or None

  def items(self, *, until: float = math.inf) -> Iterator[Frame | Packet]:
    """Yields frames and packets of sound, in the order of the file.

    What cannot be decoded is left out, and after an error of reading, the frames before it are
    returned: see `damage`. It ends before the first frame after `until`, in seconds.
    """
    for packet in self._packets():
      if packet is not None and packet.stream is self.sound:
        if packet.dts is not None:
          yield packet
        continue
      for frame in self._decoded(packet):
        index, time = self.frames, self._time_of(frame)
        if time > until:
          return
        self.frames += 1
        self._corrupt += bool(frame.is_corrupt)
        if index % self._stride == 0:
          yield Frame(index, time, self._upright(frame))

  def damage(self) -> list[str]:
    """What was missing or damaged in what has been read; empty for a whole film."""
    found = []
    if self._undecodable:
      found.append(f"{self._undecodable:,} packets could not be decoded and are left out")
    if self._corrupt:
      found.append(f"{self._corrupt:,} frames are damaged in part")
    if self._stopped:
      found.append(f"reading stopped after {max(self._time, 0):.2f} s ({self._stopped})")
    return found

  def missing(self) -> str | None:
    """For a film read to its end: how much shorter it is than it says; None if it is not.

    Half a second, or a hundredth of the film, is no damage: the sound may be longer.
    """
    if self.duration is None or self.duration - self._time <= max(0.5, self.duration / 100):
      return None
    return f"ends after {max(self._time, 0):.2f} s, but says that it has {self.duration:.2f} s"

  def _packets(self) -> Iterator[Packet | None]:
    """The packets; at last, those that flush the decoder, or None after an error."""
    streams = [self._film] if self.sound is None else [self._film, self.sound]
    try:
      yield from self._container.demux(streams)
    except (OSError, FFmpegError, ValueError) as error:
      self._stopped = f"no data for {self._timeout:g} s" if _no_answer(error) else reason(error)
      yield None

  def _decoded(self, packet: Packet | None) -> list[VideoFrame]:
    try:
      return self._film.codec_context.decode(packet)
    except EOFError:
      return []
    except (OSError, FFmpegError, ValueError):
      self._undecodable += 1
      return []

  def _time_of(self, frame: VideoFrame) -> float:
    """Seconds since the start; a missing or repeated time becomes that of the next frame."""
    following = 0.0 if self._time < 0 else self._time + 1 / self.rate
    if frame.pts is None or frame.time_base is None:
      time = following
    else:
      clock = float(frame.pts * frame.time_base)
      if self.start is None:
        self.start = clock
      time = clock - self.start
    self._time = max(time, 0.0) if time > self._time else following
    return self._time

  def _upright(self, frame: VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
    aspect = float(self._film.sample_aspect_ratio or 1)
    if not 1 / _MAX_PIXEL_ASPECT <= aspect <= _MAX_PIXEL_ASPECT:
      aspect = 1.0
    image = frame.reformat(width=max(1, round(frame.width * aspect)), format="rgb24").to_ndarray()
    return oriented(image, _matrix(frame))

  def __enter__(self) -> "VideoReader":
    return self

  def __exit__(self, *_: object) -> None:
    self._container.close()


def _matrix(frame: VideoFrame) -> tuple[int, ...]:
  """The nine numbers of the display matrix; the identity if there is none."""
  data: Any = frame.side_data.get("DISPLAYMATRIX")
  return (1, 0, 0, 0, 1, 0, 0, 0, 1) if data is None else struct.unpack("9i", bytes(data))


def oriented(
  image: UInt8[np.ndarray, "h w 3"], matrix: tuple[int, ...]
) -> UInt8[np.ndarray, "_ _ 3"]:
  """The image as shown: rotated by quarter turns and mirrored, as the matrix is nearest to.

  Args:
    image: as stored.
    matrix: of the film's header: stored (x, y) are shown at (m0 x + m3 y, m1 x + m4 y).
  """
  across, down = matrix[0], matrix[4]
  if abs(matrix[1]) + abs(matrix[3]) > abs(across) + abs(down):
    image, across, down = image.swapaxes(0, 1), matrix[3], matrix[1]
  if across < 0:
    image = image[:, ::-1]
  if down < 0:
    image = image[::-1]
  return np.ascontiguousarray(image)


def _no_video(name: str, words: str) -> str:
  return (
    f"{name}: not a video, or damaged at its start or its index ({words}); expected a file such as "
    ".mp4, .mov, .mkv, .webm or .avi"
  )


def _no_answer(error: Exception) -> bool:
  return isinstance(error, TimeoutError) or getattr(error, "errno", None) == _TIMED_OUT


def reason(error: Exception) -> str:
  """The words of an error of FFmpeg, without the file's name."""
  return getattr(error, "strerror", None) or str(error)

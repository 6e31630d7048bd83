"""What a path of `ferjax predict` names: a film, a camera, a stream, or something else."""

import os
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import NamedTuple

_FILMS = (
  "264 265 3g2 3gp asf avi divx dv f4v flv h264 h265 hevc ivf m2t m2ts m2v m4v mjpeg mjpg mkv mov "
  "mp4 mpeg mpg mts mxf nut ogv qt rm rmvb ts vob webm wmv y4m"
)
_SOUND = "aac aiff flac m4a mp3 oga ogg opus wav wma"
# A file with sound alone is an error here: it says more than "not an image".
_SUFFIXES = frozenset(f".{suffix}" for suffix in (_FILMS + " " + _SOUND).split())
_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_CAMERA = re.compile(r"camera:(\d+)")
# The system's interface to cameras, as FFmpeg calls it, and the form of a camera's name.
_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}")}


class VideoSource(NamedTuple):
  """Where a film comes from.

  Attributes:
    name: as the user gave it.
    address: a path or an address for FFmpeg.
    format: of the camera's interface; None lets FFmpeg find the format.
    live: whether it is a camera or a stream, which has no end and no second reading.
  """

  name: str
  address: str
  format: str | None
  live: bool


def video_source(paths: Sequence[str | os.PathLike]) -> VideoSource | None:
  """The film, camera or stream that is the only one of `paths`; None if they name images.

  An address has `://`, a camera is `camera:0` or `/dev/video0`, and a film has a suffix of films.

  Raises:
    ValueError: there is a film and something else, or this system's cameras are not known.
    FileNotFoundError: the film or the camera does not exist.
  """
  sources = [_source(os.fspath(path)) for path in paths]
  films = [source for source in sources if source is not None]
  if not films:
    return None
  if len(sources) > 1:
    raise ValueError(
      f"{films[0].name} is a video, and {len(sources)} paths were given; expected one video, or "
      "images: give each video a command and an --output of its own"
    )
  (source,) = films
  if source.format is not None and source.address.startswith("/dev/"):
    _check_exists(source, "camera")
  elif not source.live:
    _check_exists(source, "file")
  return source


def _source(name: str) -> VideoSource | None:
  if _ADDRESS.match(name):
    return VideoSource(name, name, None, live=not name.startswith("file:"))
  if camera := _CAMERA.fullmatch(name):
    if sys.platform not in _CAMERAS:
      raise ValueError(f"{name}: cameras are read on Linux and macOS only; give a file or address")
    interface, form = _CAMERAS[sys.platform]
    return VideoSource(name, form.format(camera[1]), interface, live=True)
  if name.startswith("/dev/video"):
    return VideoSource(name, name, "v4l2", live=True)
  path = pathlib.Path(name)
  if path.suffix.lower() in _SUFFIXES and not path.is_dir():
    return VideoSource(name, name, None, live=False)
  return None


def _check_exists(source: VideoSource, kind: str) -> None:
  if not source.address.startswith("file:") and not os.path.exists(source.address):
    known = sorted(str(path) for path in pathlib.Path("/dev").glob("video*"))
    hint = f" (cameras: {', '.join(known) or 'none'})" if kind == "camera" else ""
    raise FileNotFoundError(f"{source.name}: no such {kind}{hint}")

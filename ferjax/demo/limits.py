"""What one visitor, and all visitors together, may use of the page."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class DemoLimits:
  """The limits of the page.

  Attributes:
    max_bytes: of an uploaded file.
    max_pixels: of an image, and of a frame of a film.
    film_seconds: longer films are analysed up to this time.
    frame_rate: frames of a film per second that are analysed, at most.
    camera_seconds: after which a camera must be started again.
    cameras: that are answered at the same time; the next ones wait.
    timeout: seconds of work on a film, after which the result is what has been analysed so far.
    queue_size: images and films that may wait; the next ones are refused.

  Raises:
    ValueError: a limit is out of range.
  """

  max_bytes: int = 64 * 2**20
  max_pixels: int = 2**25
  film_seconds: float = 20.0
  frame_rate: float = 8.0
  camera_seconds: float = 60.0
  cameras: int = 2
  timeout: float = 120.0
  queue_size: int = 16

  def __post_init__(self):
    from ferjax.data.image import MAX_PIXELS  # here, so that `ferjax --help` loads no Pillow

    for name in ("max_bytes", "max_pixels", "cameras", "queue_size"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
    if self.max_pixels > MAX_PIXELS:
      raise ValueError(f"max_pixels is {self.max_pixels}; expected at most {MAX_PIXELS}")
    for name in ("film_seconds", "camera_seconds", "timeout"):
      if not 0 < getattr(self, name) < math.inf:
        raise ValueError(f"{name} is {getattr(self, name)}; expected seconds above 0")
    if not 0 < self.frame_rate < math.inf:
      raise ValueError(f"frame_rate is {self.frame_rate}; expected frames per second, above 0")

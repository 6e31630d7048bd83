"""What one client, and all clients together, may use of a service."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Limits:
  """The limits of a service.

  Attributes:
    max_bytes: of the body of a request.
    max_pixels: of an image.
    queue_size: images that have arrived and have no answer yet. Twice as many more may arrive at
      the same time. The next requests are refused.
    batch_wait: seconds that a batch which is not full waits for more images.
    timeout: seconds from the arrival of an image to its answer.
    upload_timeout: seconds in which the head of a request must arrive, and then its body.

  Raises:
    ValueError: a limit is out of range.
  """

  max_bytes: int = 10 * 2**20
  max_pixels: int = 2**25
  queue_size: int = 64
  batch_wait: float = 0.005
  timeout: float = 30.0
  upload_timeout: float = 10.0

  def __post_init__(self):
    from ferjax.data.image import MAX_PIXELS  # here, so that `ferjax --help` loads no Pillow

    for name in ("max_bytes", "max_pixels", "queue_size"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
    if self.max_pixels > MAX_PIXELS:
      raise ValueError(f"max_pixels is {self.max_pixels}; expected at most {MAX_PIXELS}")
    for name in ("timeout", "upload_timeout"):
      if not 0 < getattr(self, name) < math.inf:
        raise ValueError(f"{name} is {getattr(self, name)}; expected seconds above 0")
    if not 0 <= self.batch_wait < math.inf:
      raise ValueError(f"batch_wait is {self.batch_wait}; expected seconds, at least 0")

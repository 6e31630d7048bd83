"""Decodes ordinary JPEG files with simplejpeg, which takes half the time of Pillow."""

import os

import numpy as np
import simplejpeg
from jaxtyping import UInt8

_MAX_BYTES = 2**28  # larger files are read in parts, by Pillow
# Markers of segments: start of image, EXIF or XMP, start of pixels.
_SOI, _APP1, _SOS = b"\xff\xd8", b"\xff\xe1", b"\xff\xda"


def decode_plain_jpeg(
  source: str | os.PathLike | bytes, max_pixels: int
) -> UInt8[np.ndarray, "h w 3"] | None:
  """The pixels of an undamaged JPEG that only needs decoding; None for all other files.

  simplejpeg uses the same libjpeg-turbo as Pillow, so the pixels are equal.

  Args:
    source: a path, or the encoded bytes.
    max_pixels: for larger images, None.

  Raises:
    OSError: the file cannot be read.
  """
  content = source if isinstance(source, bytes) else _read(source)
  if not content.startswith(_SOI) or _may_be_rotated(content):
    return None
  try:
    height, width, colorspace, _ = simplejpeg.decode_jpeg_header(content)
    if colorspace not in ("YCbCr", "Gray") or int(width) * int(height) > max_pixels:
      return None
    return simplejpeg.decode_jpeg(content)
  except ValueError:  # also raised for files that libjpeg would repair: Pillow decodes them
    return None


def _read(path: str | os.PathLike) -> bytes:
  """The content of a JPEG of at most `_MAX_BYTES`; only the first bytes of other files."""
  with open(path, "rb") as file:
    start = file.read(len(_SOI))
    if start != _SOI or os.fstat(file.fileno()).st_size > _MAX_BYTES:
      return b""
    return start + file.read()


def _may_be_rotated(jpeg: bytes) -> bool:
  """Whether a segment may contain an orientation, or segments cannot be parsed."""
  position = len(_SOI)
  while True:
    marker = jpeg[position : position + 2]
    if marker == _SOS:
      return False
    if marker == _APP1 or len(marker) < 2 or marker[0] != _SOI[0]:
      return True
    position += 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")

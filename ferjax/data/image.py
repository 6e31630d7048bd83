"""Image decoding, letterboxing and normalisation."""

import contextlib
import functools
import importlib
import io
import logging
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from ferjax.data.metadata import without_metadata
from ferjax.data.pixel_modes import PixelError, to_rgb, transparent_level
from ferjax.data.plain_jpeg import decode_plain_jpeg
from ferjax.output import one_line

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in 0..1
IMAGENET_STD = (0.229, 0.224, 0.225)
GREY = 128  # fill value of letterbox and augmentation
MAX_PIXELS = 2**27  # more than cameras produce; 400 MB decoded

# Formats that Pillow identifies but does not decode: data without pixels, video, and vector
# graphics, for which it starts another program.
NOT_IMAGES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"})

# Exceptions that Pillow's plugins raise for damaged files.
_DAMAGED = (
  OSError,
  EOFError,
  SyntaxError,
  ValueError,
  TypeError,
  LookupError,
  ArithmeticError,
  AttributeError,
  AssertionError,
  RuntimeError,
  MemoryError,
  struct.error,
  zlib.error,
  Image.DecompressionBombError,
)

_LARGEST_FILE = 2**31  # bytes; `MAX_PIXELS` of three floats have 1.6 GB
_MAX_BYTES = 2**28  # of a file that is decoded again without its metadata

# EXIF tag 0x0112 -> the operation that makes the image upright.
_ORIENTATION = 0x0112
_UPRIGHT = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}

# Pillow warns about harmless header damage. Warning filters are global to the process, so two
# threads that change them concurrently could leave the wrong ones in place.
_filters_lock = threading.Lock()


class ImageError(ValueError):
  """An image cannot be read; the message starts with its origin, and has one line."""

  def __init__(self, message: object):
    super().__init__(one_line(str(message)))


# Errors that damaged metadata cannot cause.
_PIXEL_ERRORS = (
  FileNotFoundError,
  ImageError,
  PixelError,
  MemoryError,
  Image.DecompressionBombError,
)


@functools.cache
def register_plugins() -> None:
  """Lets Pillow open HEIC and HEIF files, if pillow-heif is installed; turns off its messages."""
  logging.getLogger("PIL").addHandler(logging.NullHandler())
  with contextlib.suppress(ImportError):
    importlib.import_module("pillow_heif").register_heif_opener()


def decode(
  source: str | os.PathLike | bytes,
  *,
  origin: str = "",
  max_pixels: int = MAX_PIXELS,
  formats: Sequence[str] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
  """Decodes an image of any mode to upright 8-bit RGB.

  EXIF orientation is applied, transparent pixels are composited on white, deep pixels are scaled
  to 8 bits (`ferjax.data.pixel_modes`), and only the first frame of an animation is decoded.
  Damaged metadata are ignored: an orientation that cannot be parsed means upright.

  Args:
    source: a path, or the encoded bytes.
    origin: name of the image in errors; the path if empty.
    max_pixels: larger images are refused after reading the header, before memory is allocated.
      Pillow's own limit (twice `PIL.Image.MAX_IMAGE_PIXELS`) applies as well.
    formats: Pillow's names of those that are decoded; others are refused. None for all.

  Raises:
    ImageError: the image is missing, damaged, not an image, or too large.
  """
  try:
    return _decoded(source, max_pixels, formats)
  except _DAMAGED as error:
    origin = origin or _name(source)
    raise ImageError(f"{origin}: {_reason(error, source, formats)}") from error


def _decoded(
  source: str | os.PathLike | bytes, max_pixels: int, formats: Sequence[str] | None
) -> UInt8[np.ndarray, "h w 3"]:
  if not isinstance(source, bytes) and (size := os.path.getsize(source)) > _LARGEST_FILE:
    raise ImageError(f"its {size} bytes are more than the limit of {_LARGEST_FILE}")
  try:
    pixels = decode_plain_jpeg(source, min(max_pixels, _pillow_limit()))
    return _decode_with_pillow(source, max_pixels, formats) if pixels is None else pixels
  except _PIXEL_ERRORS:
    raise
  except _DAMAGED as error:
    # Damaged metadata must not prevent decoding.
    try:
      plain = without_metadata(_content(source))
      return _decode_with_pillow(plain, max_pixels, formats)
    except _PIXEL_ERRORS:
      raise
    except _DAMAGED:
      raise error from None


def _decode_with_pillow(
  source: str | os.PathLike | bytes, max_pixels: int, formats: Sequence[str] | None
) -> UInt8[np.ndarray, "h w 3"]:
  with _open(source, formats) as image:
    if image.format in NOT_IMAGES:
      raise ImageError(f"a {image.format} file, which is not decoded; save it as PNG or JPEG")
    _check_size(image, max_pixels)
    transparent = transparent_level(image)
    # For TIFF files, Pillow reads further metadata with the pixels.
    with _silenced() if image.format == "TIFF" else contextlib.nullcontext():
      image.load()
    _check_size(image, max_pixels)  # an icon has other images inside
    if transparent is not None:
      image.info["transparency"] = transparent
    operation = _UPRIGHT.get(_orientation(image))
    rgb = to_rgb(image)
    return np.array(rgb if operation is None else rgb.transpose(operation))


def _check_size(image: Image.Image, max_pixels: int) -> None:
  width, height = image.size
  if width * height > max_pixels:
    raise ImageError(
      f"{width}x{height} pixels are more than the limit of {max_pixels}; scale the image down"
    )


def _content(source: str | os.PathLike | bytes) -> bytes:
  """The first `_MAX_BYTES` bytes, which hold the whole image."""
  with _stream(source) as stream:
    return stream.read(_MAX_BYTES)


def _stream(source: str | os.PathLike | bytes) -> io.BytesIO | io.BufferedReader:
  return io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")


def _reason(
  error: Exception, source: str | os.PathLike | bytes, formats: Sequence[str] | None
) -> str:
  if isinstance(error, ImageError | PixelError):
    return str(error)
  if isinstance(error, FileNotFoundError):
    return f"file not found: {_name(source)}"
  if isinstance(error, MemoryError):
    return "its pixels need more memory than is available; scale the image down"
  if isinstance(error, Image.DecompressionBombError):
    return f"too many pixels: {error}; scale the image down"
  if isinstance(error, Image.UnidentifiedImageError):
    return _describe_unidentified(source, formats)
  return f"cannot be read, damaged or truncated: {str(error) or type(error).__name__}"


def _describe_unidentified(source: str | os.PathLike | bytes, formats: Sequence[str] | None) -> str:
  """Names the format that the first bytes indicate, and why Pillow cannot open the file."""
  with _stream(source) as stream:
    start = stream.read(16)
    for name, (factory, accepts) in Image.OPEN.items():
      if formats is not None and name not in formats:
        continue
      if accepts is None or not _is_accepted(start, accepts):
        continue
      try:
        stream.seek(0)
        with _silenced():
          factory(stream, "")
      except _DAMAGED as error:
        return f"a {name} file that cannot be opened, damaged or of an unknown kind: {error}"
  known = "a known format" if formats is None else f"one of the formats {', '.join(formats)}"
  return f"not an image in {known} (or an empty file)"


def _is_accepted(start: bytes, accepts: Callable[[bytes], bool | str]) -> bool:
  with contextlib.suppress(*_DAMAGED):
    return accepts(start) is True  # a string names a feature that this Pillow lacks
  return False


def _name(source: str | os.PathLike | bytes) -> str:
  return f"{len(source)} bytes" if isinstance(source, bytes) else os.fspath(source)


def _pillow_limit() -> int:
  return MAX_PIXELS if Image.MAX_IMAGE_PIXELS is None else Image.MAX_IMAGE_PIXELS


def _open(source: str | os.PathLike | bytes, formats: Sequence[str] | None) -> Image.Image:
  register_plugins()
  if formats is not None:
    Image.init()
    formats = [name for name in formats if name in Image.OPEN]  # HEIF is a plugin
  with _silenced():
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    return Image.open(file, formats=formats)


def _orientation(image: Image.Image) -> int:
  """The orientation in EXIF or XMP; 1 (upright) if it cannot be parsed."""
  with _silenced(), contextlib.suppress(*_DAMAGED):
    return image.getexif().get(_ORIENTATION, 1)
  return 1


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
  with _filters_lock, warnings.catch_warnings():
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    yield


def letterbox(
  image: UInt8[np.ndarray, "h w 3"], size: int, fill: int = GREY
) -> tuple[UInt8[np.ndarray, "{size} {size} 3"], Float[np.ndarray, "6"]]:
  """Scales an image (bicubic) to fit a square, keeping its aspect ratio, and centres it on grey.

  Spec: fer_yolo_mamba, Network.

  Args:
    image: RGB.
    size: side of the square, pixels.
    fill: grey value of the border.

  Returns:
    The square, and the placement (scale_x, scale_y, left, top, width, height): an input pixel is
    `original * scale + (left, top)`; the scales are exact per axis (after rounding the new size);
    width and height are the original image's.
  """
  height, width = image.shape[:2]
  scale = min(size / width, size / height)
  new_width = min(size, max(1, round(width * scale)))
  new_height = min(size, max(1, round(height * scale)))
  left, top = (size - new_width) // 2, (size - new_height) // 2
  if (new_width, new_height) != (width, height):
    resized = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BICUBIC)
    image = np.asarray(resized)
  square = np.full((size, size, 3), fill, np.uint8)
  square[top : top + new_height, left : left + new_width] = image
  placement = (new_width / width, new_height / height, left, top, width, height)
  return square, np.array(placement, np.float32)


def luma(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 1"]:
  """The grey levels of an RGB image (ITU-R 601)."""
  return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)[..., None]


def place_boxes(
  boxes: Float[np.ndarray, "m 4"], placement: Float[np.ndarray, "6"]
) -> Float[np.ndarray, "m 4"]:
  """Maps boxes (xyxy) from original pixels to pixels of the letterboxed input."""
  scale, offset = np.tile(placement[0:2], 2), np.tile(placement[2:4], 2)
  return (boxes * scale + offset).astype(np.float32)


def normalize(
  image: UInt8[np.ndarray, "*b h w c"],
  mean: Sequence[float] = IMAGENET_MEAN,
  std: Sequence[float] = IMAGENET_STD,
) -> Float[np.ndarray, "*b h w 3"]:
  """`(image / 255 - mean) / std`, float32: the input of a network.

  Training, evaluation and prediction pass bytes to the device, where `ferjax.ops.normalize`
  computes the same numbers.

  Args:
    image: RGB, or one grey channel, which is repeated three times.
    mean: of RGB in 0..1.
    std: standard deviation of RGB in 0..1.
  """
  shift = (255 * np.array(mean)).astype(np.float32)
  scale = (1 / (255 * np.array(std))).astype(np.float32)
  # The values of the 256 levels are computed once, as a lookup table.
  table = (np.arange(256, dtype=np.float32)[:, None] - shift) * scale
  output = np.empty((*image.shape[:-1], 3), np.float32)
  height, width, channels = image.shape[-3:]
  images = image.reshape(-1, height, width, channels)
  for source, target in zip(images, output.reshape(-1, height, width, 3), strict=True):
    rgb = cv2.cvtColor(source, cv2.COLOR_GRAY2RGB) if channels == 1 else source
    cv2.LUT(rgb, table[None], dst=target)
  return output


def mirrored(image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w c"]:
  """A horizontally flipped copy."""
  return cv2.flip(image, 1).reshape(image.shape)

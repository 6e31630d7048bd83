"""Converts images of every mode that Pillow opens to 8-bit RGB.

Pillow's own conversion clips deep pixels to 0..255 and drops some kinds of transparency.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageCms

_CONVERTED_BY_PILLOW = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")
_TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")

_MAX_16_BIT, _MAX_12_BIT = 2**16 - 1, 2**12 - 1
# Assumed value of white in 32-bit pixels: the smallest of these that no pixel exceeds.
_WHITES = {"I": (255, _MAX_16_BIT), "F": (1, 255, _MAX_16_BIT)}

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # TIFF tags
_WHITE_IS_ZERO = 0

# Pillow's raw mode -> scaling of PNG's transparent colour to the levels of the decoded pixels.
_PNG_LEVELS = {"L;2": lambda x: x * 85, "L;4": lambda x: x * 17, "RGB;16B": lambda x: x >> 8}


class PixelError(ValueError):
  """No rule converts the pixels to 8-bit RGB; the message names their kind."""


def transparent_level(image: Image.Image) -> int | tuple[int, ...] | None:
  """The transparent colour of a PNG in levels of its decoded pixels; None if these are the same.

  Pillow does not scale this colour with the pixels. Call this before the pixels are loaded.
  """
  level = image.info.get("transparency")
  tiles: Any = getattr(image, "tile", None)
  rawmode = tiles[0][3] if image.format == "PNG" and tiles else None
  scale = _PNG_LEVELS.get(rawmode) if isinstance(rawmode, str) else None
  if scale is None or not isinstance(level, int | tuple):
    return None
  return tuple(map(scale, level)) if isinstance(level, tuple) else scale(level)


def to_rgb(image: Image.Image) -> Image.Image:
  """Converts a loaded image to RGB; transparent pixels are composited on white.

  16-bit grey is divided by 257; 12-bit grey (TIFF) is scaled from 0..4095. 32-bit integers are
  scaled from 0..255 or 0..65535, floats also from 0..1: the smallest range that contains them.

  Raises:
    PixelError: the mode has no rule, or 32-bit pixels are outside these ranges.
  """
  mode = image.mode
  if mode in _DEEP:
    return _from_deep(image)
  if mode == "LAB":
    return _from_lab(image)
  if mode in _TRANSPARENT or (mode in _CONVERTED_BY_PILLOW and image.has_transparency_data):
    return _on_white(image)
  if mode in _CONVERTED_BY_PILLOW:
    return image.convert("RGB")
  raise PixelError(
    f"pixels of Pillow's mode {mode!r} cannot be converted to RGB; save the image as 8-bit RGB or "
    "grey"
  )


def _on_white(image: Image.Image) -> Image.Image:
  # La is premultiplied grey, which Pillow converts only to LA.
  image = image.convert("LA") if image.mode == "La" else image
  image = image.convert("RGBA")
  return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _from_lab(image: Image.Image) -> Image.Image:
  lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
  rgb = ImageCms.applyTransform(image, ImageCms.buildTransform(lab, srgb, "LAB", "RGB"))
  if rgb is None:
    raise PixelError("CIELAB pixels cannot be converted to RGB; save the image as RGB")
  return rgb


def _from_deep(image: Image.Image) -> Image.Image:
  values = np.asarray(image).astype(np.float32)
  tags: Any = getattr(image, "tag_v2", {})
  levels = _levels(values, _white(image, values, tags))
  if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
    levels = 255 - levels
  transparent = image.info.get("transparency")
  if isinstance(transparent, int):
    levels[values == transparent] = 255
  return Image.fromarray(levels).convert("RGB")


def _levels(values: Float[np.ndarray, "h w"], white: int) -> UInt8[np.ndarray, "h w"]:
  return np.rint(values * np.float32(255 / white)).astype(np.uint8)


def _white(image: Image.Image, values: Float[np.ndarray, "h w"], tags: Any) -> int:
  """The pixel value of white."""
  if image.mode.startswith("I;16"):
    return _MAX_12_BIT if tags.get(_BITS_PER_SAMPLE) == (12,) else _MAX_16_BIT
  if image.mode == "I" and image.format == "PPM":  # Pillow scales these by the file's maximum
    return _MAX_16_BIT
  low, high = values.min(), values.max()
  # NaN fails both comparisons.
  whites = [white for white in _WHITES[image.mode] if low >= 0 and high <= white]
  if not whites:
    kind = "float" if image.mode == "F" else "32-bit integer"
    known = ", ".join(f"0..{white}" for white in _WHITES[image.mode])
    raise PixelError(
      f"{kind} pixels of {low:g} to {high:g} have no known scale; expected one of {known}: "
      "rescale them, or save the image with 8 bits"
    )
  return whites[0]

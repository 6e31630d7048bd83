"""Training augmentation of a classifier (spec: emonext and fermam, Loss and recipe).

First, an antialiased step resizes and zooms the image. Then a bilinear step rotates it about its
centre and crops it. Pixels of the crop beyond the image are black, as in torchvision: corners after
a rotation, and a border if the zoomed image is smaller than the view. Brightness, contrast and
noise come last, at the resolution of the network's input. A grey image has one channel throughout.
"""

import functools
import math
import statistics
from typing import TypedDict

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from ferjax.config import FaceAugmentConfig
from ferjax.data.classification.views import middle_part, scaled_size, short_side
from ferjax.data.image import mirrored

ERASING_ASPECT = (0.3, 1 / 0.3)  # height / width of the erased rectangle, log-uniform


class FaceExample(TypedDict):
  """`label` is a distribution over the classes."""

  image: UInt8[np.ndarray, "h w 3"]
  label: Float[np.ndarray, "k"]


def check_ranges(config: FaceAugmentConfig) -> None:
  """Raises a ValueError for a probability or range that cannot be sampled from."""
  for name in ("flip", "vertical_flip", "erasing", "noise", "flip_or_noise"):
    _check(config, name, 0 <= getattr(config, name) <= 1, "a probability, 0..1")
  for name in ("brightness", "contrast"):
    _check(config, name, 0 <= getattr(config, name) <= 1, "in 0..1: gains are 1 - x to 1 + x")
  _check(config, "rotation", 0 <= config.rotation <= 180, "in 0..180 degrees")
  _check(config, "noise_variance", 0 <= config.noise_variance < math.inf, "not negative")
  low, high = config.scale
  _check(config, "scale", 0 < low <= high < math.inf, "(low, high) with 0 < low <= high")
  low, high = config.erasing_area
  _check(config, "erasing_area", 0 < low <= high <= 1, "(low, high) with 0 < low <= high <= 1")


def _check(config: FaceAugmentConfig, name: str, good: bool, expected: str) -> None:
  if not good:
    raise ValueError(f"face_augment.{name} ({getattr(config, name)}) must be {expected}")


def training_view(
  image: UInt8[np.ndarray, "h w 3"],
  rng: np.random.Generator,
  size: int,
  *,
  resize: int,
  grey: bool,
  config: FaceAugmentConfig,
) -> UInt8[np.ndarray, "{size} {size} c"]:
  """One augmented view; c is 1 if `grey`, else 3.

  Args:
    image: RGB; not changed.
    rng: the only source of randomness.
    size: side of the view, pixels.
    resize: the short side before zoom and crop, pixels, at least `size`; 0: `size`.
    grey: replaces colour by luma, in one channel (ITU-R 601).
    config: probabilities and ranges.
  """
  short = max(1, round(short_side(size, resize) * rng.uniform(*config.scale)))
  resized = _scaled(image, short, grey=grey)
  angle = rng.uniform(-config.rotation, config.rotation)
  left, top = (_offset(rng, side - size) for side in resized.shape[1::-1])
  pixels = _rotated_crop(resized, angle, left, top, size).reshape(size, size, -1)
  flipped, noisy = _choices(rng, config)
  if flipped:
    pixels = mirrored(pixels)
  if rng.random() < config.vertical_flip:
    pixels = pixels[::-1]
  pixels = _light(pixels, rng, config)
  if noisy:
    noise = _noise_levels(config.noise_variance)
    noise = noise.take(rng.integers(len(noise), size=pixels.shape, dtype=np.uint16))
    pixels = np.clip(pixels + noise, 0, 255).astype(np.uint8)
  if rng.random() < config.erasing:
    pixels = _erased(pixels, rng, config.erasing_area)
  return np.ascontiguousarray(pixels)


def _choices(rng: np.random.Generator, config: FaceAugmentConfig) -> tuple[bool, bool]:
  """Whether to flip, and whether to add noise."""
  if rng.random() < config.flip_or_noise:
    flipped = bool(rng.random() < 0.5)
    return flipped, not flipped
  return bool(rng.random() < config.flip), bool(rng.random() < config.noise)


@functools.cache
def _noise_levels(variance: float) -> Int[np.ndarray, "65536"]:
  """Quantiles of Gaussian noise in integer grey levels: sampling from them is fast."""
  normal, sigma = statistics.NormalDist(), math.sqrt(variance)
  quantiles = [sigma * normal.inv_cdf((i + 0.5) / 2**16) for i in range(2**16)]
  return np.clip(np.rint(quantiles), -255, 255).astype(np.int16)


def _offset(rng: np.random.Generator, slack: int) -> int:
  """A uniform crop position: the crop within the image, or the image within the crop."""
  return int(rng.integers(min(0, slack), max(0, slack), endpoint=True))


def _scaled(
  image: UInt8[np.ndarray, "h w 3"], short: int, *, grey: bool
) -> UInt8[np.ndarray, "_ _ *c"]:
  """A faster version of `ferjax.data.classification.views.scaled`, equal up to rounding."""
  x1, y1, x2, y2 = middle_part(image.shape[1], image.shape[0])
  image = image[y1:y2, x1:x2]
  if grey:
    image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
  size = scaled_size(image.shape[1], image.shape[0], short)
  if short >= min(image.shape[:2]):
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
  # OpenCV's bilinear filter has a fixed width, so it aliases when it shrinks images.
  pil_image = Image.fromarray(np.ascontiguousarray(image))
  return np.asarray(pil_image.resize(size, Image.Resampling.BILINEAR))


def _rotated_crop(
  image: UInt8[np.ndarray, "h w *c"], angle: float, left: int, top: int, size: int
) -> UInt8[np.ndarray, "{size} {size} *c"]:
  """Rotates by `angle` (degrees, counter-clockwise) about the centre and crops a square."""
  if angle == 0:
    return _crop(image, left, top, size)
  cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
  # The image centre; pixel centres have integer coordinates.
  x, y = (image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2
  # Maps a position (u, v) of the view to the position in the image before the rotation.
  dx, dy = left - x, top - y
  matrix = np.array(
    [
      [cosine, -sine, cosine * dx - sine * dy + x],
      [sine, cosine, sine * dx + cosine * dy + y],
    ]
  )
  return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def _crop(
  image: UInt8[np.ndarray, "h w *c"], left: int, top: int, size: int
) -> UInt8[np.ndarray, "{size} {size} *c"]:
  """A square at (left, top), black beyond the image."""
  x1, y1 = max(left, 0), max(top, 0)
  x2, y2 = min(left + size, image.shape[1]), min(top + size, image.shape[0])
  view = np.zeros((size, size, *image.shape[2:]), np.uint8)
  view[y1 - top : y2 - top, x1 - left : x2 - left] = image[y1:y2, x1:x2]
  return view


def _light(
  pixels: UInt8[np.ndarray, "s s c"], rng: np.random.Generator, config: FaceAugmentConfig
) -> UInt8[np.ndarray, "s s c"]:
  """Multiplies by a brightness gain, then scales around the mean by a contrast gain."""
  if config.brightness == 0 and config.contrast == 0:
    return pixels
  brightness = 1 + config.brightness * rng.uniform(-1, 1)
  contrast = 1 + config.contrast * rng.uniform(-1, 1)
  levels = np.minimum(np.arange(256) * brightness, 255)
  middle = levels[pixels].mean()
  table = np.clip(np.rint((levels - middle) * contrast + middle), 0, 255).astype(np.uint8)
  return table[pixels]


def _erased(
  pixels: UInt8[np.ndarray, "s s c"], rng: np.random.Generator, area: tuple[float, float]
) -> UInt8[np.ndarray, "s s c"]:
  """Replaces a random rectangle of the view with uniform noise."""
  size = pixels.shape[0]
  part = rng.uniform(*area)
  # A rectangle of this fraction of the square fits if its aspect is within part..1 / part.
  low, high = max(ERASING_ASPECT[0], part), min(ERASING_ASPECT[1], 1 / part)
  aspect = math.exp(rng.uniform(math.log(low), math.log(high)))
  height = min(size, max(1, round(size * math.sqrt(part * aspect))))
  width = min(size, max(1, round(size * math.sqrt(part / aspect))))
  top, left = (int(rng.integers(size - side, endpoint=True)) for side in (height, width))
  output = pixels.copy()
  noise = rng.integers(256, size=(height, width, pixels.shape[2]), dtype=np.uint8)
  output[top : top + height, left : left + width] = noise
  return output

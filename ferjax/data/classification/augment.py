"""Training augmentation of a classifier (spec: emonext and fermam, Loss and recipe).

First, an antialiased step resizes and zooms the image. Then a bilinear step rotates it about its
centre and crops it. Pixels of the crop beyond the image are black, as in torchvision, or repeat its
border: corners after a rotation, and the rest of a view that reaches beyond the zoomed image.
Brightness, contrast and noise come last, at the resolution of the network's input. A grey image has
one channel throughout.
"""

import dataclasses
import functools
import math
import statistics
from typing import TypedDict

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8, UInt16
from PIL import Image

from ferjax.config import FaceAugmentConfig
from ferjax.data.classification.views import middle_part, scaled_size, short_side
from ferjax.data.image import mirrored

BORDERS = ("black", "repeat")
ERASING_ASPECT = (0.3, 1 / 0.3)  # height / width of the erased rectangle, log-uniform
_NOISE_LEVELS = 2**16


class FaceExample(TypedDict):
  """`label` is a distribution over the classes."""

  image: UInt8[np.ndarray, "h w 3"]
  label: Float[np.ndarray, "k"]


@dataclasses.dataclass(frozen=True)
class View:
  """What is random in a training view, except the noise in the erased rectangle.

  Attributes:
    width, height: of the resized image, pixels.
    angle: of the rotation about its centre, degrees, counter-clockwise.
    left, top: of the crop in the rotated image, pixels.
    flipped, vertically_flipped: whether the crop is flipped.
    brightness, contrast: gains.
    noise: an index into the quantiles of Gaussian noise for each value of the view; None for none.
    erased: left, top, width and height of the erased rectangle, pixels of the view; None for none.
  """

  width: int
  height: int
  angle: float = 0.0
  left: int = 0
  top: int = 0
  flipped: bool = False
  vertically_flipped: bool = False
  brightness: float = 1.0
  contrast: float = 1.0
  noise: UInt16[np.ndarray, "s s c"] | None = None
  erased: tuple[int, int, int, int] | None = None


def check_ranges(config: FaceAugmentConfig) -> None:
  """Raises a ValueError for a probability or range that cannot be sampled from."""
  probabilities = ("flip", "vertical_flip", "erasing", "noise", "flip_or_noise", "mix_probability")
  for name in probabilities:
    _check(config, name, 0 <= getattr(config, name) <= 1, "a probability, 0..1")
  for name in ("brightness", "contrast"):
    _check(config, name, 0 <= getattr(config, name) <= 1, "in 0..1: gains are 1 - x to 1 + x")
  for name in ("mixup", "cutmix"):
    good = 0 <= getattr(config, name) < math.inf
    _check(config, name, good, "alpha of a Beta distribution, above 0, or 0 for none")
  _check(config, "rotation", 0 <= config.rotation <= 180, "in 0..180 degrees")
  _check(config, "shift", 0 <= config.shift <= 1, "in 0..1, relative to the side of the view")
  _check(config, "border", config.border in BORDERS, f"one of {', '.join(BORDERS)}")
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
  x1, y1, x2, y2 = middle_part(image.shape[1], image.shape[0])
  image = image[y1:y2, x1:x2]
  channels = 1 if grey else 3
  view = draw_view(rng, x2 - x1, y2 - y1, size, resize=resize, channels=channels, config=config)
  resized = _scaled(image, (view.width, view.height), grey=grey)
  pixels = _rotated_crop(
    resized, view.angle, view.left, view.top, size, repeats=config.border == "repeat"
  ).reshape(size, size, -1)
  if view.flipped:
    pixels = mirrored(pixels)
  if view.vertically_flipped:
    pixels = pixels[::-1]
  pixels = _light(pixels, view.brightness, view.contrast)
  if view.noise is not None:
    noise = _noise_levels(config.noise_variance).take(view.noise)
    pixels = np.clip(pixels + noise, 0, 255).astype(np.uint8)
  if view.erased is not None:
    pixels = _erased(pixels, view.erased, rng)
  return np.ascontiguousarray(pixels)


def draw_view(
  rng: np.random.Generator,
  width: int,
  height: int,
  size: int,
  *,
  resize: int,
  channels: int,
  config: FaceAugmentConfig,
) -> View:
  """Draws a view of an image of `width` x `height` pixels.

  The order in which the numbers are drawn is part of the training examples. Arguments as for
  `training_view`.
  """
  short = max(1, round(short_side(size, resize) * rng.uniform(*config.scale)))
  new_width, new_height = scaled_size(width, height, short)
  angle = rng.uniform(-config.rotation, config.rotation)
  reach = round(config.shift * size)
  left, top = (_offset(rng, side - size, reach) for side in (new_width, new_height))
  flipped, noisy = _choices(rng, config)
  vertically_flipped = bool(rng.random() < config.vertical_flip)
  brightness, contrast = _gains(rng, config)
  noise = (
    rng.integers(_NOISE_LEVELS, size=(size, size, channels), dtype=np.uint16) if noisy else None
  )
  erased = _rectangle(rng, size, config.erasing_area) if rng.random() < config.erasing else None
  return View(
    width=new_width,
    height=new_height,
    angle=angle,
    left=left,
    top=top,
    flipped=flipped,
    vertically_flipped=vertically_flipped,
    brightness=brightness,
    contrast=contrast,
    noise=noise,
    erased=erased,
  )


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
  quantiles = [sigma * normal.inv_cdf((i + 0.5) / _NOISE_LEVELS) for i in range(_NOISE_LEVELS)]
  return np.clip(np.rint(quantiles), -255, 255).astype(np.int16)


def _offset(rng: np.random.Generator, slack: int, reach: int) -> int:
  """A uniform crop position: the crop within the image, or the image within it, up to `reach`."""
  return int(rng.integers(min(0, slack) - reach, max(0, slack) + reach, endpoint=True))


def as_grey(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
  """The luma of an RGB image (ITU-R 601)."""
  return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)


def _scaled(
  image: UInt8[np.ndarray, "h w 3"], size: tuple[int, int], *, grey: bool
) -> UInt8[np.ndarray, "_ _ *c"]:
  """Resizes to (width, height), as `ferjax.data.classification.views.scaled` but faster.

  The results are equal up to rounding.
  """
  if grey:
    image = as_grey(image)
  if min(size) >= min(image.shape[:2]):
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
  # OpenCV's bilinear filter has a fixed width, so it aliases when it shrinks images.
  pil_image = Image.fromarray(np.ascontiguousarray(image))
  return np.asarray(pil_image.resize(size, Image.Resampling.BILINEAR))


def _rotated_crop(
  image: UInt8[np.ndarray, "h w *c"],
  angle: float,
  left: int,
  top: int,
  size: int,
  *,
  repeats: bool = False,
) -> UInt8[np.ndarray, "{size} {size} *c"]:
  """Rotates by `angle` (degrees, counter-clockwise) about the centre and crops a square.

  Beyond the image, it is black, or `repeats` the border.
  """
  if angle == 0:
    return _crop(image, left, top, size, repeats=repeats)
  return cv2.warpAffine(
    image,
    rotation_matrix(image.shape[1], image.shape[0], angle, left, top),
    (size, size),
    flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    borderMode=cv2.BORDER_REPLICATE if repeats else cv2.BORDER_CONSTANT,
  )


def rotation_matrix(
  width: int, height: int, angle: float, left: int, top: int
) -> Float[np.ndarray, "2 3"]:
  """Maps a position (u, v, 1) of a view to the position in the image before the rotation.

  Pixel centres have integer coordinates. Arguments as for `View`.
  """
  cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
  x, y = (width - 1) / 2, (height - 1) / 2  # the image centre
  dx, dy = left - x, top - y
  return np.array(
    [
      [cosine, -sine, cosine * dx - sine * dy + x],
      [sine, cosine, sine * dx + cosine * dy + y],
    ]
  )


def _crop(
  image: UInt8[np.ndarray, "h w *c"], left: int, top: int, size: int, *, repeats: bool
) -> UInt8[np.ndarray, "{size} {size} *c"]:
  """A square at (left, top)."""
  if repeats:
    rows, columns = (
      np.clip(np.arange(start, start + size), 0, side - 1)
      for start, side in zip((top, left), image.shape, strict=False)
    )
    return image[rows[:, None], columns]
  x1, y1 = max(left, 0), max(top, 0)
  x2, y2 = min(left + size, image.shape[1]), min(top + size, image.shape[0])
  view = np.zeros((size, size, *image.shape[2:]), np.uint8)
  view[y1 - top : y2 - top, x1 - left : x2 - left] = image[y1:y2, x1:x2]
  return view


def _gains(rng: np.random.Generator, config: FaceAugmentConfig) -> tuple[float, float]:
  """The gains of brightness and contrast."""
  if config.brightness == 0 and config.contrast == 0:
    return 1.0, 1.0
  brightness = 1 + config.brightness * rng.uniform(-1, 1)
  return brightness, 1 + config.contrast * rng.uniform(-1, 1)


def _light(
  pixels: UInt8[np.ndarray, "s s c"], brightness: float, contrast: float
) -> UInt8[np.ndarray, "s s c"]:
  """Multiplies by a brightness gain, then scales around the mean by a contrast gain."""
  if brightness == contrast == 1:
    return pixels
  levels = np.minimum(np.arange(256) * brightness, 255)
  middle = levels[pixels].mean()
  table = np.clip(np.rint((levels - middle) * contrast + middle), 0, 255).astype(np.uint8)
  return table[pixels]


def _rectangle(
  rng: np.random.Generator, size: int, area: tuple[float, float]
) -> tuple[int, int, int, int]:
  """Left, top, width and height of a rectangle within a square."""
  part = rng.uniform(*area)
  # A rectangle of this fraction of the square fits if its aspect is within part..1 / part.
  low, high = max(ERASING_ASPECT[0], part), min(ERASING_ASPECT[1], 1 / part)
  aspect = math.exp(rng.uniform(math.log(low), math.log(high)))
  height = min(size, max(1, round(size * math.sqrt(part * aspect))))
  width = min(size, max(1, round(size * math.sqrt(part / aspect))))
  top, left = (int(rng.integers(size - side, endpoint=True)) for side in (height, width))
  return left, top, width, height


def _erased(
  pixels: UInt8[np.ndarray, "s s c"],
  rectangle: tuple[int, int, int, int],
  rng: np.random.Generator,
) -> UInt8[np.ndarray, "s s c"]:
  """Replaces a rectangle of the view with uniform noise."""
  left, top, width, height = rectangle
  output = pixels.copy()
  noise = rng.integers(256, size=(height, width, pixels.shape[2]), dtype=np.uint8)
  output[top : top + height, left : left + width] = noise
  return output

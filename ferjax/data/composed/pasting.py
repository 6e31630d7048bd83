"""Masks, light, and the pasting of patches; the camera of a composed scene."""

import math

import cv2
import numpy as np
import simplejpeg
from jaxtyping import Float, UInt8

from ferjax.config import ComposeConfig
from ferjax.data.composed.layout import Patch

_MASK_SIDE = 64  # cells; a mask is resampled with its patch
_EXPONENT = (2.5, 6.0)  # of the superellipse: an ellipse to a rounded rectangle
_EXTENT = (0.92, 1.0)  # half axes, relative to the crop's half sides
_FEATHER = (0.1, 0.25)  # width of the soft edge, relative to the crop's half sides
_WAVES = (2, 3, 5)  # per turn, of an irregular edge
_MAX_WAVE = 0.03  # amplitude of each, relative to the radius
_LEAST_DEVIATION = 4.0  # grey levels; the contrast of a plain area is not enlarged without limit
_GAIN = (0.5, 1.6)  # of the contrast, when a patch takes over that of its surroundings
_NON_FACE_GAIN = (0.25, 4.0)  # when a patch of background takes over that of a face

Scene = UInt8[np.ndarray, "s s 3"]
Image = UInt8[np.ndarray, "h w 3"]
Face = UInt8[np.ndarray, "i j 3"]

_X, _Y = np.meshgrid(*2 * [np.linspace(-1, 1, _MASK_SIDE, dtype=np.float32)])
_ABS_X, _ABS_Y, _TURN = np.abs(_X), np.abs(_Y), np.arctan2(_Y, _X)


def random_mask(rng: np.random.Generator) -> Float[np.ndarray, "m m"]:
  """The opacity of a patch, 1 inside and 0 at its border, where cell 0 and cell m - 1 lie.

  An ellipse, or a rounded rectangle, with a soft edge; half of them are irregular.
  """
  exponent, feather = rng.uniform(*_EXPONENT), rng.uniform(*_FEATHER)
  is_irregular = rng.random() < 0.5
  waves = rng.uniform(0, _MAX_WAVE, len(_WAVES)) * is_irregular
  phases = rng.uniform(0, 2 * np.pi, len(_WAVES))
  half_x, half_y = (rng.uniform(*_EXTENT, 2) * (1 - waves.sum())).tolist()  # inside the border
  radius = ((_ABS_X / half_x) ** exponent + (_ABS_Y / half_y) ** exponent) ** (1 / exponent)
  if is_irregular:
    shape = zip(_WAVES, waves.tolist(), phases.tolist(), strict=True)
    radius *= 1 + sum(wave * np.cos(count * _TURN + phase) for count, wave, phase in shape)
  inside = np.clip((1 - radius) / feather, 0, 1)
  return inside * inside * (3 - 2 * inside)


def light_of(image: Image) -> tuple[float, float]:
  """Mean and standard deviation, averaged over the channels, in grey levels."""
  mean, deviation = cv2.meanStdDev(image)
  return float(mean.mean()), float(deviation.mean())


def relit(
  image: Image, light: tuple[float, float], *, weight: float = 1.0, gain: tuple[float, float]
) -> Image:
  """The image with the mean and contrast of another one.

  Args:
    image: the pixels.
    light: the wanted mean and standard deviation.
    weight: 0 changes nothing, 1 takes over the light fully.
    gain: bounds of the change of the contrast.
  """
  mean, deviation = light_of(image)
  ratio = max(light[1], _LEAST_DEVIATION) / max(deviation, _LEAST_DEVIATION)
  factor = float(np.clip(ratio, *gain)) ** weight
  target = mean + weight * (light[0] - mean)
  levels = np.clip((np.arange(256) - mean) * factor + target, 0, 255).round().astype(np.uint8)
  return cv2.LUT(image, levels)


def match_light(
  rng: np.random.Generator, image: Image, canvas: Scene, patch: Patch, config: ComposeConfig
) -> Image:
  """With probability `config.match`, takes over some of the light of the patch's surroundings."""
  is_matched, weight = rng.random() < config.match, float(rng.random())
  left, top, right, bottom = _pixels(patch, canvas.shape[0])
  if not is_matched or left >= right or top >= bottom:
    return image
  local = light_of(np.ascontiguousarray(canvas[top:bottom, left:right]))
  return relit(image, local, weight=weight, gain=_GAIN)


def as_lit_as(image: Image, face: Face) -> Image:
  """A patch of background with the mean and contrast of a face."""
  return relit(image, light_of(face), gain=_NON_FACE_GAIN)


def paste(canvas: Scene, image: Image, mask: Float[np.ndarray, "m m"], patch: Patch) -> None:
  """Pastes an image on the canvas, in place, scaled and rotated to the patch.

  Args:
    canvas: the scene; pixels outside the patch keep their values.
    image: pixels of the patch, of any size.
    mask: opacity over the whole patch.
    patch: its place.
  """
  left, top, right, bottom = _pixels(patch, canvas.shape[0])
  if left >= right or top >= bottom:
    return
  height, width = image.shape[:2]
  if width > patch.width or height > patch.height:  # one warp would skip pixels
    width, height = (max(1, math.ceil(x)) for x in (patch.width, patch.height))
    width, height = min(width, image.shape[1]), min(height, image.shape[0])
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
  size = right - left, bottom - top
  # Of the pixel's centre, from the patch's corner, in units of the patch.
  inverse = _to_patch(patch, left + 0.5, top + 0.5)
  pixels = np.array([[width], [height]]) * inverse - [[0, 0, 0.5], [0, 0, 0.5]]
  cells = (mask.shape[0] - 1) * inverse
  flags = cv2.WARP_INVERSE_MAP
  warped = cv2.warpAffine(
    image, pixels, size, flags=flags | cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
  )
  opacity = cv2.warpAffine(mask, cells, size, flags=flags | cv2.INTER_LINEAR)
  area = np.ascontiguousarray(canvas[top:bottom, left:right])
  canvas[top:bottom, left:right] = cv2.blendLinear(warped, area, opacity, 1 - opacity)


def photograph(rng: np.random.Generator, scene: Scene, config: ComposeConfig) -> Scene:
  """Simulates one camera for the whole scene: blur, sensor noise, JPEG."""
  deviation = float(rng.uniform(0, config.blur))
  if deviation > 0.3:  # less changes nothing visible
    scene = cv2.GaussianBlur(scene, (0, 0), deviation)
  strength = np.float32(rng.uniform(0, config.noise))
  noise = rng.standard_normal(scene.shape[:2], np.float32) * strength
  pixels = cv2.add(scene, cv2.cvtColor(noise, cv2.COLOR_GRAY2RGB), dtype=cv2.CV_8U)
  quality = int(rng.integers(config.quality[0], config.quality[1], endpoint=True))
  encoded = simplejpeg.encode_jpeg(pixels, quality=quality, colorsubsampling="420")
  return simplejpeg.decode_jpeg(encoded)


def _pixels(patch: Patch, side: int) -> tuple[int, int, int, int]:
  """The window in whole pixels, clipped to the scene; may be empty."""
  x1, y1, x2, y2 = patch.window
  left, top = max(0, math.floor(x1)), max(0, math.floor(y1))
  return left, top, min(side, math.ceil(x2)), min(side, math.ceil(y2))


def _to_patch(patch: Patch, left: float, top: float) -> Float[np.ndarray, "2 3"]:
  """From pixels, counted from (left, top), to fractions of the patch's width and height."""
  cos, sin = math.cos(patch.angle), math.sin(patch.angle)
  x, y = left - patch.x, top - patch.y
  return np.array(
    [
      [cos / patch.width, sin / patch.width, (x * cos + y * sin) / patch.width + 0.5],
      [-sin / patch.height, cos / patch.height, (y * cos - x * sin) / patch.height + 0.5],
    ]
  )

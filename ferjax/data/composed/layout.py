"""The places of the patches of a composed scene, before any pixel is touched.

Every patch, face or not, gets its size, angle, place and occluder by the same rules, so none of
these tells a face from a patch of background.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ferjax.config import ComposeConfig

_MAX_ROTATION = 3.0  # standard deviations
_ACROSS_BORDER = 0.15  # probability that the border may cut a box
_MAX_BEYOND = 0.25  # of the box's side beyond the border
_OCCLUDER_SIDE = (0.35, 0.8)  # relative to the longer side of the box
_ATTEMPTS = 25  # to place a patch before it is left out

BoxArray = Float[np.ndarray, "4"]


@dataclasses.dataclass(frozen=True)
class Patch:
  """A rectangular crop on a scene, in pixels of the scene.

  Attributes:
    x, y: its centre.
    width, height: before the rotation.
    angle: clockwise, in radians.
  """

  x: float
  y: float
  width: float
  height: float
  angle: float

  @property
  def window(self) -> BoxArray:
    """The xyxy rectangle around the rotated crop."""
    cos, sin = abs(math.cos(self.angle)), abs(math.sin(self.angle))
    half_x = (self.width * cos + self.height * sin) / 2
    half_y = (self.width * sin + self.height * cos) / 2
    return np.array([self.x - half_x, self.y - half_y, self.x + half_x, self.y + half_y])

  def moved(self, x: float, y: float) -> "Patch":
    """The patch at another place."""
    return dataclasses.replace(self, x=self.x + x, y=self.y + y)

  def box(self, inset: tuple[float, float, float, float]) -> BoxArray:
    """The xyxy box of the face, not clipped to the scene.

    It bounds the ellipse that fills the crop without its inset, rotated with the crop. A rectangle
    around the rotated rectangle would grow with the angle, but faces are round.

    Args:
      inset: left, top, right, bottom: fractions of the crop's width and height.
    """
    left, top, right, bottom = inset
    half_width = self.width * (1 - left - right) / 2
    half_height = self.height * (1 - top - bottom) / 2
    cos, sin = math.cos(self.angle), math.sin(self.angle)
    across, down = self.width * (left - right) / 2, self.height * (top - bottom) / 2
    x = self.x + across * cos - down * sin
    y = self.y + across * sin + down * cos
    half_x = math.hypot(half_width * cos, half_height * sin)
    half_y = math.hypot(half_width * sin, half_height * cos)
    return np.array([x - half_x, y - half_y, x + half_x, y + half_y])


@dataclasses.dataclass(frozen=True)
class Placed:
  """A patch with its place.

  Attributes:
    number: its position in the arguments of `place`.
    patch: the crop.
    box: xyxy pixels, not clipped to the scene.
    occluder: a patch of background over a part of it; None if there is none.
  """

  number: int
  patch: Patch
  box: BoxArray
  occluder: Patch | None


def sample_count(rng: np.random.Generator, config: ComposeConfig) -> int:
  """The number of faces, or of non-faces, of a scene."""
  if rng.random() < config.empty:
    return 0
  return int(rng.integers(config.count[0], config.count[1], endpoint=True))


def place(
  rng: np.random.Generator, side: int, aspects: Sequence[float], config: ComposeConfig
) -> list[Placed]:
  """Places patches of random size and angle.

  The nearer of two patches is the larger one; it covers the other. A patch that would be hidden by
  more than `config.hidden`, by nearer patches, its occluder and the border together, is left out.

  Args:
    rng: the only source of randomness.
    side: of the scene, pixels.
    aspects: width / height of each patch.
    config: ranges and probabilities.

  Returns:
    The patches in the order in which they are pasted: the smallest first.
  """
  low, high = np.log(config.size[0]), np.log(min(config.size[1], side))
  longest = np.exp(rng.uniform(low, high, len(aspects)))
  scene = np.array([[0.0, 0.0, side, side]])
  placed: list[Placed] = []
  nearer = np.zeros((0, 4))  # windows
  for number in np.argsort(-longest, kind="stable").tolist():
    patch = _sample_patch(rng, aspects[number], float(longest[number]), config)
    box = patch.box(config.inset)
    occluder = _sample_occluder(rng, box) if rng.random() < config.occlusion else None
    windows = np.array([each.window for each in (patch, occluder) if each])
    offsets = _sample_offsets(rng, box, side)
    boxes = box + np.tile(offsets, 2)
    hidden = 1 - _covered(boxes, scene) + _covered(boxes, nearer)
    hidden += _covered(box[None], windows[1:])  # the occluder moves with the patch
    fitting = np.flatnonzero(hidden <= config.hidden)
    if len(fitting):
      x, y = offsets[fitting[0]].tolist()
      moved = occluder.moved(x, y) if occluder else None
      placed.append(Placed(number, patch.moved(x, y), boxes[fitting[0]], moved))
      nearer = np.concatenate([nearer, windows + np.array([x, y, x, y])])
  return placed[::-1]


def _sample_patch(
  rng: np.random.Generator, aspect: float, longest: float, config: ComposeConfig
) -> Patch:
  """A patch at the origin, the longer side of whose box is `longest` before the rotation."""
  left, top, right, bottom = config.inset
  height = longest / max(aspect * (1 - left - right), 1 - top - bottom)
  deviations = float(np.clip(rng.standard_normal(), -_MAX_ROTATION, _MAX_ROTATION))
  return Patch(0.0, 0.0, height * aspect, height, math.radians(config.rotation) * deviations)


def _sample_occluder(rng: np.random.Generator, box: BoxArray) -> Patch:
  """A square patch whose centre is on the ellipse inside the box."""
  half = (box[2:] - box[:2]) / 2
  direction = rng.uniform(0, 2 * np.pi)
  x, y = (box[:2] + box[2:]) / 2 + half * (np.cos(direction), np.sin(direction))
  side = 2 * half.max() * rng.uniform(*_OCCLUDER_SIDE)
  return Patch(float(x), float(y), float(side), float(side), float(rng.uniform(0, np.pi / 2)))


def _sample_offsets(
  rng: np.random.Generator, box: BoxArray, side: int
) -> Float[np.ndarray, "attempts 2"]:
  """Offsets that move the box to random places of the scene; the border cuts some of them."""
  extent = box[2:] - box[:2]
  beyond = extent * _MAX_BEYOND * (rng.random() < _ACROSS_BORDER)
  low, high = -beyond, side - extent + beyond
  # A box larger than the scene is in the middle.
  low, high = np.minimum(low, (low + high) / 2), np.maximum(high, (low + high) / 2)
  return rng.uniform(low, high, (_ATTEMPTS, 2)) - box[:2]


def _covered(
  boxes: Float[np.ndarray, "n 4"], windows: Float[np.ndarray, "m 4"]
) -> Float[np.ndarray, "n"]:
  """The fraction of each box inside the windows, summed: an upper bound if windows overlap."""
  low = np.maximum(boxes[:, None, :2], windows[:, :2])
  high = np.minimum(boxes[:, None, 2:], windows[:, 2:])
  areas = np.maximum(high - low, 0).prod(axis=2).sum(axis=1)
  return areas / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)

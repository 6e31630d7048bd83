"""Smooth curves, brush strokes and filled polygons, in face coordinates."""

import functools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import ImageDraw

Color = tuple[int, ...]  # RGB, or RGB and opacity, each 0..255
Shape = tuple[Float[np.ndarray, "_ 2"], Color]  # a filled polygon

_ANGLES = np.arange(20) * (2 * math.pi / 20)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], 1)


class Pose(NamedTuple):
  """Position of a face's origin, pixels per face height, and angle (radians, clockwise)."""

  x: float
  y: float
  unit: float
  angle: float


def mix(a: Color, b: Color, weight: float) -> Color:
  """The blend of `a` and `b`, with `weight` of `b`."""
  return tuple(round(p + (q - p) * weight) for p, q in zip(a, b, strict=True))


def scale(color: Color, factor: float) -> Color:
  """`color`, darker (below 1) or lighter."""
  return tuple(min(255, round(c * factor)) for c in color)


@functools.cache
def _spline_matrix(num: int, closed: bool, steps: int) -> Float[np.ndarray, "p n"]:
  """Catmull-Rom weights of `num` control points at `steps` positions of each segment."""
  segments = num if closed else num - 1
  t = np.arange(steps) / steps
  weights = 0.5 * np.stack(
    [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2]
  )
  matrix = np.zeros((segments * steps + (not closed), num))
  for segment in range(segments):
    for k in range(4):
      point = segment + k - 1
      point = point % num if closed else min(max(point, 0), num - 1)
      matrix[segment * steps : (segment + 1) * steps, point] += weights[k]
  if not closed:
    matrix[-1, -1] = 1
  return matrix


def spline(points, *, closed: bool = False, steps: int = 5) -> Float[np.ndarray, "p 2"]:
  """A smooth curve through the points."""
  points = np.asarray(points, float)
  return _spline_matrix(len(points), closed, steps) @ points


def stroke(points: Float[np.ndarray, "n 2"], width) -> Float[np.ndarray, "_ 2"]:
  """The polygon of a line of the given width (a number, or one per point)."""
  tangent = np.empty_like(points)
  tangent[1:-1] = points[2:] - points[:-2]
  tangent[0], tangent[-1] = points[1] - points[0], points[-1] - points[-2]
  normal = tangent[:, ::-1] * (-0.5, 0.5)
  normal /= np.hypot(tangent[:, 0], tangent[:, 1])[:, None] + 1e-9
  normal *= np.reshape(width, (-1, 1))
  return np.concatenate([points + normal, (points - normal)[::-1]])


def band(
  x: Float[np.ndarray, "n"], top: Float[np.ndarray, "n"], bottom: Float[np.ndarray, "n"]
) -> Float[np.ndarray, "_ 2"]:
  """The polygon between two curves over the same x."""
  num = len(x)
  points = np.empty((2 * num, 2))
  points[:num, 0], points[:num, 1] = x, top
  points[num:, 0], points[num:, 1] = x[::-1], bottom[::-1]
  return points


def ellipse(x: float, y: float, rx: float, ry: float) -> Float[np.ndarray, "20 2"]:
  """An ellipse with axes along x and y."""
  return _CIRCLE * np.array((rx, ry)) + np.array((x, y))


def place(points: Float[np.ndarray, "n 2"], pose: Pose) -> Float[np.ndarray, "n 2"]:
  """Converts face coordinates to pixels."""
  cos, sin = pose.unit * math.cos(pose.angle), pose.unit * math.sin(pose.angle)
  return points @ np.array([[cos, sin], [-sin, cos]]) + np.array((pose.x, pose.y))


def paint(draw: ImageDraw.ImageDraw, shapes: list[Shape], pose: Pose) -> None:
  """Fills the shapes in order, on a canvas whose ImageDraw has mode "RGBA" (for opacity)."""
  placed = place(np.concatenate([points for points, _ in shapes]), pose)
  start = 0
  for points, color in shapes:
    draw.polygon(placed[start : start + len(points)].ravel().tolist(), fill=color)
    start += len(points)

"""The surroundings of the people in the drawings."""

import numpy as np
from PIL import Image, ImageDraw

from ferjax.data.synthetic.drawing import Pose, ellipse, paint, spline, stroke
from ferjax.data.synthetic.identity import SKINS, random_color


def background(
  rng: np.random.Generator, side: int, clutter: int
) -> tuple[Image.Image, ImageDraw.ImageDraw]:
  """A smooth wall of few colours with shapes on it, and an ImageDraw to paint the people.

  Args:
    rng: source of all choices.
    side: of the canvas, pixels.
    clutter: number of objects on the wall.
  """
  cells = int(rng.integers(2, 6))
  base = rng.uniform(50, 215) + rng.normal(0, 25, 3)
  contrast = rng.uniform(5, 40)
  wall = base + rng.normal(0, contrast, (cells, cells, 1)) + rng.normal(0, 8, (cells, cells, 3))
  small = Image.fromarray(np.clip(wall, 0, 255).astype(np.uint8))
  canvas = small.resize((side // 4, side // 4), Image.Resampling.BICUBIC)
  canvas = canvas.resize((side, side), Image.Resampling.NEAREST)
  draw = ImageDraw.Draw(canvas, "RGBA")
  for _ in range(clutter):
    _clutter(draw, rng, side)
  return canvas, draw


def _clutter(draw: ImageDraw.ImageDraw, rng, side: int) -> None:
  """Paints one object that is not a face: a ball, a board, a wire, blinds; some in skin colours."""
  kind = rng.integers(5)
  opacity = int(rng.integers(90, 256))
  color = (*(SKINS[rng.integers(len(SKINS))] if rng.random() < 0.2 else random_color(rng)), opacity)
  x, y = rng.uniform(0, side, 2)
  pose = Pose(x, y, rng.uniform(0.06, 0.4) * side, rng.uniform(0, 2 * np.pi))
  if kind == 0:
    shapes = [(ellipse(0.0, 0.0, 0.5, rng.uniform(0.2, 0.5)), color)]
  elif kind == 1:
    half = rng.uniform(0.1, 0.5)
    shapes = [(np.array([(-0.5, -half), (0.5, -half), (0.5, half), (-0.5, half)]), color)]
  elif kind == 2:
    shapes = [(rng.uniform(-0.5, 0.5, (3, 2)), color)]
  elif kind == 3:
    shapes = [(stroke(spline(rng.uniform(-1, 1, (4, 2))), rng.uniform(0.02, 0.08)), color)]
  else:
    slat = np.array([(-0.5, 0), (0.5, 0), (0.5, 0.08), (-0.5, 0.08)])
    shapes = [(slat + np.array((0, 0.16 * k - 0.4)), color) for k in range(6)]
  paint(draw, shapes, pose)

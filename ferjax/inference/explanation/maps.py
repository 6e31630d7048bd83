"""Attribution maps and their position on the original image.

Feature map coordinates are (u, v) in 0..1, from the upper left to the lower right corner, whatever
the number of cells. Image coordinates are (x, y) in continuous pixels: the centre of the first
pixel is (0.5, 0.5). An affine map is f64[2 3] and is applied to (u, v, 1).
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, UInt8

from ferjax.inference.results import Box, Face

_MIN_AREA = 1e-3  # of a map on the image, square pixels; smaller maps are lines or points


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
  """The evidence of one feature map for the score of a class of a face.

  Attributes:
    face: the prediction, as a predictor returns it.
    target: the explained class, not always `face.expression`.
    layer: path of the submodule that returned the feature map; for a detector, with the level.
    cells: first-order contribution of each cell to the score; negative is evidence against it.
    to_image: affine map from the feature map to pixels of the original image.
    view: the part of the original image that was the network's input, xyxy pixels.
    theta: the affine map of a spatial transformer from its output to its input, in coordinates of
      -1..1 between the centres of the border pixels; None without one.
    resampled: the output of that transformer, RGB.
  """

  face: Face
  target: str
  layer: str
  cells: Float[np.ndarray, "rows columns"]
  to_image: Float[np.ndarray, "2 3"]
  view: Box
  theta: Float[np.ndarray, "2 3"] | None = None
  resampled: UInt8[np.ndarray, "s s 3"] | None = None

  @property
  def score(self) -> float:
    """The score of the explained class, 0..1."""
    return self.face.scores[self.target]

  @property
  def peak(self) -> float:
    """The largest contribution of a cell; 0 if none is positive."""
    return max(float(self.cells.max()), 0.0)

  @property
  def outline(self) -> Float[np.ndarray, "4 2"]:
    """Corners of the map on the original image, clockwise from the upper left; see `to_image`."""
    return _apply(self.to_image, np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64))

  def heat(
    self, region: Box, height: int, width: int
  ) -> tuple[Float[np.ndarray, "{height} {width}"], Bool[np.ndarray, "{height} {width}"]]:
    """The contributions on a region of the original image, as `height` x `width` pixels.

    Args:
      region: xyxy pixels of the original image.
      height, width: of the result; with the image's size and region, one value per image pixel.

    Returns:
      Contributions in 0..1: negative ones are 0, the others are divided by `peak` and interpolated
      between the centres of the cells. Then, a mask of the pixels inside the network's input. The
      heat is 0 outside the mask, and everywhere if no cell of the map is positive.
    """
    x1, y1, x2, y2 = region
    x = x1 + (np.arange(width) + 0.5) * ((x2 - x1) / width)
    y = y1 + (np.arange(height) + 0.5) * ((y2 - y1) / height)
    points = np.stack(np.meshgrid(x, y), axis=-1)
    linear, shift = self.to_image[:, :2], self.to_image[:, 2]
    if abs(np.linalg.det(linear)) < _MIN_AREA:
      return np.zeros((height, width)), np.zeros((height, width), bool)
    uv = (points - shift) @ np.linalg.inv(linear).T
    low, high = np.array(self.view[:2]), np.array(self.view[2:])
    inside = (uv >= 0) & (uv <= 1) & (points >= low) & (points <= high)
    seen = inside[..., 0] & inside[..., 1]
    warm = _interpolate(np.maximum(self.cells, 0) / (self.peak or 1), uv)
    return np.where(seen, warm, 0), seen


def input_to_image(placement: Float[np.ndarray, "6"], size: int) -> Float[np.ndarray, "2 3"]:
  """The affine map from a feature map over an input of `size` pixels to the original image.

  `placement` is as `ferjax.data.image.letterbox` returns it.
  """
  scale_x, scale_y, left, top = (float(value) for value in placement[:4])
  return np.array([[size / scale_x, 0, -left / scale_x], [0, size / scale_y, -top / scale_y]])


def transformer_to_input(theta: Float[np.ndarray, "2 3"], size: int) -> Float[np.ndarray, "2 3"]:
  """The affine map from a spatial transformer's output to its input, both in 0..1.

  `theta` is as in `ferjax.ops.sampling.affine_grid` with `align_corners`, for squares of `size`
  pixels, at least 2: its -1 and 1 are half a pixel inside the edges, which are 0 and 1 here.
  """
  reach = (size - 1) / size  # length of -1..1 in 0..1
  to_theta = np.array([[2 / reach, 0, -1 / reach], [0, 2 / reach, -1 / reach]])
  from_theta = np.array([[reach / 2, 0, 0.5], [0, reach / 2, 0.5]])
  return compose(from_theta, compose(np.asarray(theta, np.float64), to_theta))


def compose(
  second: Float[np.ndarray, "2 3"], first: Float[np.ndarray, "2 3"]
) -> Float[np.ndarray, "2 3"]:
  """The affine map that applies `first`, then `second`."""
  joined = second[:, :2] @ first
  joined[:, 2] += second[:, 2]
  return joined


def visible_region(placement: Float[np.ndarray, "6"], size: int) -> Box:
  """The region of an image inside an input of `size` pixels: xyxy, clipped to the image."""
  (x_scale, _, x1), (_, y_scale, y1) = input_to_image(placement, size).tolist()
  width, height = placement[4:].tolist()
  return max(0.0, x1), max(0.0, y1), min(width, x1 + x_scale), min(height, y1 + y_scale)


def _apply(affine: np.ndarray, points: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
  return points @ affine[:, :2].T + affine[:, 2]


def _interpolate(
  cells: Float[np.ndarray, "rows columns"], uv: Float[np.ndarray, "h w 2"]
) -> Float[np.ndarray, "h w"]:
  """Bilinear between cell centres; constant beyond the outermost ones."""
  rows, columns = cells.shape
  column = np.clip(uv[..., 0] * columns - 0.5, 0, columns - 1)
  row = np.clip(uv[..., 1] * rows - 0.5, 0, rows - 1)
  left, top = np.floor(column).astype(int), np.floor(row).astype(int)
  right, bottom = np.minimum(left + 1, columns - 1), np.minimum(top + 1, rows - 1)
  by_column, by_row = column - left, row - top
  upper = cells[top, left] * (1 - by_column) + cells[top, right] * by_column
  lower = cells[bottom, left] * (1 - by_column) + cells[bottom, right] * by_column
  return upper * (1 - by_row) + lower * by_row

"""Affine sampling grids and bilinear sampling, as in spatial transformers.

Coordinates (x, y) range from -1 to 1 over the image: the centres of the border pixels with
`align_corners`, else their outer edges.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

OUTSIDE = ("zeros", "border")


def affine_grid(
  theta: Float[Array, "b 2 3"], height: int, width: int, *, align_corners: bool
) -> Float[Array, "b {height} {width} 2"]:
  """The input coordinates of each output pixel: theta @ (x, y, 1)."""
  x = _centres(width, align_corners, theta.dtype)[None, None, :, None]
  y = _centres(height, align_corners, theta.dtype)[None, :, None, None]
  # Elementwise products: some accelerators compute float32 matrix products in bfloat16.
  by_x, by_y, shift = (theta[:, None, None, :, i] for i in range(3))
  return by_x * x + by_y * y + shift


def grid_sample(
  image: Float[Array, "b h w c"],
  grid: Float[Array, "b i j 2"],
  *,
  align_corners: bool,
  outside: str = "zeros",
) -> Float[Array, "b i j c"]:
  """The bilinearly interpolated image at each grid point; differentiable in image and grid.

  Beyond the image, values are 0 (`outside="zeros"`), or border pixels are repeated ("border"). At
  the centre of a pixel, the gradient with respect to the grid is one-sided.

  Raises:
    ValueError: `outside` is unknown.
  """
  if outside not in OUTSIDE:
    raise ValueError(f"unknown outside {outside!r}; known: {', '.join(OUTSIDE)}")
  height, width = image.shape[1:3]
  x = _position(grid[..., 0], width, align_corners)
  y = _position(grid[..., 1], height, align_corners)
  if outside == "border":
    x, y = jnp.clip(x, 0, width - 1), jnp.clip(y, 0, height - 1)
  return bilinear(image, x, y)


def bilinear(
  image: Float[Array, "b h w c"], x: Float[Array, "b i j"], y: Float[Array, "b i j"]
) -> Float[Array, "b i j c"]:
  """Bilinear values at positions in pixels, whose centres are integers; 0 beyond the image."""
  b, height, width, c = image.shape
  rows, columns = x.shape[1:]
  pixels = image.reshape(b, height * width, c)
  left, top = jnp.floor(x), jnp.floor(y)

  def corner(row, column):
    """Weighted pixels at one corner of the cell around each point; zero beyond the image."""
    weight = (1 - jnp.abs(y - row)) * (1 - jnp.abs(x - column))
    inside = (row >= 0) & (row <= height - 1) & (column >= 0) & (column <= width - 1)
    # Clipped before the conversion, because far points would overflow an integer.
    row = jnp.clip(row, 0, height - 1).astype(jnp.int32)
    column = jnp.clip(column, 0, width - 1).astype(jnp.int32)
    index = (row * width + column).reshape(b, rows * columns, 1)
    values = jnp.take_along_axis(pixels, index, axis=1, mode="clip")
    weight = jnp.where(inside, weight, jnp.zeros_like(weight))
    return values.reshape(b, rows, columns, c) * weight[..., None]

  upper = corner(top, left) + corner(top, left + 1)
  return upper + corner(top + 1, left) + corner(top + 1, left + 1)


def _centres(size: int, align_corners: bool, dtype) -> Float[Array, "{size}"]:
  """Coordinates of the pixel centres; a single pixel is at 0."""
  index = jnp.arange(size, dtype=dtype)
  if not align_corners:
    return (2 * index + 1) / size - 1
  return 2 * index / (size - 1) - 1 if size > 1 else jnp.zeros(1, dtype)


def _position(coordinate, size, align_corners):
  """Coordinates to pixel indices; 0 is the centre of the first pixel."""
  if align_corners:
    return (coordinate + 1) * ((size - 1) / 2)
  return (coordinate + 1) * (size / 2) - 0.5

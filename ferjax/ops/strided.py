"""Strided slices of maps."""

from jax import lax
from jaxtyping import Array, Float

from ferjax.typing import DimSize


def strided(
  x: Float[Array, "b h w c"],
  stride: int,
  *,
  start: tuple[int, int] = (0, 0),
  size: tuple[DimSize, DimSize] | None = None,
) -> Float[Array, "b _ _ c"]:
  """Every `stride`-th row and column, from (row, column) `start` on.

  Indexing does the same, but for a batch of symbolic size it gathers the elements one by one.

  Args:
    x: the map.
    stride: of rows and columns.
    start: first row and first column.
    size: (rows, columns) of the result; None for as many as there are.
  """
  ends = x.shape[1:3]
  if size is not None:
    ends = tuple(first + stride * (n - 1) + 1 for first, n in zip(start, size, strict=True))
  limits = (x.shape[0], *ends, x.shape[3])
  return lax.slice(x, (0, *start, 0), limits, (1, stride, stride, 1))

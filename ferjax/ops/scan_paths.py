"""Scan orders: converts a map to paths and back (spec: fer_yolo_mamba, SS2D).

Path k lists the flat positions row * w + col of an h x w map in visiting order:

  0  row major                    4  diagonal: step j*h + i visits row i, column (i + j) mod w
  1  column major                 5  anti-diagonal: row i, column (j - i) mod w
  2, 3  paths 0 and 1 reversed    6, 7  paths 4 and 5 reversed

Each is a permutation for every h and w, so `from_paths` moves each output back to the position of
its input, and `to_paths` and `from_paths` are adjoint.
"""

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from ferjax.typing import DimSize

PATHS = (4, 8)

Indices = np.ndarray | Array


def path_indices(height: DimSize, width: DimSize, num_paths: int = 8) -> Int[Indices, "p l"]:
  """The flat position that each path visits at each step.

  Computed once at tracing, but in every run for symbolic sizes.

  Args:
    height, width: of the map, in cells; at least 1, or symbolic sizes of `jax.export`.
    num_paths: 4 (rows and columns, in both directions) or 8 (also both diagonals).

  Raises:
    ValueError: another number of paths, or an empty map.
  """
  if num_paths not in PATHS:
    raise ValueError(f"num_paths is {num_paths}; it must be one of {PATHS}")
  if height < 1 or width < 1:
    raise ValueError(f"the map is {height} x {width} cells; it must have at least one")
  if isinstance(height, int) and isinstance(width, int):
    return _constant_indices(height, width, num_paths)
  return _indices(jnp, height, width, num_paths)


@functools.cache
def _constant_indices(height: int, width: int, num_paths: int) -> Int[np.ndarray, "p l"]:
  indices = _indices(np, height, width, num_paths)
  indices.setflags(write=False)
  return indices


def _indices(xp: Any, height: DimSize, width: DimSize, num_paths: int) -> Any:
  """Computed with NumPy or `jax.numpy`."""
  step = xp.arange(height * width, dtype=xp.int32)
  rows = step
  outer, row = step // height, step % height
  columns = row * width + outer
  paths = [rows, columns, rows[::-1], columns[::-1]]
  if num_paths == 8:
    diagonal = row * width + (row + outer) % width
    antidiagonal = row * width + (outer - row) % width
    paths += [diagonal, antidiagonal, diagonal[::-1], antidiagonal[::-1]]
  return xp.stack(paths)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def to_paths(
  x: Float[Array, "b l c"], height: DimSize, width: DimSize, num_paths: int = 8
) -> Float[Array, "p b l c"]:
  """Orders a flat map (l = height * width) along each path.

  The paths come first: each has its own weights, so their products are batched over the paths, and
  another order of the axes would be copied for them.
  """
  indices = path_indices(height, width, num_paths)
  if not isinstance(indices, np.ndarray):
    return jnp.moveaxis(jnp.take(x, indices, axis=1, mode="clip"), 1, 0)
  return jnp.stack([path(x, (height, width)) for path, _ in _ORDERS[:num_paths]])


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def from_paths(
  y: Float[Array, "p b l c"], height: DimSize, width: DimSize, num_paths: int = 8
) -> Float[Array, "b l c"]:
  """Moves each path's outputs back to their positions and sums over the paths."""
  indices = path_indices(height, width, num_paths)
  # Indexing a batch of a symbolic size would gather the elements one by one.
  outputs = [lax.index_in_dim(y, k, keepdims=False) for k in range(num_paths)]
  if isinstance(indices, np.ndarray):
    orders = _ORDERS[:num_paths]
    placed = (place(x, (height, width)) for x, (_, place) in zip(outputs, orders, strict=True))
  else:
    steps = jnp.argsort(indices, axis=1)
    placed = (jnp.take(x, steps[k], axis=1, mode="clip") for k, x in enumerate(outputs))
  return functools.reduce(operator.add, placed)


# Without these rules, the gradient of each order is a sum of padded arrays, or a scatter-add.
to_paths.defvjp(
  lambda x, *map_and_paths: (to_paths(x, *map_and_paths), None),
  lambda height, width, num_paths, _, dy: (from_paths(dy, height, width, num_paths),),
)
from_paths.defvjp(
  lambda y, *map_and_paths: (from_paths(y, *map_and_paths), None),
  lambda height, width, num_paths, _, dx: (to_paths(dx, height, width, num_paths),),
)


# Gathers are slow on accelerators, and need no memory traffic of indices if a transposition, a flip
# or a shear does. Symbolic sizes do not tell which rows of a shear wrap around, so they gather.


def _transposed(x: Float[Array, "b l c"], rows: int, columns: int) -> Float[Array, "b l c"]:
  """The column-major order of a row-major map."""
  b, length, c = x.shape
  return jnp.swapaxes(x.reshape(b, rows, columns, c), 1, 2).reshape(b, length, c)


def _sheared(
  x: Float[Array, "b l c"], size: tuple[int, int], direction: int
) -> Float[Array, "b l c"]:
  """Row i of the map, rotated by i columns: to the left if `direction` is 1, to the right if -1.

  Row i of the repeated map, two widths long, starts at 2 * w * i. Reading rows of 2 * w + 1 (or
  2 * w - 1) cells instead shifts each row by one cell more than the row before it.
  """
  (height, width), (b, _, c) = size, x.shape
  rows = min(height, width)  # after that many, the shifts begin again
  blocks = -(-height // rows)
  x = jnp.pad(x.reshape(b, height, width, c), ((0, 0), (0, blocks * rows - height), (0, 0), (0, 0)))
  x = x.reshape(b, blocks, rows, width, c)
  x = jnp.concatenate([x, x], axis=3).reshape(b, blocks, rows * 2 * width, c)
  start, end = (0, rows) if direction == 1 else (width, width - rows)
  x = jnp.pad(x, ((0, 0), (0, 0), (0, end), (0, 0)))
  x = lax.slice_in_dim(x, start, x.shape[2], axis=2)
  x = x.reshape(b, blocks, rows, 2 * width + direction, c)
  x = lax.slice_in_dim(x, 0, width, axis=3).reshape(b, blocks * rows * width, c)
  return lax.slice_in_dim(x, 0, height * width, axis=1)


def _row_major(x, size):
  del size
  return x


def _column_major(x, size):
  return _transposed(x, *size)


def _from_column_major(y, size):
  return _transposed(y, *size[::-1])


def _diagonal(x, size, direction):
  return _column_major(_sheared(x, size, direction), size)


def _from_diagonal(y, size, direction):
  return _sheared(_from_column_major(y, size), size, -direction)


def _both_directions(path, place):
  """A path and its reverse, each with its inverse."""
  flipped = lambda x, size: jnp.flip(path(x, size), axis=1)  # noqa: E731
  return (path, place), (flipped, lambda y, size: place(jnp.flip(y, axis=1), size))


def _orders():
  """(map to path, path to map) of each path, in the order of `path_indices`."""
  rows = _both_directions(_row_major, _row_major)
  columns = _both_directions(_column_major, _from_column_major)
  diagonals, antidiagonals = (
    _both_directions(
      functools.partial(_diagonal, direction=direction),
      functools.partial(_from_diagonal, direction=direction),
    )
    for direction in (1, -1)
  )
  pairs = ((rows, columns), (diagonals, antidiagonals))
  return [pair[reverse] for two in pairs for reverse in (0, 1) for pair in two]


_ORDERS = _orders()

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
) -> Float[Array, "b p l c"]:
  """Gathers a flat map (l = height * width) in the order of each path."""
  return jnp.take(x, path_indices(height, width, num_paths), axis=1, mode="clip")


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def from_paths(
  y: Float[Array, "b p l c"], height: DimSize, width: DimSize, num_paths: int = 8
) -> Float[Array, "b l c"]:
  """Moves each path's outputs back to their positions and sums over the paths."""
  indices = path_indices(height, width, num_paths)
  steps = (np if isinstance(indices, np.ndarray) else jnp).argsort(indices, axis=1)
  placed = (jnp.take(y[:, k], steps[k], axis=1, mode="clip") for k in range(num_paths))
  return functools.reduce(operator.add, placed)


# Without these rules, the gradient of a gather is a scatter-add, which is much slower.
to_paths.defvjp(
  lambda x, *map_and_paths: (to_paths(x, *map_and_paths), None),
  lambda height, width, num_paths, _, dy: (from_paths(dy, height, width, num_paths),),
)
from_paths.defvjp(
  lambda y, *map_and_paths: (from_paths(y, *map_and_paths), None),
  lambda height, width, num_paths, _, dx: (to_paths(dx, height, width, num_paths),),
)

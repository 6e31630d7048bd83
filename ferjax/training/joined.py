"""Sums over all values of a tree, with its small arrays joined.

A network has hundreds of small arrays, and the operations of each take longer to compile, to load
and to start than to run.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

SMALL = 2**16  # elements


def all_finite(tree: Any) -> Bool[Array, ""]:
  """Whether all values are finite."""
  return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in _parts(tree)]))


def global_norm(tree: Any) -> Float[Array, ""]:
  """The square root of the sum of all squares."""
  return jnp.sqrt(jnp.sum(jnp.stack([jnp.square(x).sum() for x in _parts(tree)])))


def _parts(tree: Any) -> list[jax.Array]:
  leaves = jax.tree.leaves(tree)
  small = [jnp.ravel(leaf) for leaf in leaves if leaf.size <= SMALL]
  # Not as vectors: an array that is split along another axis than its first would be gathered.
  large = [jnp.asarray(leaf) for leaf in leaves if leaf.size > SMALL]
  # The barrier keeps XLA from moving the operations back into the parts.
  joined = [jax.lax.optimization_barrier(jnp.concatenate(small))] if small else []
  return joined + large

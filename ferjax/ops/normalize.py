"""Normalisation of bytes inside a compiled program: images reach the device as bytes."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8


def normalize(
  image: UInt8[Array, "*b h w c"], mean: Sequence[float], std: Sequence[float]
) -> Float[Array, "*b h w 3"]:
  """`(image / 255 - mean) / std`, float32: bit by bit the result of `ferjax.data.image.normalize`.

  Args:
    image: RGB, or one grey channel, which is repeated three times.
    mean: of RGB in 0..1.
    std: standard deviation of RGB in 0..1.
  """
  # The difference is rounded before it is multiplied, so a compiler cannot fuse the two into one
  # operation with another rounding, as it can with a product and a sum.
  channels = (1,) * (image.ndim - 1) + (3,)
  shift = jnp.asarray((255 * np.array(mean)).astype(np.float32)).reshape(channels)
  scale = jnp.asarray((1 / (255 * np.array(std))).astype(np.float32)).reshape(channels)
  return (image.astype(jnp.float32) - shift) * scale

"""Depthwise convolution, by whichever way is fast on the backend."""

import functools
import operator

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def depthwise_conv(
  x: Float[Array, "b h w c"],
  kernel: Float[Array, "kh kw 1 c"],
  *,
  stride: int = 1,
  padding: int = 0,
) -> Float[Array, "b _ _ c"]:
  """Convolves every channel with its own kernel; zeros outside, the same padding on each side.

  On a CPU a grouped convolution is 5 to 30 times slower than adding up shifted copies of the
  map; GPUs and TPUs have kernels for it.
  """
  if jax.default_backend() == "cpu":
    return _shifted_sum(x, kernel, stride, padding)
  return lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(stride, stride),
    padding=[(padding, padding)] * 2,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=x.shape[-1],
  )


def _shifted_sum(x, kernel, stride, padding):
  dtype = jnp.result_type(x, kernel)
  x = jnp.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)])
  kernel_height, kernel_width = kernel.shape[:2]
  height = (x.shape[1] - kernel_height) // stride + 1
  width = (x.shape[2] - kernel_width) // stride + 1
  # In float32, as the convolutions of GPUs and TPUs accumulate.
  kernel = kernel.astype(jnp.float32)
  shifted = (
    kernel[i, j][None, None]
    * x[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
    for i in range(kernel_height)
    for j in range(kernel_width)
  )
  return functools.reduce(operator.add, shifted).astype(dtype)

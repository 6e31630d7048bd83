"""Depthwise convolution, with the fast implementation for each backend."""

import functools
import operator

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from ferjax.ops.strided import strided


def depthwise_conv(
  x: Float[Array, "b h w c"],
  kernel: Float[Array, "kh kw 1 c"],
  *,
  stride: int = 1,
  padding: int = 0,
  method: str = "auto",
) -> Float[Array, "b _ _ c"]:
  """Convolves each channel with its own kernel; zero padding, equal on all sides.

  `method` is "shifted", a sum of shifted maps, "grouped", a grouped convolution, or "auto". On
  CPUs, a grouped convolution is 5 to 30 times slower; GPUs and TPUs have kernels for it. "auto"
  chooses when the program is lowered, which may be for another platform than the default one.
  """
  methods = {
    "shifted": lambda x, kernel: _shifted_sum(x, kernel, stride, padding),
    "grouped": lambda x, kernel: _grouped_conv(x, kernel, stride, padding),
  }
  if method != "auto":
    return methods[method](x, kernel)
  return lax.platform_dependent(x, kernel, cpu=methods["shifted"], default=methods["grouped"])


def _grouped_conv(x, kernel, stride, padding):
  return lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(stride, stride),
    padding=[(padding, padding)] * 2,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=x.shape[-1],
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _shifted_sum(x, kernel, stride, padding):
  """Has a custom gradient: autodiff of 49 taps is up to 40 times slower."""
  dtype = jnp.result_type(x, kernel)
  x = _pad(x, padding)
  kernel_height, kernel_width = kernel.shape[:2]
  height = (x.shape[1] - kernel_height) // stride + 1
  width = (x.shape[2] - kernel_width) // stride + 1
  kernel = kernel.astype(_sum_dtype(dtype))
  shifted = (
    kernel[i, j][None, None] * strided(x, stride, start=(i, j), size=(height, width))
    for i in range(kernel_height)
    for j in range(kernel_width)
  )
  total = functools.reduce(operator.add, shifted)
  # An identity that stops XLA from fusing the sum into a subsequent normalisation, which makes it
  # about ten times slower.
  precision = jnp.finfo(total.dtype)
  return lax.reduce_precision(total, precision.nexp, precision.nmant).astype(dtype)


def _sum_dtype(dtype: DTypeLike) -> jnp.dtype:
  """At least float32, as the convolutions of GPUs and TPUs accumulate."""
  return jnp.promote_types(dtype, jnp.float32)


def _shifted_sum_forward(x, kernel, stride, padding):
  return _shifted_sum(x, kernel, stride, padding), (x, kernel)


def _shifted_sum_backward(stride, padding, residuals, cotangent):
  x, kernel = residuals
  x_gradient = _input_gradient(x.shape, kernel, cotangent, stride, padding)
  kernel_gradient = _kernel_gradient(_pad(x, padding), kernel.shape, cotangent, stride)
  return x_gradient.astype(x.dtype), kernel_gradient.astype(kernel.dtype)


_shifted_sum.defvjp(_shifted_sum_forward, _shifted_sum_backward)


def _pad(x, padding):
  return jnp.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)])


def _input_gradient(shape, kernel, cotangent, stride, padding) -> jax.Array:
  """The correlation of the stride-dilated cotangent with the kernel rotated by 180°."""

  def dilated_padding(size, taps, outputs):
    before = taps - 1 - padding
    return before, size + taps - 1 - before - (stride * (outputs - 1) + 1), stride - 1

  margins = map(dilated_padding, shape[1:3], kernel.shape[:2], cotangent.shape[1:3])
  zero = jnp.zeros((), cotangent.dtype)
  dilated = lax.pad(cotangent, zero, [(0, 0, 0), *margins, (0, 0, 0)])
  return _shifted_sum(dilated, kernel[::-1, ::-1], 1, 0)


def _kernel_gradient(x, shape, cotangent, stride) -> jax.Array:
  """Sums the windows of the map, each weighted by the cotangent of its output.

  Loops over the outputs, with one elementwise operation on all taps: XLA would compile a reduction
  per tap to scalar loops.
  """
  b, height, width, c = cotangent.shape
  kernel_height, kernel_width = shape[:2]

  def add(total, position):
    i, j = position // width, position % width
    window = lax.dynamic_slice(
      x, (0, stride * i, stride * j, 0), (b, kernel_height, kernel_width, c)
    )
    weight = lax.dynamic_slice(cotangent, (0, i, j, 0), (b, 1, 1, c))
    return total + window.astype(total.dtype) * weight, None

  total = jnp.zeros((b, kernel_height, kernel_width, c), _sum_dtype(cotangent.dtype))
  total, _ = lax.scan(add, total, jnp.arange(height * width), unroll=4)
  return total.sum(0)[:, :, None]

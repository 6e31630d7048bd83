import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from ferjax.ops.depthwise_conv import depthwise_conv

CASES = [
  ((6, 5), 3, 1, 1),
  ((7, 8), 3, 2, 1),
  ((9, 9), 7, 1, 3),
  ((5, 6), 3, 1, 0),
  ((8, 8), 5, 2, 2),
]


each_method = pytest.mark.parametrize("method", ["shifted", "grouped"])


@pytest.mark.parametrize(("size", "k", "stride", "padding"), CASES)
@each_method
def test_equals_scipy(method, size, k, stride, padding):
  rng = np.random.default_rng(0)
  x = rng.standard_normal((2, *size, 3)).astype(np.float32)
  kernel = rng.standard_normal((k, k, 1, 3)).astype(np.float32)
  options = {"stride": stride, "padding": padding, "method": method}
  y = depthwise_conv(jnp.asarray(x), jnp.asarray(kernel), **options)
  padded = np.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)])
  for image in range(2):
    for channel in range(3):
      expected = scipy.signal.correlate2d(
        padded[image, :, :, channel], kernel[:, :, 0, channel], mode="valid"
      )[::stride, ::stride]
      np.testing.assert_allclose(y[image, :, :, channel], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "k", "stride", "padding"), [*CASES, ((7, 6), 3, 1, 4)])
def test_both_methods_have_the_same_gradients(size, k, stride, padding):
  x = jax.random.normal(jax.random.key(0), (2, *size, 4))
  kernel = jax.random.normal(jax.random.key(1), (k, k, 1, 4))

  def gradients(method):
    def loss(x, kernel):
      y = depthwise_conv(x, kernel, stride=stride, padding=padding, method=method)
      return jnp.sum(y**2)

    return jax.grad(loss, (0, 1))(x, kernel)

  for a, b in zip(gradients("shifted"), gradients("grouped"), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@each_method
def test_gradients_have_the_dtypes_of_their_arguments(method):
  x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3), jnp.bfloat16)
  kernel = jax.random.normal(jax.random.key(1), (3, 3, 1, 3), jnp.bfloat16)

  def loss(x, kernel):
    y = depthwise_conv(x, kernel, padding=1, method=method)
    return jnp.sum(y.astype(jnp.float32) ** 2)

  gradients = jax.grad(loss, (0, 1))(x, kernel)
  assert [a.dtype for a in gradients] == [jnp.bfloat16] * 2
  exact = jax.grad(loss, (0, 1))(x.astype(jnp.float32), kernel.astype(jnp.float32))
  for a, b in zip(gradients, exact, strict=True):
    np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=0.05, atol=0.3)


@each_method
def test_float64_keeps_its_precision(method):
  """As needed to compare a network with a float64 record."""
  rng = np.random.default_rng(0)
  x, kernel = rng.standard_normal((1, 6, 6, 1)), rng.standard_normal((3, 3, 1, 1))
  cotangent = rng.standard_normal((1, 4, 4, 1))
  with jax.enable_x64(True):
    conv = functools.partial(depthwise_conv, method=method)
    y, pull_back = jax.vjp(conv, jnp.asarray(x), jnp.asarray(kernel))
    x_gradient, kernel_gradient = pull_back(jnp.asarray(cotangent))
  x, kernel, cotangent = x[0, :, :, 0], kernel[:, :, 0, 0], cotangent[0, :, :, 0]
  correlate = functools.partial(scipy.signal.correlate2d, mode="valid")
  np.testing.assert_allclose(y[0, :, :, 0], correlate(x, kernel), rtol=1e-13)
  np.testing.assert_allclose(kernel_gradient[:, :, 0, 0], correlate(x, cotangent), rtol=1e-13)
  expected = scipy.signal.convolve2d(cotangent, kernel, mode="full")
  np.testing.assert_allclose(x_gradient[0, :, :, 0], expected, rtol=1e-13)


@pytest.mark.parametrize(("platform", "convolutions"), [("cpu", 0), ("cuda", 1), ("tpu", 1)])
def test_the_platform_that_a_program_is_lowered_for_selects_the_method(platform, convolutions):
  shapes = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 4, 4, 2), (3, 3, 1, 2)))
  lowered = jax.jit(depthwise_conv).trace(*shapes).lower(lowering_platforms=(platform,))
  assert lowered.as_text().count("stablehlo.convolution") == convolutions

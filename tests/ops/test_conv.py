import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ferjax.ops.conv import dense_conv

CASES = [((6, 8), 3, 2, 1), ((7, 5), 3, 2, 1), ((6, 5), 3, 1, 1), ((4, 4), 2, 2, 0)]


def reference(x, kernel, stride, padding):
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    [(padding, padding)] * 2,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


@pytest.mark.parametrize(("size", "k", "stride", "padding"), CASES)
def test_equals_xla(size, k, stride, padding):
  x = jax.random.normal(jax.random.key(0), (2, *size, 3))
  kernel = jax.random.normal(jax.random.key(1), (k, k, 3, 4))
  y, pull_back = jax.vjp(lambda *a: dense_conv(*a, stride, padding), x, kernel)
  expected, expected_pull_back = jax.vjp(lambda *a: reference(*a, stride, padding), x, kernel)
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
  cotangent = jax.random.normal(jax.random.key(2), y.shape)
  for a, b in zip(pull_back(cotangent), expected_pull_back(cotangent), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5)


def test_strided_gradient_equals_finite_differences():
  """The convolution is linear in each argument, so differences of any size are exact."""
  rng = np.random.default_rng(0)
  x, kernel = rng.standard_normal((1, 4, 5, 2)), rng.standard_normal((3, 3, 2, 2))
  cotangent = rng.standard_normal((1, 2, 3, 2))

  def loss(x, kernel):
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))[:, ::2, ::2]
    return np.einsum("bhwcij,ijco,bhwo", windows, kernel, cotangent)

  with jax.enable_x64(True):
    _, pull_back = jax.vjp(lambda *a: dense_conv(*a, 2, 1), jnp.asarray(x), jnp.asarray(kernel))
    gradients = [np.asarray(g) for g in pull_back(jnp.asarray(cotangent))]
  for i, gradient in enumerate(gradients):
    for index in np.ndindex(gradient.shape):
      moved = [x.copy(), kernel.copy()]
      moved[i][index] += 1
      np.testing.assert_allclose(gradient[index], loss(*moved) - loss(x, kernel), atol=1e-12)


def test_only_cpus_take_the_gradient_apart():
  """A program for several platforms has the implementation of each."""

  def gradient(x, kernel):
    return jax.grad(lambda x: jnp.sum(dense_conv(x, kernel, 2, 1) ** 2))(x)

  traced = jax.jit(gradient).trace(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 2)))
  for platform, dilated in (("cpu", False), ("cuda", True), ("tpu", True)):
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ("lhs_dilate = [2, 2]" in text) == dilated


def test_half_precision_keeps_its_dtype():
  x, kernel = jnp.ones((1, 4, 4, 2), jnp.bfloat16), jnp.ones((3, 3, 2, 2), jnp.bfloat16)
  y, pull_back = jax.vjp(lambda *a: dense_conv(*a, 2, 1), x, kernel)
  gradients = pull_back(jnp.ones_like(y))
  assert {a.dtype for a in (y, *gradients)} == {jnp.dtype("bfloat16")}
  # Of 3x3 ones: each input meets as many taps as there are windows over it, in each of 2 outputs.
  np.testing.assert_array_equal(gradients[0][0, :, :, 0], np.outer([1, 2, 1, 1], [1, 2, 1, 1]) * 2)

"""Layer normalisation and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ferjax.ops.layer_norm import layer_norm

EPSILON = 1e-3


def oracle(x, scale, bias):
  """A NumPy loop over the positions, in float64."""
  result = np.empty(x.shape)
  for position in np.ndindex(x.shape[:-1]):
    row = x[position]
    variance = sum((value - row.mean()) ** 2 for value in row) / len(row)
    result[position] = (row - row.mean()) / np.sqrt(variance + EPSILON) * scale + bias
  return result


@pytest.fixture(scope="module")
def inputs():
  rng = np.random.default_rng(0)
  return 3 + rng.standard_normal((2, 3, 5)), 1 + rng.random(5), rng.standard_normal(5)


def test_values_equal_a_loop(inputs):
  ours = layer_norm(*(jnp.asarray(x, jnp.float32) for x in inputs), epsilon=EPSILON)
  np.testing.assert_allclose(ours, oracle(*inputs), rtol=1e-5, atol=1e-5)


def test_gradients_equal_finite_differences(inputs):
  weight = np.random.default_rng(1).standard_normal(inputs[0].shape)

  def loss(*x):
    return jnp.sum(layer_norm(*x, epsilon=EPSILON) * weight)

  with jax.enable_x64(True):
    gradients = jax.grad(loss, argnums=(0, 1, 2))(*map(jnp.asarray, inputs))
  for i, gradient in enumerate(gradients):
    for position in np.ndindex(gradient.shape):
      step = np.zeros(gradient.shape)
      step[position] = 1e-4
      change = [
        np.sum(weight * oracle(*(x + sign * step if j == i else x for j, x in enumerate(inputs))))
        for sign in (1, -1)
      ]
      np.testing.assert_allclose(gradient[position], (change[0] - change[1]) / 2e-4, atol=1e-6)


def test_bfloat16_is_normalised_in_float32(inputs):
  x, scale, bias = (jnp.asarray(x, jnp.float32) for x in inputs)
  x = x.astype(jnp.bfloat16)
  expected = layer_norm(x.astype(jnp.float32), scale, bias, epsilon=EPSILON).astype(jnp.bfloat16)
  assert layer_norm(x, scale, bias, epsilon=EPSILON).dtype == jnp.bfloat16
  np.testing.assert_array_equal(layer_norm(x, scale, bias, epsilon=EPSILON), expected)

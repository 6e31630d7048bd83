import jax
import jax.numpy as jnp
import numpy as np

from ferjax.ops.half_gradient import half_gradient


def test_values_are_exact_and_gradients_are_those_of_rounded_operands():
  random = np.random.default_rng(0)
  x, kernel, cotangent = (
    jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in ((5, 4), (4, 3), (5, 3))
  )
  y, pull = jax.vjp(lambda *operands: half_gradient(jnp.matmul, *operands), x, kernel)
  np.testing.assert_array_equal(y, jnp.matmul(x, kernel))
  dx, dk = pull(cotangent)
  assert y.dtype == dx.dtype == dk.dtype == jnp.float32
  # bfloat16 has 8 significant bits, so an operand is off by 2^-9; sums of 5 products of two
  # operands, and their rounding, by less than 3 * 2^-9 of the sum of absolute values.
  for found, a, b in ((dx, cotangent, kernel.T), (dk, x.T, cotangent)):
    error = np.abs(np.asarray(found, np.float64) - np.asarray(a, np.float64) @ np.asarray(b))
    assert (error <= 3 * 2**-9 * (np.abs(a) @ np.abs(b))).all()
    assert error.max() > 0

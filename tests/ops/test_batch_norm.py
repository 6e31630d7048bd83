import jax
import jax.numpy as jnp
import numpy as np

from ferjax.ops.batch_norm import normalize_batch

EPSILON = 1e-3


def expected(x, scale, bias):
  return (x - x.mean(0)) / np.sqrt(x.var(0) + EPSILON) * scale + bias


def test_equals_numpy():
  rng = np.random.default_rng(0)
  x = 3 + rng.standard_normal((20, 4))
  scale, bias = rng.standard_normal((2, 4))
  y, mean, var = normalize_batch(*(jnp.asarray(a, jnp.float32) for a in (x, scale, bias)), EPSILON)
  np.testing.assert_allclose(y, expected(x, scale, bias), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(mean, x.mean(0), rtol=1e-5)
  np.testing.assert_allclose(var, x.var(0), rtol=1e-4)


def test_gradients_equal_finite_differences():
  rng = np.random.default_rng(0)
  arguments = (2 + rng.standard_normal((6, 3)), *rng.standard_normal((2, 3)))
  cotangent = rng.standard_normal((6, 3))
  with jax.enable_x64(True):
    _, pull_back = jax.vjp(
      lambda *a: normalize_batch(*a, EPSILON)[0], *(jnp.asarray(a) for a in arguments)
    )
    gradients = [np.asarray(g) for g in pull_back(jnp.asarray(cotangent))]
  for i, gradient in enumerate(gradients):
    for index in np.ndindex(gradient.shape):
      ends = []
      for step in (1e-6, -1e-6):
        moved = [a.copy() for a in arguments]
        moved[i][index] += step
        ends.append(np.sum(cotangent * expected(*moved)))
      np.testing.assert_allclose(gradient[index], (ends[0] - ends[1]) / 2e-6, rtol=1e-6, atol=1e-8)


def test_half_precision_has_statistics_in_float32():
  x = jnp.asarray(np.random.default_rng(0).normal(8, 1, (64, 2)), jnp.bfloat16)
  (y, mean, var), pull_back = jax.vjp(
    lambda x: normalize_batch(x, jnp.ones(2), jnp.zeros(2), EPSILON), x
  )
  assert {a.dtype for a in (y, mean, var)} == {jnp.dtype("float32")}
  exact = np.asarray(x, np.float64)
  np.testing.assert_allclose(var, exact.var(0), rtol=1e-4)
  (gradient,) = pull_back((y**2, jnp.zeros(2), jnp.zeros(2)))
  assert gradient.dtype == jnp.bfloat16
  np.testing.assert_allclose(gradient.astype(jnp.float32).sum(0), 0, atol=0.2)

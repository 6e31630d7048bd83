"""The state-space block in half precision. Its numbers are held by the parity tests."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ferjax.models.ssm import VSSBlock


def gradients(dtype, train):
  x = jax.random.normal(jax.random.key(0), (2, 6, 6, 64))
  cotangent = jax.random.normal(jax.random.key(1), x.shape)
  variables = VSSBlock().init(jax.random.key(2), x, train=False)

  def loss(params, x):
    output, _ = VSSBlock(dtype=dtype).apply(
      {"params": params, "batch_stats": variables["batch_stats"]},
      x.astype(dtype),
      train=train,
      mutable=["batch_stats"],
    )
    return jnp.sum(output.astype(jnp.float32) * cotangent)

  return jax.jit(jax.grad(loss, argnums=(0, 1)))(variables["params"], x)


# The gradient of BatchNorm's own statistics subtracts means, where half precision loses digits.
@pytest.mark.parametrize(("train", "cosine"), [(False, 0.9995), (True, 0.99)])
def test_bfloat16_gradients_follow_those_of_float32(train, cosine):
  half, full = gradients(jnp.bfloat16, train), gradients(jnp.float32, train)
  leaves = jax.tree.leaves(half)
  assert {x.dtype for x in leaves} == {jnp.dtype(jnp.float32)}
  a, b = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(g)]) for g in (half, full))
  assert np.isfinite(a).all()
  assert a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) > cosine
  ssm, expected = half[0]["ss2d"], full[0]["ss2d"]
  for name in ("A_log", "D", "dt_proj_bias", "x_proj_weight"):
    x, y = np.ravel(ssm[name]), np.ravel(expected[name])
    assert x @ y / (np.linalg.norm(x) * np.linalg.norm(y)) > 0.99, name

import jax
import jax.numpy as jnp
import numpy as np

from ferjax.models.csp_darknet import CSPLayer


def gradient(jit, dtype, variables, x, cotangent):
  def loss_fn(params):
    y, _ = CSPLayer(8, 3, dtype=dtype).apply(
      {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
    )
    return jnp.sum(y * cotangent)

  grads = jax.tree.leaves(jit(jax.grad(loss_fn))(variables["params"]))
  return np.concatenate([np.ravel(x) for x in grads]).astype(np.float64)


def test_rounding_errors_do_not_grow_through_batch_norm(jit_quickly):
  """Through 9 convolutions, each followed by BatchNorm."""
  key = jax.random.key(0)
  x, cotangent = jax.random.normal(key, (2, 2, 8, 8, 8))
  variables = jit_quickly(lambda: CSPLayer(8, 3).init(key, x, train=False))()
  half, full = (
    gradient(jit_quickly, dtype, variables, x, cotangent) for dtype in (jnp.bfloat16, jnp.float32)
  )
  assert (half != full).any()
  assert half @ full / (np.linalg.norm(half) * np.linalg.norm(full)) > 0.9999

"""What `test_selective_scan.py` is too small for: several groups of scans, and many channels."""

import jax
import jax.numpy as jnp
import numpy as np

from ferjax.ops.sequential_scan import GROUP_SIZE, sequential_scan


def test_gradients_of_several_groups_equal_those_of_plain_autodiff():
  scans, length, channels, states = 4, 5, 512, 24
  assert scans * channels * states > GROUP_SIZE
  rng = np.random.default_rng(0)
  normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
  inputs = (
    normal(scans, length, channels),
    jax.nn.softplus(normal(scans, length, channels)),
    -jnp.exp(normal(scans, channels, states)),
    normal(scans, length, states),
    normal(scans, length, states),
    normal(scans, channels),
    normal(scans, channels, states),
  )
  weights = normal(scans, length, channels), normal(scans, channels, states)

  def ours(*inputs):
    return sequential_scan(*inputs, input_is_scaled=False, chunk_size=2, reverse=False)

  def plain(u, dt, A, B, C, D, h):
    outputs = []
    for t in range(length):
      h = jnp.exp(dt[:, t, :, None] * A) * h + (dt * u)[:, t, :, None] * B[:, t, None]
      outputs.append(jnp.einsum("sdn,sn->sd", h, C[:, t]) + D * u[:, t])
    return jnp.stack(outputs, axis=1), h

  def loss(scan):
    return lambda *x: sum(jnp.vdot(w, out) for w, out in zip(weights, scan(*x), strict=True))

  every = tuple(range(len(inputs)))
  found = jax.jit(jax.grad(loss(ours), argnums=every))(*inputs)
  expected = jax.jit(jax.grad(loss(plain), argnums=every))(*inputs)
  for name, a, b in zip(("u", "dt", "A", "B", "C", "D", "h0"), found, expected, strict=True):
    scale = float(jnp.abs(b).max())
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * scale, err_msg=name)

"""The selective scan by `jax.lax.associative_scan`, in chunks, for GPUs and TPUs.

The sequence is split into chunks, only the states of one chunk exist at a time, and the backward
pass recomputes them from the state at the start of each chunk.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ferjax.typing import DimSize


def chunked_scan(
  dt: Float[Array, "... l d"],
  A: Float[Array, "... d n"],
  v: Float[Array, "... l d"],
  B: Float[Array, "... l n"],
  C: Float[Array, "... l n"],
  h0: Float[Array, "... d n"],
  *,
  chunk_size: int,
  reverse: bool,
) -> tuple[Float[Array, "... l d"], Float[Array, "... d n"]]:
  """y_l = C_l . h_l with h_l = exp(dt_l A) h_{l-1} + B_l v_l, and the final state; all float32.

  `chunk_size` and `reverse` are as in `selective_scan`.
  """
  length = dt.shape[-2]
  if isinstance(length, int):  # a symbolic length of `jax.export` has no known value
    chunk_size = min(chunk_size, max(length, 1))
  to_chunks = functools.partial(_to_chunks, chunk_size=chunk_size, reverse=reverse)
  y, final = _chunked_scan(
    to_chunks(dt),
    jnp.swapaxes(A, -1, -2),
    to_chunks(v),
    to_chunks(B),
    to_chunks(C),
    jnp.swapaxes(h0, -1, -2),
  )
  return _from_chunks(y, length, reverse=reverse), jnp.swapaxes(final, -1, -2)


def _to_chunks(x, *, chunk_size: int, reverse: bool):
  """[... l c] -> [chunks t ... c]. Zero padding does not change the state (dt = 0)."""
  x = jnp.moveaxis(x, -2, 0)
  x = jnp.flip(x, 0) if reverse else x
  chunks = (x.shape[0] + chunk_size - 1) // chunk_size
  x = jnp.pad(x, [(0, chunks * chunk_size - x.shape[0])] + [(0, 0)] * (x.ndim - 1))
  return x.reshape(chunks, chunk_size, *x.shape[1:])


def _from_chunks(y, length: DimSize, *, reverse: bool):
  """[chunks t ... c] -> [... l c]."""
  y = y.reshape(-1, *y.shape[2:])[:length]
  y = jnp.flip(y, 0) if reverse else y
  return jnp.moveaxis(y, 0, -2)


@jax.custom_vjp
def _chunked_scan(dt, A, v, B, C, h0):
  """y [chunks t ... d] and the final state [... n d]; the input enters the state as v * B.

  The channels, the largest axis, stay last, for vectorisation.
  """
  y, _, final = _forward(dt, A, v, B, C, h0)
  return y, final


def _forward(dt, A, v, B, C, h0):
  """The outputs, the state at the start of each chunk, and the final state."""

  def chunk(h, xs):
    end, y = _outputs(A, h, *xs)
    return end, (y, h)

  final, (y, starts) = lax.scan(chunk, h0, (dt, v, B, C))
  return y, starts, final


def _chunked_scan_fwd(dt, A, v, B, C, h0):
  y, starts, final = _forward(dt, A, v, B, C, h0)
  return (y, final), (dt, A, v, B, C, starts)


def _chunked_scan_bwd(residuals, gradients):
  """g_t = dL/dh_t follows a recurrence of the same form, in reverse.

  g_t = C_t dy_t + a_{t+1} g_{t+1} with a = exp(dt A), so each chunk passes a_1 g_1 to the one
  before it.
  """
  dt, A, v, B, C, starts = residuals
  dy, d_final = gradients

  def chunk(carry, xs):
    return _gradients(A, *carry, *xs)

  (d_h0, dA), (d_dt, dv, dB, dC) = lax.scan(
    chunk, (d_final, jnp.zeros_like(A)), (dt, v, B, C, starts, dy), reverse=True
  )
  return d_dt, dA, dv, dB, dC, d_h0


_chunked_scan.defvjp(_chunked_scan_fwd, _chunked_scan_bwd)


def _decay(dt, A):
  return jnp.exp(dt[..., None, :] * A)


def _outer(channels, states):
  """[... d], [... n] -> [... n d]."""
  return channels[..., None, :] * states[..., None]


def _states(A, h, dt, v, B):
  """Decays and states of all positions of the chunk, both [t ... n d]."""
  a = _decay(dt, A[None])
  return a, _recurrence(a, _outer(v, B), h)


def _recurrence(a, b, h, reverse=False):
  """All h_t = a_t h_{t-1} + b_t along axis 0, from the end if `reverse`."""

  def combine(left, right):
    return left[0] * right[0], right[0] * left[1] + right[1]

  decay, inner = lax.associative_scan(combine, (a, b), reverse=reverse)
  return decay * h[None] + inner


def _outputs(A, h, dt, v, B, C):
  _, states = _states(A, h, dt, v, B)
  return states[-1], jnp.einsum("...nd,...n->...d", states, C)


def _gradients(A, g, dA, dt, v, B, C, start, dy):
  a, states = _states(A, start, dt, v, B)
  before = jnp.concatenate([start[None], states[:-1]])
  a_next = jnp.concatenate([a[1:], jnp.ones_like(a[:1])])
  g = _recurrence(a_next, _outer(dy, C), g, reverse=True)
  d_log_a = g * a * before
  gradients = (
    jnp.einsum("t...nd,...nd->t...d", d_log_a, A),  # dt
    jnp.einsum("...nd,...n->...d", g, B),  # v
    jnp.einsum("...nd,...d->...n", g, v),  # B
    jnp.einsum("...nd,...d->...n", states, dy),  # C
  )
  return (a[0] * g[0], dA + jnp.einsum("t...nd,t...d->...nd", d_log_a, dt)), gradients

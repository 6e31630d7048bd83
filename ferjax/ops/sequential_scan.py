"""The selective scan position by position, for CPUs.

Two things make it fast there. The states of a chunk stay in the cache, and every operation on
them has the channels last and sums over states and channels as additions of slices, which XLA
vectorises; it compiles a reduction to a scalar loop. See `benchmarks/selective_scan.py`.
"""

import functools
import math
import operator
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ferjax.typing import DimSize

GROUP_SIZE = 2**15  # of numbers: the states of one position that stay in the cache
LANES = 16  # partial sums over channels; a vector register has 8 or 16 of them

_at = functools.partial(lax.dynamic_index_in_dim, keepdims=False)
_put = lax.dynamic_update_index_in_dim


def sequential_scan(
  u: Float[Array, "... l d"],
  dt: Float[Array, "... l d"],
  A: Float[Array, "... d n"],
  B: Float[Array, "... l n"],
  C: Float[Array, "... l n"],
  D: Float[Array, "... d"] | None,
  h0: Float[Array, "... d n"],
  *,
  input_is_scaled: bool,
  chunk_size: int,
  reverse: bool,
) -> tuple[Float[Array, "... l d"], Float[Array, "... d n"]]:
  """C_l . h_l + D u_l with h_l = exp(dt_l A) h_{l-1} + B_l dt_l u_l, and the final state.

  Without D, there is no skip. All arguments are float32 and have the same leading axes. If
  `input_is_scaled`, the state gets B_l u_l. `chunk_size` and `reverse` are as in `selective_scan`.
  """
  length, lead = u.shape[-2], u.shape[:-2]
  size = chunk_size
  if isinstance(length, int):  # a symbolic length of `jax.export` has no known value
    size = -(-length // max(-(-length // chunk_size), 1)) or 1
  chunks = (length + size - 1) // size
  groups, scans = _groups(lead, A.shape[-2] * A.shape[-1])

  def by_position(x):
    """Zero padding does not change the state (dt = 0)."""
    x = jnp.flip(x, -2) if reverse else x
    x = x.reshape(groups, scans, length, x.shape[-1])
    return jnp.pad(x, ((0, 0), (0, 0), (0, chunks * size - length), (0, 0)))

  def by_state(x):
    return jnp.swapaxes(x, -1, -2).reshape(groups, scans, x.shape[-1], x.shape[-2])

  u, dt, B, C = map(by_position, (u, dt, B, C))
  D = None if D is None else D.reshape(groups, scans, D.shape[-1])
  y, final = _scan(u, dt, by_state(A), B, C, D, by_state(h0), input_is_scaled, size)
  y = y[:, :, :length].reshape(*lead, length, y.shape[-1])
  final = jnp.swapaxes(final, -1, -2).reshape(h0.shape)
  return jnp.flip(y, -2) if reverse else y, final


def _groups(lead: tuple[DimSize, ...], state_size: int) -> tuple[DimSize, DimSize]:
  """Divides the leading axes into groups of scans; the gradient takes one after the other."""
  total = math.prod(lead)
  if not isinstance(total, int):
    return 1, total
  scans = max(min(total, GROUP_SIZE // state_size), 1)
  scans = next(n for n in range(scans, 0, -1) if total % n == 0) if total else 1
  return total // scans, scans


@functools.partial(jax.custom_vjp, nondiff_argnums=(7, 8))
def _scan(u, dt, A, B, C, D, h0, scaled: bool, size: int):
  """A and h0 are [g s n d], D is [g s d] or None, the other arrays [g s l d] or [g s l n]."""
  y, final, _ = _forward(u, dt, A, B, C, D, h0, scaled, size)
  return y, final


def _forward(u, dt, A, B, C, D, h0, scaled, size):
  """The outputs, the final state, and the state at the start of each chunk, [chunks g s n d]."""
  chunks = dt.shape[-2] // size
  A = A * math.log2(math.e)

  def chunk(i, carry):
    h, y, starts = carry
    starts = _put(starts, h, i, 0)

    def step(t, carry):
      h, y = carry
      t = i * size + t
      u_t, dt_t, B_t, C_t = (_at(x, t, 2) for x in (u, dt, B, C))
      v_t = u_t if scaled else dt_t * u_t
      h = _exp2(dt_t[..., None, :] * A) * h + _outer(v_t, B_t)
      y_t = _sum_over_states(C_t, h)
      return h, _put(y, y_t if D is None else y_t + D * u_t, t, 2)

    h, y = lax.fori_loop(0, size, step, (h, y))
    return h, y, starts

  empty = jnp.zeros_like(u), jnp.zeros((chunks, *h0.shape), h0.dtype)
  h, y, starts = lax.fori_loop(0, chunks, chunk, (h0, *empty))
  return y, h, starts


def _scan_fwd(u, dt, A, B, C, D, h0, scaled, size):
  y, final, starts = _forward(u, dt, A, B, C, D, h0, scaled, size)
  return (y, final), (u, dt, A, B, C, D, starts)


def _scan_bwd(scaled, size, residuals, gradients):
  """g_t = dL/dh_t follows a recurrence of the same form, in reverse.

  g_t = C_t dy_t + a_{t+1} g_{t+1} with a = exp(dt A), so each chunk passes a_1 g_1 to the one
  before it. The states of a chunk of one group fit into the cache.
  """
  u, dt, A, B, C, D, starts = residuals
  dy, d_final = gradients
  groups, scans, length, _ = dt.shape
  chunks = length // size

  def rows(x, group, i):
    return lax.dynamic_slice(x, (group, 0, i * size, 0), (1, scans, size, x.shape[-1]))[0]

  def chunk(k, carry):
    group, i = k // chunks, chunks - 1 - k % chunks
    scratch, carried, dA, *totals = carry
    arguments = [rows(x, group, i) for x in (u, dt, B, C, dy)]
    fixed = [_at(x, group, 0) for x in (A, _at(starts, i, 0), carried, dA)]
    D_i = None if D is None else _at(D, group, 0)
    scratch, carried_i, dA_i, parts = _chunk_gradients(
      scratch, D_i, *fixed, *arguments, scaled=scaled
    )
    carried, dA = _put(carried, carried_i, group, 0), _put(dA, dA_i, group, 0)
    totals = (
      lax.dynamic_update_slice(x, part[None], (group, 0, i * size, 0))
      for x, part in zip(totals, parts, strict=True)
    )
    return scratch, carried, dA, *totals

  # Not all zeros: XLA makes equal arrays one, which every loop must then copy.
  empty = tuple(jnp.full_like(x, i) for i, x in enumerate((A, u, dt, B, C)))
  states = jnp.zeros((scans, size + 1, *A.shape[-2:]), A.dtype)
  scratch = states, states[:, 1:], states[:, 1:]
  _, d_h0, dA, du, d_dt, dB, dC = lax.fori_loop(
    0, groups * chunks, chunk, (scratch, d_final, *empty)
  )
  dD = None if D is None else jnp.sum(dy * u, axis=2)
  return du, d_dt, dA, dB, dC, dD, d_h0


_scan.defvjp(_scan_fwd, _scan_bwd)


def _chunk_gradients(scratch, D, A, start, carried, dA, u, dt, B, C, dy, *, scaled):
  """Gradients of one chunk of one group: of the state before it, of A, and of u, dt, B and C.

  `scratch` is memory for the chunk's states and two gradients; its values are of no use.
  """
  size = dt.shape[1]
  v = u if scaled else dt * u
  # One operation for all positions, which XLA divides among the cores.
  a = _exp2(dt[..., None, :] * (A * math.log2(math.e))[:, None])
  states, g, d_log_a = scratch

  def forward(t, carry):
    h, states = carry
    h = _at(a, t, 1) * h + _outer(_at(v, t, 1), _at(B, t, 1))
    return h, _put(states, h, t + 1, 1)

  _, states = lax.fori_loop(0, size, forward, (start, _put(states, start, 0, 1)))

  def backward(t, carry):
    t = size - 1 - t
    carried, g, d_log_a = carry
    g_t = carried + _outer(_at(dy, t, 1), _at(C, t, 1))
    carried = _at(a, t, 1) * g_t
    return carried, _put(g, g_t, t, 1), _put(d_log_a, carried * _at(states, t, 1), t, 1)

  carried, g, d_log_a = lax.fori_loop(0, size, backward, (carried, g, d_log_a))
  dA = dA + _add(d_log_a[:, t] * dt[:, t, None] for t in range(size))
  dv = _sum_over_states(B, g)
  d_dt = _add(A[:, None, n] * d_log_a[:, :, n] for n in range(A.shape[-2]))
  du, d_dt = (dv, d_dt) if scaled else (dv * dt, d_dt + dv * u)
  du = du if D is None else du + D[:, None] * dy
  parts = du, d_dt, _sum_over_channels(g, v), _sum_over_channels(states[:, 1:], dy)
  return (states, g, d_log_a), carried, dA, parts


def _exp2(x):
  """2^x to within 2 units in the last place, for x <= 127; 2^-126 for x below -126.

  XLA assigns operations to cores by the arithmetic it counts in them, and `jnp.exp` does not
  count: written out, the scan uses two cores instead of one, and takes 12 ms instead of 21.
  """
  x = jnp.where(x < -126, -126, x)  # keeps nan
  whole = jnp.round(x)
  fraction = x - whole
  power = jnp.full_like(x, _EXP2[0])
  for coefficient in _EXP2[1:]:
    power = power * fraction + coefficient
  exponent = (whole.astype(jnp.int32) + 127) << 23
  return power * lax.bitcast_convert_type(exponent, jnp.float32)


# 2^x on -0.5..0.5: minimax polynomial, highest power first.
_EXP2 = (
  1.535336188319500e-4,
  1.339887440266574e-3,
  9.618437357674640e-3,
  5.550332471162809e-2,
  2.402264791363012e-1,
  6.931472028550421e-1,
  1.0,
)


def _add(terms: Iterable[Array]) -> Array:
  return functools.reduce(operator.add, terms)


def _outer(channels, states):
  """[... d], [... n] -> [... n d]."""
  return channels[..., None, :] * states[..., None]


def _sum_over_states(weights, x):
  """[... n], [... n d] -> [... d]."""
  return _add(weights[..., n, None] * x[..., n, :] for n in range(x.shape[-2]))


def _sum_over_channels(x, weights):
  """[... n d], [... d] -> [... n]."""
  channels = x.shape[-1]
  lanes = LANES if channels % LANES == 0 else channels
  slices = (slice(k, k + lanes) for k in range(0, channels, lanes))
  partial = _add(x[..., k] * weights[..., None, k] for k in slices)
  return jnp.einsum("...k,k->...", partial, jnp.ones(lanes, x.dtype))

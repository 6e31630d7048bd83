"""The selective scan of Mamba, with a gradient that recomputes its states.

For every channel d and state n (Gu & Dao 2023; spec: fer_yolo_mamba, SS2D)

  h_l = exp(dt_l * A) * h_{l-1} + e_l * B_l * u_l,      y_l = C_l . h_l + D * u_l,

where the input step e_l is dt_l, or a separate value for each state (spec: fermam, ASFR).

The states of a whole image, [l d n] per path, are n times as large as the map, so they are never
materialised: the sequence is split into chunks, only the states of one chunk exist at a time, and
the backward pass recomputes them from the state at the start of each chunk.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ferjax.typing import DimSize

METHODS = ("auto", "associative", "sequential")


def selective_scan(
  u: Float[Array, "... l d"],
  dt: Float[Array, "... l d"],
  A: Float[Array, "... d n"] | Float[Array, "n"],
  B: Float[Array, "... l n"],
  C: Float[Array, "... l n"],
  D: Float[Array, "... d"] | None = None,
  *,
  input_step: Float[Array, "... l n"] | None = None,
  method: str = "auto",
  chunk_size: int = 32,
  reverse: bool = False,
  initial_state: Float[Array, "... d n"] | None = None,
  return_final_state: bool = False,
) -> Any:
  """Runs the recurrence along axis -2 of `u`, in float32 whatever the input dtype.

  Args:
    u: input.
    dt: step size, already positive.
    A: decay rate, already negative; [n] is shared by all channels.
    B: map from the input to the state, per position.
    C: map from the state to the output, per position.
    D: skip coefficient; None for no skip.
    input_step: scale of the input, of any sign; None for dt.
    method: how the states inside a chunk are computed: "associative" with
      `jax.lax.associative_scan`, "sequential" with `jax.lax.scan`; "auto" selects "sequential" on
      CPUs, where it is several times faster, and "associative" elsewhere.
    chunk_size: number of positions whose states are in memory at once.
    reverse: run from the last position to the first.
    initial_state: h before the first visited position; zeros if None.
    return_final_state: also return h after the last visited position, in float32.

  Leading axes of all arguments broadcast against each other.

  Returns:
    y of shape [... l d] in `u`'s dtype, or (y, final state [... d n]).

  Raises:
    ValueError: unknown method, chunk_size < 1, or incompatible shapes.
  """
  if method not in METHODS:
    raise ValueError(f"unknown scan method {method!r}; known: {', '.join(METHODS)}")
  if chunk_size < 1:
    raise ValueError(f"chunk_size is {chunk_size}; it must be at least 1")
  if method == "auto":
    method = "sequential" if jax.default_backend() == "cpu" else "associative"
  A = jnp.broadcast_to(A[None], (u.shape[-1], A.shape[0])) if A.ndim == 1 else A
  length, channels, states = _check_shapes(u, dt, A, B, C, D, input_step, initial_state)

  args = [u, dt, A, B, C] + [x for x in (input_step, initial_state) if x is not None]
  lead = jnp.broadcast_shapes(*(x.shape[:-2] for x in args), () if D is None else D.shape[:-1])

  def prepare(x, *tail):
    return jnp.broadcast_to(x.astype(jnp.float32), (*lead, *tail))

  u32, dt32 = prepare(u, length, channels), prepare(dt, length, channels)
  B32 = prepare(B, length, states)
  if input_step is None:
    v = dt32 * u32
  else:
    v, B32 = u32, B32 * prepare(input_step, length, states)
  if isinstance(length, int):  # a symbolic length of `jax.export` has no known value
    chunk_size = min(chunk_size, max(length, 1))
  to_chunks = functools.partial(_to_chunks, chunk_size=chunk_size, reverse=reverse)
  h0 = jnp.zeros((channels, states)) if initial_state is None else initial_state
  y, final = _chunked_scan(
    to_chunks(dt32),
    jnp.swapaxes(prepare(A, channels, states), -1, -2),
    to_chunks(v),
    to_chunks(B32),
    to_chunks(prepare(C, length, states)),
    jnp.swapaxes(prepare(h0, channels, states), -1, -2),
    method,
  )
  y = _from_chunks(y, length, reverse=reverse)
  if D is not None:
    y = y + prepare(D[..., None, :], length, channels) * u32
  y = y.astype(u.dtype)
  return (y, jnp.swapaxes(final, -1, -2)) if return_final_state else y


def _check_shapes(u, dt, A, B, C, D, input_step, initial_state) -> tuple[DimSize, int, int]:
  """The sizes (l, d, n); raises a ValueError that names an argument of wrong shape."""
  (length, channels), states = u.shape[-2:], A.shape[-1]
  expected = {
    "dt": (dt, (length, channels)),
    "A": (A, (channels, states)),
    "B": (B, (length, states)),
    "C": (C, (length, states)),
    "input_step": (input_step, (length, states)),
    "initial_state": (initial_state, (channels, states)),
  }
  for name, (x, tail) in expected.items():
    if x is not None and x.shape[-2:] != tail:
      raise ValueError(f"{name} has shape {x.shape}; its last axes must be {tail} to match u and A")
  if D is not None and D.shape[-1:] != (channels,):
    raise ValueError(f"D has shape {D.shape}; its last axis must be {channels} to match u")
  return length, channels, states


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def _chunked_scan(dt, A, v, B, C, h0, method: str):
  """y [chunks t ... d] and the final state [... n d]; the input enters the state as v * B.

  The channels, the largest axis, stay last, for vectorisation.
  """
  y, _, final = _forward(dt, A, v, B, C, h0, method)
  return y, final


def _forward(dt, A, v, B, C, h0, method):
  """The outputs, the state at the start of each chunk, and the final state."""

  def chunk(h, xs):
    end, y = _OUTPUTS[method](A, h, *xs)
    return end, (y, h)

  final, (y, starts) = lax.scan(chunk, h0, (dt, v, B, C))
  return y, starts, final


def _chunked_scan_fwd(dt, A, v, B, C, h0, method):
  y, starts, final = _forward(dt, A, v, B, C, h0, method)
  return (y, final), (dt, A, v, B, C, starts)


def _chunked_scan_bwd(method, residuals, gradients):
  """g_t = dL/dh_t follows a recurrence of the same form, in reverse.

  g_t = C_t dy_t + a_{t+1} g_{t+1} with a = exp(dt A), so each chunk passes a_1 g_1 to the one
  before it.
  """
  dt, A, v, B, C, starts = residuals
  dy, d_final = gradients

  def chunk(carry, xs):
    return _GRADIENTS[method](A, *carry, *xs)

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


def _sequential_outputs(A, h, dt, v, B, C):
  """One position at a time; never allocates all states of the chunk."""

  def step(h, xs):
    dt, v, B, C = xs
    h = _decay(dt, A) * h + _outer(v, B)
    return h, jnp.einsum("...nd,...n->...d", h, C)

  return lax.scan(step, h, (dt, v, B, C))


def _sequential_gradients(A, g, dA, dt, v, B, C, start, dy):
  def forward(h, xs):
    dt, v, B = xs
    return _decay(dt, A) * h + _outer(v, B), h

  _, before = lax.scan(forward, start, (dt, v, B))

  def backward(carry, xs):
    g, dA = carry
    dt, v, B, C, dy, before = xs
    a = _decay(dt, A)
    h = a * before + _outer(v, B)
    g = g + _outer(dy, C)
    d_log_a = g * a * before
    gradients = (
      jnp.sum(d_log_a * A, axis=-2),  # dt
      jnp.einsum("...nd,...n->...d", g, B),  # v
      jnp.einsum("...nd,...d->...n", g, v),  # B
      jnp.einsum("...nd,...d->...n", h, dy),  # C
    )
    return (a * g, dA + d_log_a * dt[..., None, :]), gradients

  return lax.scan(backward, (g, dA), (dt, v, B, C, dy, before), reverse=True)


def _associative_states(A, h, dt, v, B):
  """Decays and states of all positions of the chunk, both [t ... n d]."""
  a = _decay(dt, A[None])
  return a, _associative_recurrence(a, _outer(v, B), h)


def _associative_recurrence(a, b, h, reverse=False):
  """All h_t = a_t h_{t-1} + b_t along axis 0, from the end if `reverse`."""

  def combine(left, right):
    return left[0] * right[0], right[0] * left[1] + right[1]

  decay, inner = lax.associative_scan(combine, (a, b), reverse=reverse)
  return decay * h[None] + inner


def _associative_outputs(A, h, dt, v, B, C):
  _, states = _associative_states(A, h, dt, v, B)
  return states[-1], jnp.einsum("...nd,...n->...d", states, C)


def _associative_gradients(A, g, dA, dt, v, B, C, start, dy):
  a, states = _associative_states(A, start, dt, v, B)
  before = jnp.concatenate([start[None], states[:-1]])
  a_next = jnp.concatenate([a[1:], jnp.ones_like(a[:1])])
  g = _associative_recurrence(a_next, _outer(dy, C), g, reverse=True)
  d_log_a = g * a * before
  gradients = (
    jnp.einsum("t...nd,...nd->t...d", d_log_a, A),  # dt
    jnp.einsum("...nd,...n->...d", g, B),  # v
    jnp.einsum("...nd,...d->...n", g, v),  # B
    jnp.einsum("...nd,...d->...n", states, dy),  # C
  )
  return (a[0] * g[0], dA + jnp.einsum("t...nd,t...d->...nd", d_log_a, dt)), gradients


_OUTPUTS = {"associative": _associative_outputs, "sequential": _sequential_outputs}
_GRADIENTS = {"associative": _associative_gradients, "sequential": _sequential_gradients}

"""The selective scan of Mamba: its arguments and methods.

For every channel d and state n (Gu & Dao 2023; spec: fer_yolo_mamba, SS2D)

  h_l = exp(dt_l * A) * h_{l-1} + e_l * B_l * u_l,      y_l = C_l . h_l + D * u_l,

where the input step e_l is dt_l, or a separate value for each state (spec: fermam, ASFR).

The states of a whole image, [l d n] per path, are n times as large as the map, so they are never
materialised (`ferjax.ops.chunked_scan`, `ferjax.ops.sequential_scan`).
"""

import functools
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ferjax.ops.chunked_scan import chunked_scan
from ferjax.ops.sequential_scan import sequential_scan
from ferjax.typing import DimSize

METHODS = ("auto", "associative", "sequential", "pallas")
# On GPUs and TPUs. "pallas" has not been timed on one yet; it does not accept symbolic lengths.
ACCELERATOR_METHOD = "associative"
CHUNK_SIZES = {"associative": 32, "sequential": 16}  # fast, with little memory


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
  chunk_size: int | None = None,
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
      `jax.lax.associative_scan`, "sequential" with `jax.lax.scan`. "pallas" is a kernel for CUDA
      GPUs and one for TPUs (`ferjax.ops.pallas_scan`). "auto" selects "sequential" on CPUs, where
      it is several times faster, and "associative" elsewhere.
    chunk_size: number of positions whose states are in memory at once; None for `CHUNK_SIZES`;
      "pallas" ignores it.
    reverse: run from the last position to the first.
    initial_state: h before the first visited position; zeros if None.
    return_final_state: also return h after the last visited position, in float32.

  Leading axes of all arguments broadcast against each other.

  Returns:
    y of shape [... l d] in `u`'s dtype, or (y, final state [... d n]).

  Raises:
    ValueError: unknown method, chunk_size < 1, or incompatible shapes. For "pallas", also a
      symbolic length, or a program that is compiled for CPUs.
  """
  if method not in METHODS:
    raise ValueError(f"unknown scan method {method!r}; known: {', '.join(METHODS)}")
  if chunk_size is not None and chunk_size < 1:
    raise ValueError(f"chunk_size is {chunk_size}; it must be at least 1")
  A = jnp.broadcast_to(A[None], (u.shape[-1], A.shape[0])) if A.ndim == 1 else A
  length, channels, states = _check_shapes(u, dt, A, B, C, D, input_step, initial_state)
  if method == "auto":
    options = {"chunk_size": chunk_size, "reverse": reverse}
    options |= {"return_final_state": return_final_state}
    return _by_platform(options, u, dt, A, B, C, D, input_step, initial_state)

  args = [u, dt, A, B, C] + [x for x in (input_step, initial_state) if x is not None]
  lead = jnp.broadcast_shapes(*(x.shape[:-2] for x in args), () if D is None else D.shape[:-1])
  if method == "pallas":
    y, final = _run_kernel(lead, u, dt, A, B, C, D, input_step, initial_state, reverse)
    return (y, final) if return_final_state else y

  def prepare(x, *tail):
    return jnp.broadcast_to(x.astype(jnp.float32), (*lead, *tail))

  u32, dt32 = prepare(u, length, channels), prepare(dt, length, channels)
  A32, B32, C32 = (
    prepare(A, channels, states),
    prepare(B, length, states),
    prepare(C, length, states),
  )
  if input_step is not None:
    B32 = B32 * prepare(input_step, length, states)
  h0 = jnp.zeros((channels, states)) if initial_state is None else initial_state
  h0 = prepare(h0, channels, states)
  D32 = None if D is None else jnp.broadcast_to(D.astype(jnp.float32), (*lead, channels))
  chunks = {"chunk_size": chunk_size or CHUNK_SIZES[method], "reverse": reverse}
  if method == "sequential":
    scaled = input_step is not None
    y, final = sequential_scan(u32, dt32, A32, B32, C32, D32, h0, input_is_scaled=scaled, **chunks)
  else:
    v = dt32 * u32 if input_step is None else u32
    y, final = chunked_scan(dt32, A32, v, B32, C32, h0, **chunks)
    y = y if D32 is None else y + D32[..., None, :] * u32
  y = y.astype(u.dtype)
  return (y, final) if return_final_state else y


def _by_platform(options: dict[str, Any], *arrays: Array | None) -> Any:
  """Chooses the method when the program is lowered: it may be for another than this machine."""

  def run(method, u, dt, A, B, C, D, input_step, initial_state):
    optional = {"input_step": input_step, "initial_state": initial_state}
    return selective_scan(u, dt, A, B, C, D, method=method, **optional, **options)

  cpu, default = (functools.partial(run, method) for method in ("sequential", ACCELERATOR_METHOD))
  return lax.platform_dependent(*arrays, cpu=cpu, default=default)


def _run_kernel(lead, u, dt, A, B, C, D, input_step, initial_state, reverse: bool) -> Any:
  """y in `u`'s dtype and the final state; the arguments are read in their own dtype."""
  # Imported only here: other methods do not need Pallas.
  from ferjax.ops.pallas_scan.scan import pallas_scan

  def widen(x, axes: int) -> Any:
    return None if x is None else jnp.broadcast_to(x, (*lead, *x.shape[x.ndim - axes :]))

  A = A.astype(jnp.float32)
  D = jnp.zeros(u.shape[-1]) if D is None else D.astype(jnp.float32)
  h0 = jnp.zeros_like(A) if initial_state is None else initial_state.astype(jnp.float32)
  u, dt, A, B, C, input_step, h0 = (widen(x, 2) for x in (u, dt, A, B, C, input_step, h0))
  return pallas_scan(u, dt, A, B, C, widen(D, 1), input_step, h0, reverse=reverse)


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

"""The selective scan on GPUs: kernels in Pallas for Triton.

Each input is read once, and each output is written once; the states stay in registers
(`ferjax.ops.pallas_scan.gpu_program`). The next rows of `u` and `dt` are read while the present
ones are processed.

Few sequences do not fill a GPU. They are cut into segments, which run at the same time: a first
pass computes the state that each segment adds, and the second pass starts from the sum of those
before it, each weighted with the decay exp(A * sum of dt) of the segments between.

Gradient: the forward pass keeps the states at the start of each chunk. The backward pass recomputes
a chunk twice: first the states before each group of a few positions, into a buffer that stays in
the cache, and then, in registers, those of one group after the other, from the last to the first.
Sums over channels are partial, one for each block of channels, and added up afterwards. There are
no atomic operations, so results do not vary.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from ferjax.ops.pallas_scan.gpu_program import (
  CHANNELS,
  LANES,
  Grid,
  Program,
  float32,
  sum_of_states,
)
from ferjax.ops.pallas_scan.problem import CHUNK, Arguments, Problem

# The fewest segments that save more time than the first pass takes: it is as long as the second
# pass forwards, and a quarter of it backwards.
FORWARD_SEGMENTS, BACKWARD_SEGMENTS = 3, 2
LOG2_E, LN_2 = math.log2(math.e), math.log(2)


def forward(problem: Problem, arguments: Arguments, *, keep_starts: bool) -> Any:
  """y [s l d] in the dtype of `u`, the final state [s n d], and the kept states.

  The latter, [s chunks n d], are those at the start of each chunk; None unless `keep_starts`.
  """
  grid = Grid.filling(problem, problem.programs, least=FORWARD_SEGMENTS)
  n, d = problem.states, problem.channels
  outputs = (
    grid.array(problem.length, d, dtype=arguments.u.dtype),
    grid.array(n, d),
    grid.array(problem.chunks, n, d) if keep_starts else None,
  )
  ends = _segment_ends(grid, arguments.u, arguments.B, arguments, adjoint=False)
  return grid.call(_forward_kernel, outputs, arguments, ends)


def _forward_kernel(arguments, ends, y, final, starts, *, grid):
  at = Program(grid)
  a, skip = at.read_tile(arguments.A) * LOG2_E, at.read_channels(arguments.D)
  inputs = arguments.u, arguments.dt

  def group(i, carry, first):
    h, rows = carry
    start = first + i * at.steps
    following = at.read_group(inputs, start + at.steps)
    B, C = (at.read_group_states(x, start) for x in (arguments.B, arguments.C))
    for j in range(at.steps):
      u, dt = float32(*rows[j])
      h = at.exp2(dt[:, None] * a) * h + at.scaled(u, dt)[:, None] * B[j]
      at.write_row(y, start + j, sum_of_states(h * C[j]) + skip * u)
    return h, following

  def chunk(i, carry):
    index = at.first_chunk + i
    if starts is not None:
      at.write_tile(starts, carry[0], index)
    return lax.fori_loop(0, grid.groups, functools.partial(group, first=index * CHUNK), carry)

  h = _join(at, a, at.read_tile(arguments.h0), ends, at.segment, lambda j: j)
  h, _ = lax.fori_loop(0, at.chunks, chunk, (h, at.read_group(inputs, at.first_chunk * CHUNK)))

  @pl.when(at.segment == grid.segments - 1)
  def _():
    at.write_tile(final, h)


def _segment_ends(grid: Grid, x, scale, arguments: Arguments, *, adjoint: bool) -> Any:
  """The state that each segment adds [s segments n d], and its sum of dt [s segments d].

  If `adjoint`, the gradient that each segment passes to the state before it. None for a single
  segment.
  """
  if grid.segments == 1:
    return None
  n, d = grid.problem.states, grid.problem.channels
  outputs = grid.array(grid.segments, n, d), grid.array(grid.segments, d)
  kernel = functools.partial(_ends_kernel, adjoint=adjoint)
  return grid.call(kernel, outputs, x, scale, arguments.dt, arguments.A)


def _ends_kernel(x, scale, dt, A, ends, sums, *, grid, adjoint):
  at = Program(grid)
  a = at.read_tile(A) * LOG2_E
  groups = at.chunks * grid.groups

  def steps(i):
    start = at.first_chunk * CHUNK + at.steps * (groups - 1 - i if adjoint else i)
    ts = [start + j for j in range(at.steps)]
    return ts[::-1] if adjoint else ts

  def read(i):
    return [at.read_rows((x, dt), t) for t in steps(i)]

  def group(i, carry):
    h, total, rows = carry
    following = read(i + 1)
    scales = [at.read_states(scale, t) for t in steps(i)]
    for row, factor in zip(rows, scales, strict=True):
      v, step = float32(*row)
      decay = at.exp2(step[:, None] * a)
      total += step
      if adjoint:
        h = decay * (h + v[:, None] * factor)
      else:
        h = decay * h + at.scaled(v, step)[:, None] * factor
    return h, total, following

  zeros = jnp.zeros((LANES, CHANNELS), jnp.float32)
  h, total, _ = lax.fori_loop(0, groups, group, (jnp.zeros_like(a), zeros, read(0)))
  at.write_tile(ends, h, at.segment)
  at.write_channels(sums, total, at.segment)


def _join(at, a, h, ends, count, segment):
  """The state after `count` segments, of which `segment(j)` is the j-th."""
  if ends is None:
    return h
  added, sums = ends

  def join(j, h):
    total = at.read_channels(sums, segment(j))
    return at.exp2(total[:, None] * a) * h + at.read_tile(added, segment(j))

  return lax.fori_loop(0, count, join, h)


def backward(
  problem: Problem, arguments: Arguments, starts: jax.Array, dy: jax.Array, d_final: jax.Array
) -> Arguments:
  """The gradients for all arguments; `starts` are the kept states of `forward`."""
  grid = Grid.filling(problem, 2 * problem.programs, least=BACKWARD_SEGMENTS)
  length, n, d = problem.length, problem.states, problem.channels
  by_block = jax.ShapeDtypeStruct((grid.blocks, problem.sequences, length, n), jnp.float32)
  buffer = jax.ShapeDtypeStruct((grid.programs, grid.groups, n, CHANNELS), jnp.float32)
  outputs = Arguments(
    u=grid.array(length, d, dtype=arguments.u.dtype),
    dt=grid.array(length, d, dtype=arguments.dt.dtype),
    A=grid.array(grid.segments, n, d),
    B=by_block,
    C=by_block,
    D=grid.array(grid.segments, d),
    h0=grid.array(n, d),
  )
  ends = _segment_ends(grid, dy, arguments.C, arguments, adjoint=True)
  gradients, _ = grid.call(
    _backward_kernel, (outputs, buffer), arguments, starts, dy, d_final, ends
  )
  return gradients._replace(
    A=gradients.A.sum(1),
    B=gradients.B.sum(0).astype(arguments.B.dtype),
    C=gradients.C.sum(0).astype(arguments.C.dtype),
    D=gradients.D.sum(1),
  )


def _backward_kernel(arguments, starts, dy, d_final, ends, gradients, buffer, *, grid):
  """q is the gradient for the state before a step: q = a (q + C dy), from the last to the first."""
  at = Program(grid)
  a = at.read_tile(arguments.A) * LOG2_E
  recompute = functools.partial(_recompute, at, a, arguments, buffer)
  differentiate = functools.partial(_differentiate, at, a, arguments, dy, gradients, buffer)

  def chunk(i, carry):
    index = at.first_chunk + at.chunks - 1 - i
    first = index * CHUNK
    rows = at.read_group((arguments.u, arguments.dt), first)
    before = at.read_tile(starts, index), rows
    lax.fori_loop(0, grid.groups, functools.partial(recompute, first=first), before)
    at.barrier()
    carry = lax.fori_loop(0, grid.groups, functools.partial(differentiate, first=first), carry)
    at.barrier()
    return carry

  last = grid.segments - 1
  q = _join(at, a, at.read_tile(d_final), ends, last - at.segment, lambda j: last - j)
  zeros = jnp.zeros((LANES, CHANNELS), jnp.float32)
  q, dA, dD = lax.fori_loop(0, at.chunks, chunk, (q, jnp.zeros_like(a), zeros))
  at.write_tile(gradients.A, dA, at.segment)
  at.write_channels(gradients.D, dD, at.segment)

  @pl.when(at.segment == 0)
  def _():
    at.write_tile(gradients.h0, q)


def _recompute(at: Program, a, arguments, buffer, i, carry, *, first):
  """The state before the i-th group of a chunk, into the buffer; step `first` starts the chunk."""
  h, rows = carry
  plt.store(at.buffer(buffer, i), h)
  start = first + i * at.steps
  following = at.read_group((arguments.u, arguments.dt), start + at.steps)
  B = at.read_group_states(arguments.B, start)
  for j in range(at.steps):
    u, dt = float32(*rows[j])
    h = at.exp2(dt[:, None] * a) * h + at.scaled(u, dt)[:, None] * B[j]
  return h, following


def _differentiate(at: Program, a, arguments, dy, gradients, buffer, i, carry, *, first):
  """The gradients of the i-th group from the end of a chunk."""
  q, dA, dD = carry
  group = CHUNK // at.steps - 1 - i
  start = first + group * at.steps
  rows = [float32(*row) for row in at.read_group((arguments.u, arguments.dt, dy), start)]
  B, C = (at.read_group_states(x, start) for x in (arguments.B, arguments.C))
  skip = at.read_channels(arguments.D)
  decays, states = [], [plt.load(at.buffer(buffer, group))]
  for j in range(at.steps):
    u, dt, _ = rows[j]
    decays.append(at.exp2(dt[:, None] * a))
    states.append(decays[j] * states[j] + at.scaled(u, dt)[:, None] * B[j])
  for j in reversed(range(at.steps)):
    u, dt, dy_t = rows[j]
    g = q + dy_t[:, None] * C[j]
    at.write_states(gradients.C, start + j, (states[j + 1] * dy_t[:, None]).sum(-1))
    at.write_states(gradients.B, start + j, (g * at.scaled(u, dt)[:, None]).sum(-1))
    dv = sum_of_states(g * B[j])
    q = decays[j] * g
    d_log_decay = q * states[j]
    dA += d_log_decay * dt[:, None]
    dD += dy_t * u
    # a is log2(e) A.
    d_dt = LN_2 * sum_of_states(d_log_decay * a)
    if at.problem.dt_scales_input:
      d_dt, dv = d_dt + u * dv, dt * dv
    at.write_row(gradients.u, start + j, dv + skip * dy_t)
    at.write_row(gradients.dt, start + j, d_dt)
  return q, dA, dD

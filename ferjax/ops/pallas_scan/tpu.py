"""The selective scan on TPUs: kernels in Pallas for Mosaic.

The last axis of the grid, which is sequential, follows a sequence in tiles of `TILE` positions. The
state [n, channels], with channels in lanes and states in sublanes, stays in VMEM between tiles: it
is the block of an output that has the same index for all tiles. `B` and `C` come transposed,
[n, positions]: with n last they would fill 16 of 128 lanes.

The gradient recomputes the states of one chunk at a time, from the state at its start, into VMEM.
Sums over channels are partial, one for each block of channels, and added up afterwards.

Elements of a block outside an array have any value, also NaN, so they are replaced by 0 when read.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ferjax.ops.pallas_scan.problem import CHUNK, Arguments, Problem

LANES = 128
TILE = LANES  # positions, which are the lanes of `B` and `C`
MAX_CHANNELS = 2 * LANES  # of a block


@dataclasses.dataclass(frozen=True)
class _Grid:
  """The blocks of each array; `adjoint` visits tiles, chunks and positions from the last."""

  problem: Problem
  adjoint: bool

  @property
  def backwards(self) -> bool:
    """Tiles are visited from the end of the arrays."""
    return self.problem.reverse != self.adjoint

  @property
  def channels(self) -> int:
    """Channels in a block."""
    return min(MAX_CHANNELS, LANES * pl.cdiv(self.problem.channels, LANES))

  @property
  def blocks(self) -> int:
    """Blocks of channels."""
    return pl.cdiv(self.problem.channels, self.channels)

  @property
  def tiles(self) -> int:
    """Tiles of positions."""
    return pl.cdiv(self.problem.length, TILE)

  def tile(self, step):
    """The tile in memory that is visited at a step of the grid."""
    return self.tiles - 1 - step if self.backwards else step

  def chunk(self, step):
    """The chunk of a tile that is visited at a step."""
    return TILE // CHUNK - 1 - step if self.backwards else step

  def row(self, chunk, i):
    """The index of the i-th visited row of a chunk in its tile."""
    return pl.ds(chunk * CHUNK + (CHUNK - 1 - i if self.backwards else i), 1)

  def specs(self) -> dict[str, pl.BlockSpec]:
    """The blocks of arrays [s l d], [s n l], [s n d], [s chunks n d] and [blocks s n l]."""
    n, d = self.problem.states, self.channels
    return {
      "rows": pl.BlockSpec((1, TILE, d), lambda s, b, t: (s, self.tile(t), b)),
      "columns": pl.BlockSpec((1, n, TILE), lambda s, b, t: (s, 0, self.tile(t))),
      "state": pl.BlockSpec((1, n, d), lambda s, b, t: (s, 0, b)),
      "channels": pl.BlockSpec((1, 1, d), lambda s, b, t: (s, 0, b)),
      "starts": pl.BlockSpec((1, TILE // CHUNK, n, d), lambda s, b, t: (s, self.tile(t), 0, b)),
      "sums": pl.BlockSpec((1, 1, n, TILE), lambda s, b, t: (b, s, 0, self.tile(t))),
    }

  def arguments(self) -> Arguments:
    """The blocks of the kernel's inputs."""
    specs = self.specs()
    rows, columns, state = specs["rows"], specs["columns"], specs["state"]
    return Arguments(rows, rows, state, columns, columns, specs["channels"], state)

  def call(self, kernel, inputs, in_specs, outputs, out_specs, scratch):
    return pl.pallas_call(
      functools.partial(kernel, grid=self),
      grid=(self.problem.sequences, self.blocks, self.tiles),
      in_specs=in_specs,
      out_specs=out_specs,
      out_shape=outputs,
      scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in scratch],
      compiler_params=pltpu.CompilerParams(
        dimension_semantics=("parallel", "parallel", "arbitrary")
      ),
      interpret=self.problem.interpret,
    )(*inputs)

  def array(self, *shape: int, dtype=jnp.float32) -> jax.ShapeDtypeStruct:
    """An output with one slice for each sequence."""
    return jax.ShapeDtypeStruct((self.problem.sequences, *shape), dtype)

  def inside(self, x, *, positions: int | None = None, channels: int | None = None):
    """x in float32, with 0 outside the array; the arguments are the axes of x."""
    x = x.astype(jnp.float32)
    tile, block = self.tile(pl.program_id(2)), pl.program_id(1)
    if positions is not None and self.problem.length % TILE:
      position = tile * TILE + lax.broadcasted_iota(jnp.int32, x.shape, positions)
      x = jnp.where(position < self.problem.length, x, 0)
    if channels is not None and self.problem.channels % self.channels:
      channel = block * self.channels + lax.broadcasted_iota(jnp.int32, x.shape, channels)
      x = jnp.where(channel < self.problem.channels, x, 0)
    return x


def forward(problem: Problem, arguments: Arguments, *, keep_starts: bool) -> Any:
  """As in `ferjax.ops.pallas_scan.gpu`; the kept states are in the order of memory."""
  grid = _Grid(problem, adjoint=False)
  specs, n, d = grid.specs(), problem.states, problem.channels
  outputs = (grid.array(problem.length, d, dtype=arguments.u.dtype), grid.array(n, d))
  out_specs = (specs["rows"], specs["state"])
  if keep_starts:
    outputs += (grid.array(problem.chunks, n, d),)
    out_specs += (specs["starts"],)
  results = grid.call(
    functools.partial(_forward_kernel, keep_starts=keep_starts),
    (_transposed(arguments),),
    (grid.arguments(),),
    outputs,
    out_specs,
    3 * [(TILE, grid.channels)],
  )
  return results if keep_starts else (*results, None)


def _forward_kernel(arguments, y, h, *refs, grid, keep_starts):
  """h, an output, is the state between tiles."""
  starts, dts, inputs, results = refs if keep_starts else (None, *refs)

  @pl.when(pl.program_id(2) == 0)
  def _():
    h[...] = arguments.h0[...]

  A = arguments.A[0]
  B, C = (grid.inside(x[0], positions=1) for x in (arguments.B, arguments.C))
  u, dts[...] = (grid.inside(x[0], positions=0, channels=1) for x in (arguments.u, arguments.dt))
  inputs[...] = dts[...] * u if grid.problem.dt_scales_input else u

  def step(i, h, chunk):
    row = grid.row(chunk, i)
    dt, v = dts[row], inputs[row]
    h = jnp.exp(dt * A) * h + v * _column(B, row)
    results[row] = jnp.sum(h * _column(C, row), axis=0, keepdims=True)
    return h

  def follow(i, state):
    chunk = grid.chunk(i)
    if starts is not None:
      starts[0, chunk] = state
    return lax.fori_loop(0, CHUNK, functools.partial(step, chunk=chunk), state)

  h[0] = lax.fori_loop(0, TILE // CHUNK, follow, h[0])
  y[0] = (results[...] + arguments.D[0] * u).astype(y.dtype)


def _column(x, row):
  """[n, 1] at a position, by a masked sum over lanes."""
  lane = lax.broadcasted_iota(jnp.int32, x.shape, 1)
  return jnp.sum(jnp.where(lane == row.start, x, 0), axis=1, keepdims=True)


def backward(
  problem: Problem, arguments: Arguments, starts: jax.Array, dy: jax.Array, d_final: jax.Array
) -> Arguments:
  """The gradients for all arguments; `starts` are the kept states of `forward`."""
  grid = _Grid(problem, adjoint=True)
  specs, length = grid.specs(), problem.length
  n, d = problem.states, problem.channels
  by_block = jax.ShapeDtypeStruct((grid.blocks, problem.sequences, n, length), jnp.float32)
  outputs = Arguments(
    u=grid.array(length, d, dtype=arguments.u.dtype),
    dt=grid.array(length, d, dtype=arguments.dt.dtype),
    A=grid.array(n, d),
    B=by_block,
    C=by_block,
    D=grid.array(1, d),
    h0=grid.array(n, d),
  )
  gradients = grid.call(
    _backward_kernel,
    (_transposed(arguments), starts, dy, d_final),
    (grid.arguments(), specs["starts"], specs["rows"], specs["state"]),
    tuple(outputs),
    tuple(grid.arguments()._replace(B=specs["sums"], C=specs["sums"])),
    [*5 * [(TILE, grid.channels)], (CHUNK, n, grid.channels)],
  )
  gradients = Arguments(*gradients)
  return gradients._replace(
    B=jnp.swapaxes(gradients.B.sum(0), -1, -2).astype(arguments.B.dtype),
    C=jnp.swapaxes(gradients.C.sum(0), -1, -2).astype(arguments.C.dtype),
    D=gradients.D[:, 0],
  )


def _backward_kernel(arguments, starts, dy, d_final, du, d_dt, dA, dB, dC, dD, q, *scratch, grid):
  """q, an output, is the gradient for the state before the tile: q = exp(dt A) (q + C dy)."""
  dts, inputs, dys, d_inputs, d_steps, states = scratch
  n = grid.problem.states

  d_end = grid.inside(d_final[0], channels=1)

  @pl.when(pl.program_id(2) == 0)
  def _():
    q[0] = d_end
    dA[...] = jnp.zeros_like(dA)
    dD[...] = jnp.zeros_like(dD)

  A = grid.inside(arguments.A[0], channels=1)
  B, C = (grid.inside(x[0], positions=1) for x in (arguments.B, arguments.C))
  rows = (arguments.u, arguments.dt, dy)
  u, dts[...], dys[...] = (grid.inside(x[0], positions=0, channels=1) for x in rows)
  inputs[...] = dts[...] * u if grid.problem.dt_scales_input else u
  lane = lax.broadcasted_iota(jnp.int32, (n, TILE), 1)
  inside_channels = grid.inside(jnp.ones((n, grid.channels)), channels=1) > 0
  first_chunk = grid.tile(pl.program_id(2)) * (TILE // CHUNK)

  def recompute(i, h, chunk):
    # From the first step of the chunk, which is the last that the gradient visits.
    row = grid.row(chunk, CHUNK - 1 - i)
    states[CHUNK - 1 - i] = h
    return jnp.exp(dts[row] * A) * h + inputs[row] * _column(B, row)

  def step(i, carry, chunk):
    q, dA, dB, dC = carry
    row = grid.row(chunk, i)
    dt, v, dy, before = dts[row], inputs[row], dys[row], states[i]
    b = _column(B, row)
    decay = jnp.exp(dt * A)
    g = q + dy * _column(C, row)
    h = decay * before + v * b
    dC = jnp.where(lane == row.start, jnp.sum(h * dy, axis=1, keepdims=True), dC)
    dB = jnp.where(lane == row.start, jnp.sum(g * v, axis=1, keepdims=True), dB)
    d_inputs[row] = jnp.sum(g * b, axis=0, keepdims=True)
    q = decay * g
    d_log_decay = q * before
    d_steps[row] = jnp.sum(d_log_decay * A, axis=0, keepdims=True)
    return q, dA + d_log_decay * dt, dB, dC

  def follow(i, carry):
    chunk = grid.chunk(i)
    inside = inside_channels & (first_chunk + chunk < grid.problem.chunks)
    start = jnp.where(inside, starts[0, chunk], 0)
    lax.fori_loop(0, CHUNK, functools.partial(recompute, chunk=chunk), start)
    return lax.fori_loop(0, CHUNK, functools.partial(step, chunk=chunk), carry)

  zeros = jnp.zeros((n, TILE), jnp.float32)
  carry = lax.fori_loop(0, TILE // CHUNK, follow, (q[0], dA[0], zeros, zeros))
  q[0], dA[0], dB[0, 0], dC[0, 0] = carry
  dD[0] += jnp.sum(dys[...] * u, axis=0, keepdims=True)
  dv, d_step = d_inputs[...], d_steps[...]
  if grid.problem.dt_scales_input:
    dv, d_step = dv * dts[...], d_step + dv * u
  du[0] = (dv + arguments.D[0] * dys[...]).astype(du.dtype)
  d_dt[0] = d_step.astype(d_dt.dtype)


def _transposed(arguments: Arguments) -> Arguments:
  """As the kernels take them."""
  B, C = (jnp.swapaxes(x, -1, -2) for x in (arguments.B, arguments.C))
  return arguments._replace(B=B, C=C, D=arguments.D[:, None])

"""One program of the GPU kernels: what it works on, and how it reads and writes.

A program is one warp, which follows `CHANNELS` channels of one sequence and keeps their states in
registers.

Layout: a tile of states has the shape [`LANES`, n / `LANES`, `CHANNELS`]. Triton gives each thread
the n / 4 states of 4 adjacent channels, so a row of `u`, [`LANES`, `CHANNELS`] with equal values in
all lanes, is one 16-byte read of each thread in this very layout, as is a row of `B` or `C`. Thus
no value passes through shared memory: a sum over the states takes 2 shuffles, one over the channels
3. With [n, `CHANNELS`], Triton exchanges each row through shared memory, with two barriers.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from ferjax.ops.pallas_scan.problem import CHUNK, Problem

CHANNELS = 32
LANES = 4  # that share the states of a channel


@dataclasses.dataclass(frozen=True)
class Grid:
  """How a problem is divided among programs."""

  problem: Problem
  chunks: int  # in each segment

  @classmethod
  def filling(cls, problem: Problem, programs: int, least: int) -> "Grid":
    """Cuts sequences into at least `least` segments, if that many fit into `programs`."""
    whole = cls(problem, problem.chunks)
    segments = min(programs // whole.programs, problem.chunks)
    return cls(problem, pl.cdiv(problem.chunks, segments)) if segments >= least else whole

  @property
  def blocks(self) -> int:
    """Blocks of channels of a sequence."""
    return pl.cdiv(self.problem.channels, CHANNELS)

  @property
  def segments(self) -> int:
    """Segments of a sequence."""
    return pl.cdiv(self.problem.chunks, self.chunks)

  @property
  def groups(self) -> int:
    """Groups of positions in a chunk."""
    return CHUNK // self.problem.steps

  @property
  def programs(self) -> int:
    """One for each block of channels of each segment."""
    return self.problem.sequences * self.segments * self.blocks

  def call(self, kernel, outputs, *inputs):
    return pl.pallas_call(
      functools.partial(kernel, grid=self),
      grid=(self.programs,),
      out_shape=outputs,
      compiler_params=plt.CompilerParams(num_warps=1),
      interpret=self.problem.interpret,
    )(*inputs)

  def array(self, *shape: int, dtype=jnp.float32) -> jax.ShapeDtypeStruct:
    """An output with one slice for each sequence."""
    return jax.ShapeDtypeStruct((self.problem.sequences, *shape), dtype)


class Program:
  """The indices of a program, and its reads and writes.

  A row has the shape [lanes, channels], a tile [lanes, states of a lane, channels].
  """

  def __init__(self, grid: Grid):
    problem = grid.problem
    self.index = pl.program_id(0)
    self.problem = problem
    self.steps = problem.steps
    self.block = self.index % grid.blocks
    self.segment = self.index // grid.blocks % grid.segments
    self.sequence = self.index // (grid.blocks * grid.segments)
    self.first_chunk = self.segment * grid.chunks
    self.chunks = grid.chunks
    if problem.chunks % grid.chunks:
      self.chunks = jnp.minimum(grid.chunks, problem.chunks - self.first_chunk)

    row, states = (LANES, CHANNELS), (LANES, problem.states // LANES)
    self.column = lax.broadcasted_iota(jnp.int32, row, 1)
    self.channel = self.block * CHANNELS + self.column
    self.state = lax.broadcasted_iota(jnp.int32, states, 0) * states[1]
    self.state += lax.broadcasted_iota(jnp.int32, states, 1)
    # The values of a row are the same in all lanes, so one of them writes. Interpreted, the others
    # would write what was there before.
    self.writer = None if problem.interpret else lax.broadcasted_iota(jnp.int32, row, 0) == 0
    self.inside = self.channel < problem.channels if problem.channels % CHANNELS else None

  def exp2(self, x):
    """2^x in one instruction, to 2 units in the last place; 0 below 2^-126."""
    if self.problem.interpret:
      return jnp.exp2(x)
    (y,) = plt.elementwise_inline_asm(
      "ex2.approx.ftz.f32 $0, $1;",
      args=[x],
      constraints="=f,f",
      pack=1,
      result_shape_dtypes=[jax.ShapeDtypeStruct(x.shape, x.dtype)],
    )
    return y

  def barrier(self):
    """Before it, tiles are written; after it, all threads of the program can read them."""
    if not self.problem.interpret:
      plt.debug_barrier()

  def position(self, t):
    """The place of step t in memory; steps outside the sequence are moved inside."""
    t = jnp.clip(t, 0, self.problem.length - 1)
    return self.problem.length - 1 - t if self.problem.reverse else t

  def read_rows(self, refs, t):
    """The row of each array at step t, in the array's dtype; 0 after the last step."""
    mask = self._in_length(t, self.inside)
    place = (self.sequence, self.position(t), self.channel)
    return [_load(ref.at[place], mask) for ref in refs]

  def read_group(self, refs, start):
    """The rows of the steps of a group."""
    return [self.read_rows(refs, start + j) for j in range(self.steps)]

  def read_group_states(self, ref, start):
    """The values of `B` or `C` of the steps of a group."""
    return [self.read_states(ref, start + j) for j in range(self.steps)]

  def scaled(self, u, dt):
    """What `B` is multiplied with."""
    return dt * u if self.problem.dt_scales_input else u

  def write_row(self, ref, t, x):
    mask = _both(self.writer, self._in_length(t, self.inside))
    place = (self.sequence, self.position(t), self.channel)
    plt.store(ref.at[place], x.astype(ref.dtype), mask=mask)

  def read_states(self, ref, t):
    """[lanes, states, 1] of `B` or `C` at step t; not 0 after the last step."""
    return ref[self.sequence, self.position(t), self.state].astype(jnp.float32)[..., None]

  def write_states(self, ref, t, x):
    """Writes this block's share of a sum over the channels."""
    place = (self.block, self.sequence, self.position(t), self.state)
    plt.store(ref.at[place], x, mask=self._in_length(t, None, x.shape))

  def read_channels(self, ref, *index):
    """A row of an array that has no positions."""
    return _load(ref.at[(self.sequence, *index, self.channel)], self.inside)

  def write_channels(self, ref, x, *index):
    mask = _both(self.writer, self.inside)
    plt.store(ref.at[(self.sequence, *index, self.channel)], x, mask=mask)

  def read_tile(self, ref, *index):
    return _load(*self._tile(ref, index))

  def write_tile(self, ref, x, *index):
    ref, mask = self._tile(ref, index)
    plt.store(ref, x, mask=mask)

  def buffer(self, ref, group):
    """The tile of a group in this program's part of the buffer."""
    return ref.at[self.index, group, self.state[..., None], self.column[:, None]]

  def _tile(self, ref, index):
    place = (self.sequence, *index, self.state[..., None], self.channel[:, None])
    if self.inside is None:
      return ref.at[place], None
    return ref.at[place], jnp.broadcast_to(self.inside[:, None], (*self.state.shape, CHANNELS))

  def _in_length(self, t, mask, shape=(LANES, CHANNELS)):
    if self.problem.length % CHUNK == 0:
      return mask
    return _both(mask, jnp.broadcast_to(t < self.problem.length, shape))


def _both(a, b):
  return b if a is None else a if b is None else a & b


def _load(ref, mask):
  return plt.load(ref, mask=mask, other=None if mask is None else 0)


def float32(*rows):
  return [x.astype(jnp.float32) for x in rows]


def sum_of_states(tile):
  """Of the states of a lane, then of all lanes: [lanes, channels]."""
  return jnp.broadcast_to(tile.sum(1).sum(0, keepdims=True), (LANES, CHANNELS))

"""What the kernels of each platform compute."""

import dataclasses
from typing import Any, NamedTuple

# Positions between two states that are kept for the gradient: half as large as `u` for 16 states.
CHUNK = 32


class Arguments(NamedTuple):
  """The scan's inputs, or the gradients for them; s sequences with one leading axis.

  u [s l d] and dt [s l d]; A [s n d]; B [s l n] and C [s l n]; D [s d]; h0 [s n d], the initial
  state. The channels d, the largest axis, are last. A, D and h0 are float32, the others of any
  floating type. Inside `pallas_call`, each is a reference, a shape or a block instead of an array.
  """

  u: Any
  dt: Any
  A: Any
  B: Any
  C: Any
  D: Any
  h0: Any


@dataclasses.dataclass(frozen=True)
class Problem:
  """Sizes and options of one scan.

  Attributes:
    sequences, length, channels: of `Arguments.u`.
    states: for each channel; a power of two, at least 8.
    dt_scales_input: the input is dt * u; otherwise u, whose scale is in B.
    reverse: run from the last position to the first.
    interpret: run the kernel as ordinary JAX operations, on any platform, slowly.
    programs: that a GPU is filled with; see `ferjax.ops.pallas_scan.gpu`. An H100 has 528
      schedulers of warps.
    steps: positions that a GPU processes together; divides `CHUNK`.
  """

  sequences: int
  length: int
  channels: int
  states: int
  dt_scales_input: bool
  reverse: bool
  interpret: bool
  programs: int = 512
  steps: int = 4

  @property
  def chunks(self) -> int:
    """The number of chunks of `CHUNK` positions; the last one may be incomplete."""
    return -(-self.length // CHUNK)

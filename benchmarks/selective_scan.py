"""Time and memory of the scan's implementations, compared in one run.

  python benchmarks/selective_scan.py [--batch 1] [--length 1600] [--channels 256] [--rounds 7]

Prints a Markdown table for `benchmarks/results/`. "plain" is `jax.lax.associative_scan` over the
whole sequence with JAX's own gradient, the baseline of the ratios. The implementations run in turn,
A B A B; times are medians. "cores" is processor time over wall time. Set
`MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=68719476736`, as in `networks.py`: otherwise the baseline
waits for page faults.
"""

import argparse
import functools
import os
import statistics
import time

import jax
import jax.numpy as jnp
from networks import ALLOCATOR, machine

from ferjax.ops.selective_scan import selective_scan

PATHS, STATES = 8, 16


def plain(u, dt, A, B, C):
  """All states at once, differentiated by JAX."""
  a = jnp.exp(dt[..., None] * A[:, None])
  b = (dt * u)[..., None] * B[..., None, :]
  combine = lambda x, y: (x[0] * y[0], y[0] * x[1] + y[1])  # noqa: E731
  states = jax.lax.associative_scan(combine, (a, b), axis=-3)[1]
  return jnp.einsum("...ldn,...ln->...ld", states, C)


def make_inputs(batch: int, length: int, channels: int):
  keys = jax.random.split(jax.random.key(0), 5)
  sequence = (batch, PATHS, length)
  return (
    jax.random.normal(keys[0], (*sequence, channels)),
    jax.nn.softplus(jax.random.normal(keys[1], (*sequence, channels)) - 4),
    -jnp.exp(jax.random.normal(keys[2], (PATHS, channels, STATES))),
    jax.random.normal(keys[3], (*sequence, STATES)),
    jax.random.normal(keys[4], (*sequence, STATES)),
  )


class Program:
  """A compiled function, its temporary memory in MB, and the times of its runs in ms."""

  def __init__(self, function, inputs):
    self._compiled, self._inputs = jax.jit(function).lower(*inputs).compile(), inputs
    self.memory = self._compiled.memory_analysis().temp_size_in_bytes / 1e6
    self.wall, self.processor = [], []
    self.run()
    self.wall, self.processor = [], []

  def run(self) -> None:
    wall, processor = time.perf_counter(), time.process_time()
    jax.block_until_ready(self._compiled(*self._inputs))
    self.wall.append(1e3 * (time.perf_counter() - wall))
    self.processor.append(1e3 * (time.process_time() - processor))

  @property
  def median(self) -> float:
    return statistics.median(self.wall)

  @property
  def cores(self) -> float:
    return sum(self.processor) / sum(self.wall)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--batch", type=int, default=1)
  parser.add_argument("--length", type=int, default=1600)
  parser.add_argument("--channels", type=int, default=256)
  parser.add_argument("--rounds", type=int, default=7)
  parser.add_argument("--chunks", default="8,16,32", help="chunk sizes, separated by commas")
  parser.add_argument("--methods", default="associative,sequential", help="separated by commas")
  arguments = parser.parse_args()
  inputs = make_inputs(arguments.batch, arguments.length, arguments.channels)

  implementations = {"plain associative_scan": plain}
  for method in arguments.methods.split(","):
    for chunk in map(int, arguments.chunks.split(",")):
      implementations[f"{method}, chunks of {chunk}"] = functools.partial(
        selective_scan, method=method, chunk_size=chunk
      )
  programs = {}
  for name, scan in implementations.items():
    gradient = jax.grad(lambda *x, scan=scan: jnp.sum(scan(*x) ** 2), argnums=range(5))
    programs[name] = Program(scan, inputs), Program(gradient, inputs)
  for _ in range(arguments.rounds):
    for pair in programs.values():
      for program in pair:
        program.run()

  settings = " ".join(f"{name}={os.environ.get(name)}" for name in ALLOCATOR)
  print(
    f"{machine()}; {jax.default_backend()}; {settings}; u is {arguments.batch} x {PATHS} x "
    f"{arguments.length} x {arguments.channels}, {STATES} states\n"
  )
  print(
    "| implementation | forward, ms | plain / it | cores | with gradients, ms | plain / it | cores "
    "| temporary memory with gradients, MB |\n" + "| --- " + "| ---: " * 7 + "|"
  )
  baseline = programs["plain associative_scan"]
  for name, pair in programs.items():
    columns = [
      f"{program.median:.1f} | {base.median / program.median:.1f} | {program.cores:.2f}"
      for program, base in zip(pair, baseline, strict=True)
    ]
    print(f"| {name} | {' | '.join(columns)} | {pair[1].memory:.0f} |")


if __name__ == "__main__":
  main()

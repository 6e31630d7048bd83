"""Time and memory of the scan's methods on a GPU or TPU, beside the limit of an H100.

  python benchmarks/scan_accelerator.py [--seconds 90] [--lengths 100 1600] [--batches 1 8]
  python benchmarks/scan_accelerator.py --tune

Prints a Markdown table of `rows`; with `--tune`, one of `tuning`, the options of the GPU kernel.
Shapes are those of a detector: 8 paths, 256 channels, 16 states. A combination that does not fit
into memory has a reason instead of a time.
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

from ferjax.ops.pallas_scan.scan import pallas_scan
from ferjax.ops.selective_scan import selective_scan

PATHS, CHANNELS, STATES = 8, 256, 16
METHODS = ("pallas", "associative", "sequential")
WHAT = ("forward", "gradients")
LENGTHS, BATCHES = (100, 400, 1600, 6400), (1, 8, 32)
# An H100 SXM: bytes/s of its memory; exponentials/s of 132 multiprocessors, 16 in each cycle.
MEMORY_RATE, EXP_RATE = 3.35e12, 132 * 16 * 1.755e9
REPEATS = 20


@dataclasses.dataclass(frozen=True)
class Row:
  """One measurement; times in ms, memory in MB. `problem` says why there is none."""

  batch: int
  length: int
  method: str
  what: str
  time: float | None
  memory: float | None
  limit: float
  problem: str = ""


def make_inputs(batch: int, length: int) -> tuple[jax.Array, ...]:
  """u, dt, A, B, C, D; step sizes and decay rates as at the start of training."""
  keys = jax.random.split(jax.random.key(0), 4)
  sequence = (batch, PATHS, length)
  return (
    jax.random.normal(keys[0], (*sequence, CHANNELS)),
    jax.nn.softplus(jax.random.normal(keys[1], (*sequence, CHANNELS)) - 4),
    -jnp.broadcast_to(jnp.arange(1.0, STATES + 1), (PATHS, CHANNELS, STATES)),
    jax.random.normal(keys[2], (*sequence, STATES)),
    jax.random.normal(keys[3], (*sequence, STATES)),
    jnp.ones((PATHS, CHANNELS)),
  )


def limit(batch: int, length: int, what: str) -> float:
  """The larger of the times of an H100 for the bytes and for the exponentials, in ms.

  Forward: u, dt, B and C are read and y is written once; one exponential for each state. With
  gradients: these are read again with dy, the gradients are written, and the states are computed
  once more.
  """
  positions = batch * PATHS * length
  row, states = 4 * CHANNELS, 4 * STATES
  moved = positions * (3 * row + 2 * states)
  exponentials = positions * CHANNELS * STATES
  if what == "gradients":
    moved += positions * (5 * row + 4 * states)
    exponentials *= 2
  return 1e3 * max(moved / MEMORY_RATE, exponentials / EXP_RATE)


def rows(
  lengths: Sequence[int] = LENGTHS,
  batches: Sequence[int] = BATCHES,
  methods: Sequence[str] = METHODS,
  seconds: float = 90.0,
) -> Iterator[Row]:
  """Measures each combination, the smallest first; after `seconds`, none is started.

  "sequential" is measured only at the smallest size: on a GPU, each position costs several kernel
  launches.
  """
  end = time.monotonic() + seconds
  sizes = sorted(((b, length) for b in batches for length in lengths), key=lambda x: x[0] * x[1])
  for batch, length in sizes:
    chosen = [
      (method, what)
      for method in methods
      if method != "sequential" or (batch, length) == sizes[0]
      for what in WHAT
    ]
    started = time.monotonic() < end
    inputs = make_inputs(batch, length) if started else ()
    # Compiled at the same time, then measured one after the other.
    with concurrent.futures.ThreadPoolExecutor(len(chosen)) as pool:
      compiling = [pool.submit(_compile, *each, inputs) for each in chosen] if started else []
      concurrent.futures.wait(compiling)
      for i, (method, what) in enumerate(chosen):
        row = functools.partial(Row, batch, length, method, what, limit=limit(batch, length, what))
        if not started:
          yield row(time=None, memory=None, problem=f"not started within {seconds:.0f} s")
          continue
        try:
          taken, memory = _measure(compiling[i].result(), inputs)
        except (jax.errors.JaxRuntimeError, ValueError) as error:
          yield row(time=None, memory=None, problem=_reason(error))
        else:
          yield row(time=taken, memory=memory)


def _compile(method: str, what: str, inputs) -> jax.stages.Compiled:
  scan = functools.partial(selective_scan, method=method)
  return jax.jit(_with(scan, what)).lower(*inputs).compile()


def tuning(
  batches: Sequence[int] = (1, 8), length: int = 1600, seconds: float = 60.0
) -> Iterator[tuple[int, int, int, float, float]]:
  """(batch, programs, steps, ms forward, ms of the gradient) for options of `Problem`."""
  end = time.monotonic() + seconds
  for batch in batches:
    u, dt, A, B, C, D = make_inputs(batch, length)
    A, D = (jnp.broadcast_to(x, (batch, *x.shape)) for x in (A, D))
    for programs in (1, 512, 1024, 2048):
      for steps in (2, 4, 8):
        if time.monotonic() > end:
          return
        options = {"programs": programs, "steps": steps, "reverse": False}

        def scan(*inputs, options=options):
          return pallas_scan(*inputs, None, jnp.zeros_like(inputs[2]), **options)[0]

        inputs = (u, dt, A, B, C, D)
        compiled = (jax.jit(_with(scan, what)).lower(*inputs).compile() for what in WHAT)
        times = [_measure(program, inputs)[0] for program in compiled]
        yield batch, programs, steps, times[0], times[1]


def _with(scan, what: str):
  """The scan, or the gradient of a loss on its output."""
  if what == "forward":
    return scan
  return jax.grad(lambda *x: jnp.sum(scan(*x) ** 2), argnums=range(6))


def _measure(program: jax.stages.Compiled, inputs) -> tuple[float, float]:
  """The best time of one run among several series, in ms, and temporary memory in MB.

  A series is enqueued as a whole, so that the time of a launch counts only where it is the limit.
  """
  jax.block_until_ready(program(*inputs))
  times = []
  for _ in range(3):
    start = time.perf_counter()
    results = None
    for _ in range(REPEATS):
      results = program(*inputs)
    jax.block_until_ready(results)
    times.append((time.perf_counter() - start) / REPEATS)
  memory = program.memory_analysis()
  return 1e3 * min(times), memory.temp_size_in_bytes / 1e6


def _reason(error: Exception) -> str:
  if "RESOURCE_EXHAUSTED" in str(error):
    return "out of memory"
  return str(error).splitlines()[0][:120]


def table(measured: Sequence[Row]) -> str:
  """Markdown; "of associative" is the ratio of times in the same run."""
  base = {
    (x.batch, x.length, x.what): x.time for x in measured if x.method == "associative" and x.time
  }
  lines = [
    "| batch | length | what | method | time, ms | limit of an H100, ms | times the limit | "
    "times faster than associative | temporary memory, MB |",
    "| ---: | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: |",
  ]
  for x in measured:
    start = f"| {x.batch} | {x.length} | {x.what} | {x.method} |"
    if x.time is None:
      lines.append(f"{start} {x.problem} | {x.limit:.3f} | | | |")
      continue
    other = base.get((x.batch, x.length, x.what))
    faster = f"{other / x.time:.1f}" if other else ""
    lines.append(
      f"{start} {x.time:.3f} | {x.limit:.3f} | {x.time / x.limit:.1f} | {faster} | {x.memory:.0f} |"
    )
  return "\n".join(lines)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
  parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
  parser.add_argument("--methods", nargs="+", default=METHODS)
  parser.add_argument("--seconds", type=float, default=90.0)
  parser.add_argument("--tune", action="store_true", help="options of the GPU kernel")
  arguments = parser.parse_args()
  print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}\n")
  if arguments.tune:
    print("| batch | programs | steps | forward, ms | gradients, ms |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for batch, programs, steps, forward, gradients in tuning(seconds=arguments.seconds):
      print(f"| {batch} | {programs} | {steps} | {forward:.3f} | {gradients:.3f} |", flush=True)
    return
  measured = list(rows(arguments.lengths, arguments.batches, arguments.methods, arguments.seconds))
  print(table(measured))


if __name__ == "__main__":
  main()

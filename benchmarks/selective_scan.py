"""Time and memory of the scan's implementations, compared in one run.

  python benchmarks/selective_scan.py [--batch 1] [--length 1600] [--channels 256]

Prints a Markdown table for `benchmarks/results/`. "plain" is `jax.lax.associative_scan` over the
whole sequence with JAX's own gradient. It is the baseline for the chunks and the custom gradient.
"""

import argparse
import datetime
import functools
import platform
import time

import jax
import jax.numpy as jnp

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


def measure(function, inputs, repeats: int) -> tuple[float, float]:
  """The best time in ms, and temporary memory in MB."""
  program = jax.jit(function).lower(*inputs).compile()
  jax.block_until_ready(program(*inputs))
  times = []
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(program(*inputs))
    times.append(time.perf_counter() - start)
  return 1e3 * min(times), program.memory_analysis().temp_size_in_bytes / 1e6


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--batch", type=int, default=1)
  parser.add_argument("--length", type=int, default=1600)
  parser.add_argument("--channels", type=int, default=256)
  parser.add_argument("--repeats", type=int, default=5)
  arguments = parser.parse_args()
  inputs = make_inputs(arguments.batch, arguments.length, arguments.channels)

  implementations = {"plain associative_scan": plain}
  for method in ("associative", "sequential"):
    for chunk in (16, 32, 64):
      implementations[f"{method}, chunks of {chunk}"] = functools.partial(
        selective_scan, method=method, chunk_size=chunk
      )
  print(
    f"{datetime.date.today()}, jax {jax.__version__}, {jax.default_backend()} "
    f"({jax.devices()[0].device_kind}, {platform.machine()}); "
    f"u is {arguments.batch} x {PATHS} x {arguments.length} x {arguments.channels}, "
    f"{STATES} states\n"
  )
  print(
    "| implementation | forward, ms | with gradients, ms | temporary memory with gradients, MB |"
  )
  print("| --- | ---: | ---: | ---: |")
  for name, scan in implementations.items():
    gradient = jax.grad(lambda *x, scan=scan: jnp.sum(scan(*x) ** 2), argnums=range(5))
    forward, _ = measure(scan, inputs, arguments.repeats)
    both, memory = measure(gradient, inputs, arguments.repeats)
    print(f"| {name} | {forward:.0f} | {both:.0f} | {memory:.0f} |", flush=True)


if __name__ == "__main__":
  main()

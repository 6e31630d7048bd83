"""Memory, operations and time of a training step with and without rematerialisation.

  python benchmarks/remat.py emonext:xlarge fer_yolo_mamba:x [--batch 8] [--dtype float32]
  python benchmarks/remat.py emonext:tiny fer_yolo_mamba:s --batch 4 --run 5

Prints a Markdown table for `benchmarks/results/`. The step is compiled on this machine for shapes
alone: nothing is allocated and nothing runs. Memory and FLOPs are the compiler's own analyses. By
default, the step is the one of accelerators: `as_on_accelerators` replaces what ferjax computes
otherwise on CPUs. `--cpu` leaves the programs of CPUs. With `--run`, the steps run instead, on
this machine's device: in turn, so many times each after one that does not count.
"""

import argparse
import contextlib
import math
import statistics
import time
from collections.abc import Iterator
from unittest import mock

import jax
from jax.extend.core import Jaxpr, jaxprs_in_params
from programs import abstract_step, step

from ferjax.models.remat import REMAT

# The same HLO and buffers, but less time to generate machine code that never runs.
OPTIONS = {
  "xla_backend_optimization_level": 0,
  "xla_llvm_disable_expensive_passes": True,
  "xla_disable_hlo_passes": "cse_barrier_expander",
}


@contextlib.contextmanager
def as_on_accelerators() -> Iterator[None]:
  """Traces what ferjax computes on accelerators: no chunks, grouped convolutions, their scan."""

  def default(*arrays, default, **_):
    return default(*arrays)

  with (
    mock.patch.object(jax.lax, "platform_dependent", default),
    mock.patch.object(jax, "default_backend", return_value="gpu"),
  ):
    yield


def products(jaxpr: Jaxpr) -> int:
  """FLOPs of the matrix products and convolutions of a program, two for each multiply-add.

  Not XLA's count: it counts the gradient of a depthwise convolution like that of a dense one.
  """
  needed, total = {id(x) for x in jaxpr.outvars}, 0
  for equation in reversed(jaxpr.eqns):
    if needed.isdisjoint(map(id, equation.outvars)):
      continue
    needed.update(map(id, equation.invars))
    outputs, name = math.prod(equation.outvars[0].aval.shape), equation.primitive.name
    if name == "dot_general":
      shape, ((contracted, _), _) = (
        equation.invars[0].aval.shape,
        equation.params["dimension_numbers"],
      )
      total += 2 * outputs * math.prod(shape[axis] for axis in contracted)
    elif name == "conv_general_dilated":
      shape = equation.invars[1].aval.shape
      features = shape[equation.params["dimension_numbers"].rhs_spec[0]]
      total += 2 * outputs * math.prod(shape) // features
    else:
      times = equation.params["length"] if name == "scan" else 1
      total += times * sum(map(products, jaxprs_in_params(equation.params)))
  return total


def measure(network: str, size: str, batch_size: int, dtype: str, remat: str, *, cpu: bool) -> dict:
  """Bytes and FLOPs of a step on one device, and the seconds that compiling took."""
  with contextlib.nullcontext() if cpu else as_on_accelerators():
    traced, state = abstract_step(network, batch_size, dtype, size=size, remat=remat)
    lowered = traced.lower()
  start = time.perf_counter()
  compiled = lowered.compile(OPTIONS)
  seconds = time.perf_counter() - start
  memory = compiled.memory_analysis()
  return {
    "state": sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)),
    "temporary": memory.temp_size_in_bytes,
    "flops": products(traced.jaxpr.jaxpr),
    "seconds": seconds,
  }


def durations(network: str, size: str, batch_size: int, dtype: str, rounds: int) -> dict:
  """Seconds of each of `rounds` steps, by the kind of rematerialisation."""
  programs = {remat: step(network, batch_size, dtype, size=size, remat=remat) for remat in REMAT}
  seconds: dict[str, list[float]] = {remat: [] for remat in REMAT}
  for program in programs.values():
    program.run()
  for _ in range(rounds):
    for remat, program in programs.items():
      start = time.perf_counter()
      program.run()
      seconds[remat].append(time.perf_counter() - start)
  return seconds


def show_durations(arguments: argparse.Namespace) -> None:
  """Prints the table of durations."""
  print("| network | batch | remat | median of a step, s | shortest, longest | ratios to none |")
  print("| --- | ---: | --- | ---: | ---: | ---: |", flush=True)
  for name in arguments.networks:
    network, _, size = name.partition(":")
    found = durations(network, size, arguments.batch, arguments.dtype, arguments.run)
    for remat, own in found.items():
      ratios = [a / b for a, b in zip(own, found["none"], strict=True)]
      print(
        f"| {name} | {arguments.batch} | {remat} | {statistics.median(own):.2f} | "
        f"{min(own):.2f}, {max(own):.2f} | {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}) |",
        flush=True,
      )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("networks", nargs="+", metavar="NETWORK:SIZE")
  parser.add_argument("--batch", type=int, default=8)
  parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
  parser.add_argument("--cpu", action="store_true", help="the programs of CPUs")
  parser.add_argument("--run", type=int, default=0, metavar="N", help="time N steps of each")
  arguments = parser.parse_args()
  if arguments.run:
    show_durations(arguments)
    return
  print("| network | batch | remat | state, MB | temporary, MB | TFLOP | compiled in s |")
  print("| --- | ---: | --- | ---: | ---: | ---: | ---: |", flush=True)
  for name in arguments.networks:
    network, _, size = name.partition(":")
    for remat in REMAT:
      found = measure(network, size, arguments.batch, arguments.dtype, remat, cpu=arguments.cpu)
      print(
        f"| {name} | {arguments.batch} | {remat} | {found['state'] / 1e6:,.0f} | "
        f"{found['temporary'] / 1e6:,.0f} | {found['flops'] / 1e12:.3f} | {found['seconds']:.0f} |",
        flush=True,
      )


if __name__ == "__main__":
  main()

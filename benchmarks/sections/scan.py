"""The selective scan's methods: time and memory, beside the least time that the device allows."""

import concurrent.futures
import functools
import statistics
import time

import devices
import jax
import selective_scan as inputs
from report import Section

from ferjax.ops.selective_scan import METHODS, selective_scan

CHANNELS = 256
# (length, batch), in order of importance.
SHAPES = (
  (1600, 8), (1600, 1), (400, 8), (100, 8), (400, 1), (100, 1), (6400, 1), (1600, 32), (6400, 8),
  (400, 32), (100, 32), (6400, 32),
)  # fmt: skip
SEQUENTIAL = ((400, 1), (100, 1))  # shapes at which "sequential" does not take too long
RUNS, WARM_UP = 9, 2


def run(section: Section) -> None:
  methods = [name for name in METHODS if name != "auto"]
  longest = 0.0
  for length, batch in ((100, 1),) if section.tiny else SHAPES:
    if section.seconds_left() < longest:
      section.note(f"length {length} with batch {batch} was not reached")
      continue
    start = time.monotonic()
    arguments = inputs.make_inputs(batch, length, 32 if section.tiny else CHANNELS)
    chosen = [x for x in methods if x != "sequential" or (length, batch) in SEQUENTIAL]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
      futures = {
        (method, name): pool.submit(_compiled, method, gradients, arguments)
        for method in chosen
        for name, gradients in (("forward", False), ("with gradients", True))
      }
      for (method, name), future in futures.items():
        label = {"length": length, "batch": batch, "method": method, "program": name}
        measure = functools.partial(_measured, future, arguments, name != "forward")
        section.attempt(label, measure)
    longest = time.monotonic() - start


def _compiled(method: str, gradients: bool, arguments):
  scan = functools.partial(selective_scan, method=method)
  if not gradients:
    return jax.jit(scan).lower(*arguments).compile()

  def both(*arguments):
    y, pull = jax.vjp(scan, *arguments)
    return y, pull(y)

  return jax.jit(both).lower(*arguments).compile()


def _measured(future, arguments, gradients: bool) -> dict:
  program = future.result()
  times = []
  for _ in range(WARM_UP + RUNS):
    start = time.perf_counter()
    jax.block_until_ready(program(*arguments))
    times.append(time.perf_counter() - start)
  milliseconds = 1e3 * statistics.median(times[WARM_UP:])
  row = {
    "ms": milliseconds,
    "temporary memory, MB": program.memory_analysis().temp_size_in_bytes / 1e6,
  }
  device = devices.find(jax.devices()[0].device_kind)
  if device:
    limit = least_milliseconds(arguments, device, gradients=gradients)
    row |= {"limit, ms": limit, "times the limit": milliseconds / limit}
  return row


def least_milliseconds(arguments, device: devices.Device, *, gradients: bool) -> float:
  """The longer of memory traffic and exponentials.

  Forward, u and dt are read and y is written. The gradient reads u, dt and the cotangent of y and
  writes two gradients, and computes every exponential again; B and C, likewise, are far smaller.
  """
  u, _, A, B, _ = arguments
  exponentials = u.size * A.shape[-1] * (2 if gradients else 1)
  moved = u.nbytes * (8 if gradients else 3) + B.nbytes * (6 if gradients else 2)
  return 1e3 * max(moved / device.bandwidth, exponentials / device.exponentials)

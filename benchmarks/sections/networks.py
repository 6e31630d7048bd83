"""Images per second and memory of a training step of each network.

Programs are compiled in waves, several at a time; the time is measured after a wave is compiled.
"""

import concurrent.futures
import functools
import statistics
import time

import devices
import jax
import programs
from report import Section

from ferjax.models import create_model
from ferjax.models.cost import cost_by_part, total_cost

# In order of importance: what comes late may not be reached.
BATCHES = (64, 256, 128, 32)
DTYPES = ("bfloat16", "float32")
RUNS, WARM_UP = 7, 2
TINY = {"emonext": ("atto", 32), "fermam": ("nano", 64), "fer_yolo_mamba": ("nano", 64)}


def run(section: Section) -> None:
  spent = 0.0
  for batch_size in (2,) if section.tiny else BATCHES:
    if section.seconds_left() < spent:
      section.note(f"batches of {batch_size} were not reached")
      continue
    start = time.monotonic()
    _wave(section, batch_size)
    spent = time.monotonic() - start


def _wave(section: Section, batch_size: int) -> None:
  """Compiles the programs of one batch size at the same time, then measures one by one."""
  labels = [(network, dtype) for dtype in DTYPES for network in programs.IMAGE_SIZES]
  with concurrent.futures.ThreadPoolExecutor(1 if section.tiny else 3) as pool:
    futures = {label: pool.submit(_compiled, *label, batch_size, section.tiny) for label in labels}
    for network, dtype in labels:
      label = {"network": network, "dtype": dtype, "batch": batch_size}
      measure = functools.partial(_measured, futures.pop((network, dtype)), network, dtype,
                                  batch_size, section.tiny)  # fmt: skip
      section.attempt(label, measure)


def _compiled(network: str, dtype: str, batch_size: int, tiny: bool):
  start = time.perf_counter()
  size, image_size = TINY[network] if tiny else (None, None)
  program = programs.step(network, batch_size, dtype, size=size, image_size=image_size)
  return program, time.perf_counter() - start


def _measured(future, network: str, dtype: str, batch_size: int, tiny: bool) -> dict:
  program, compile_seconds = future.result()
  seconds = _times(program.run)
  memory = program.compiled.memory_analysis()
  row = {
    "images/s": batch_size / seconds,
    "ms": 1e3 * seconds,
    "temporary memory, MB": memory.temp_size_in_bytes / 1e6,
    "state and batch, MB": memory.argument_size_in_bytes / 1e6,
    "compilation, s": compile_seconds,
  }
  device = devices.find(jax.devices()[0].device_kind)
  if device:
    used = _flops(network, tiny) * batch_size / seconds
    row["products, % of peak"] = 100 * used / device.peak(dtype)
  return row


def _times(run) -> float:
  """The median time of a run, in seconds."""
  times = []
  for _ in range(WARM_UP + RUNS):
    start = time.perf_counter()
    run()
    times.append(time.perf_counter() - start)
  return statistics.median(times[WARM_UP:])


@functools.cache
def _flops(network: str, tiny: bool) -> int:
  """Floating-point operations of the products of one image's step, three times its inference's."""
  size, side = TINY[network] if tiny else (None, programs.IMAGE_SIZES[network])
  model = create_model(network, num_classes=7, size=size)
  return 6 * total_cost(cost_by_part(model, (1, side, side, 3))).multiply_adds

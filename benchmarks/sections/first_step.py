"""Seconds from the start of a process to the end of its first training step.

Each in a process of its own: with an empty cache of compiled programs, then with the programs of
the first process.
"""

import functools
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from report import Section

BATCH = 32
TINY = {"emonext": ("atto", 32), "fermam": ("nano", 64), "fer_yolo_mamba": ("nano", 64)}
PROGRAM = """
import sys
sys.path[:0] = {path!r}
from ferjax.compilation_cache import enable_compilation_cache
enable_compilation_cache()
import programs
programs.step({network!r}, {batch}, {dtype!r}, size={size!r}, image_size={image_size!r}).run()
"""


def run(section: Section) -> None:
  longest = 0.0
  for network in TINY:
    with tempfile.TemporaryDirectory() as cache:
      for state in ("empty", "warm"):
        label = {"network": network, "batch": 2 if section.tiny else BATCH, "cache": state}
        if section.seconds_left() < longest:
          section.note(f"{network} with the cache {state} was not reached")
          continue
        start = time.monotonic()
        section.attempt(label, functools.partial(_measured, network, cache, section.tiny))
        longest = time.monotonic() - start


def _measured(network: str, cache: str, tiny: bool) -> dict:
  size, image_size = TINY[network] if tiny else (None, None)
  program = PROGRAM.format(
    path=[str(pathlib.Path(__file__).parents[1])],
    network=network,
    batch=2 if tiny else BATCH,
    dtype="bfloat16",
    size=size,
    image_size=image_size,
  )
  start = time.perf_counter()
  done = subprocess.run(
    [sys.executable, "-c", program],
    env=os.environ | {"FERJAX_COMPILATION_CACHE": cache},
    capture_output=True,
    text=True,
    check=False,
  )
  if done.returncode:
    raise RuntimeError(done.stderr[-500:])
  return {"s": time.perf_counter() - start}

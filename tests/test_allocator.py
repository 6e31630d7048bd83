"""Freed memory is used again without new page faults."""

import os
import platform
import subprocess
import sys

import pytest

_PROGRAM = """
import resource, threading
import numpy as np
from ferjax.allocator import keep_freed_memory

def allocate():
  np.ones(4_000_000)  # 32 MB

def faults():
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  thread = threading.Thread(target=allocate)
  thread.start()
  thread.join()
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

applies = keep_freed_memory()
faults()
print(applies, faults())
"""


def _run(**variables):
  environment = {k: v for k, v in os.environ.items() if "MALLOC_" not in k and "GLIBC" not in k}
  output = subprocess.run(
    [sys.executable, "-c", _PROGRAM],
    env=environment | variables,
    capture_output=True,
    text=True,
    check=True,
  ).stdout
  applies, faults = output.split()
  return applies == "True", int(faults)


def test_memory_freed_by_a_thread_is_used_again():
  applies, faults = _run()
  if platform.libc_ver()[0] != "glibc":
    assert not applies
    return
  assert applies
  assert faults < 1000  # of some 7,800 pages of 4 KiB


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_own_settings_take_precedence(name):
  value = "2" if name == "MALLOC_ARENA_MAX" else "glibc.malloc.arena_max=2"
  applies, _ = _run(**{name: value})
  assert not applies

"""How the C library's allocator treats the memory that a program frees."""

import ctypes
import os

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_MAX_INT = 2**31 - 1


def keep_freed_memory() -> bool:
  """Keeps freed memory for later allocations, instead of giving it back to the system.

  On CPUs, XLA allocates the temporary memory of a program anew for every call. By default, glibc
  then maps and unmaps it each time, and the system clears every page at its first use: this took a
  quarter of the time of a detector's training step. The memory of all threads comes from one arena,
  as glibc unmaps the others whenever they are empty.

  Call this at the start of a program, before it starts threads. Environment variables that set
  glibc's allocator (MALLOC_ARENA_MAX and others, GLIBC_TUNABLES) take precedence.

  Returns:
    Whether the setting applies: not for other C libraries, nor if the environment has its own.
  """
  if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
    return False
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (AttributeError, OSError, TypeError):
    return False
  return all(
    mallopt(parameter, value)
    for parameter, value in ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _MAX_INT))
  )

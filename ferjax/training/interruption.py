"""Stopping between two steps instead of in the middle of one."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils


@contextlib.contextmanager
def catch_interruption() -> Iterator[threading.Event]:
  """Yields an event that the first SIGTERM or SIGINT sets; a second one acts as usual.

  Batch systems announce the end of a machine by SIGTERM, and users by Ctrl-C.
  """
  event = threading.Event()
  if threading.current_thread() is not threading.main_thread():
    yield event  # Python delivers signals to the main thread alone.
    return
  usual = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

  def restore():
    for number, handler in usual.items():
      signal.signal(number, handler)

  def handle(*_):
    event.set()
    restore()

  for number in usual:
    signal.signal(number, handle)
  try:
    yield event
  finally:
    restore()


def on_any_host(interrupted: bool) -> bool:
  """Whether any host was interrupted; of several, each must call this after the same step.

  Hosts that stopped after different steps would wait for each other for ever.
  """
  if jax.process_count() == 1:
    return interrupted
  return bool(np.any(multihost_utils.process_allgather(np.asarray(interrupted))))

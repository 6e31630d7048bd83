"""Stops between two steps instead of within one."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils


class Interruption:
  """A request to stop, which all hosts of a run follow after the same step."""

  def __init__(self):
    self._requested = threading.Event()
    self._agreed = False

  def request(self) -> None:
    """Asks to stop, from a signal handler for example."""
    self._requested.set()

  def agreed(self, *, hosts_meet: bool) -> bool:
    """Whether to stop now; once it is True it stays so.

    Args:
      hosts_meet: whether hosts ask each other now, as each must after the same step: hosts that
        stopped after different steps would wait for each other for ever. One host alone need not.
    """
    if not self._agreed and (hosts_meet or jax.process_count() == 1):
      self._agreed = on_any_host(self._requested.is_set())
    return self._agreed


@contextlib.contextmanager
def catch_interruption() -> Iterator[Interruption]:
  """Yields what the first SIGTERM or SIGINT requests; a second one has its default effect.

  Batch systems send SIGTERM before they stop a job, and users press Ctrl-C.
  """
  interruption = Interruption()
  if threading.current_thread() is not threading.main_thread():
    yield interruption  # Python delivers signals to the main thread only.
    return
  usual = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

  def restore():
    for number, handler in usual.items():
      signal.signal(number, handler)

  def handle(*_):
    interruption.request()
    restore()

  for number in usual:
    signal.signal(number, handle)
  try:
    yield interruption
  finally:
    restore()


def on_any_host(interrupted: bool) -> bool:
  """Whether any host was interrupted; all hosts must call this after the same step."""
  if jax.process_count() == 1:
    return interrupted
  return bool(np.any(multihost_utils.process_allgather(np.asarray(interrupted))))

"""Stopping a run between two steps, after a signal."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax

from ferjax.hosts import any_host


class Interruption:
  """A request to stop; all hosts of a run stop after the same step."""

  def __init__(self):
    self._requested = threading.Event()
    self._stopping = False

  def request(self) -> None:
    """Requests a stop, for example from a signal handler."""
    self._requested.set()

  def should_stop(self, *, sync_hosts: bool) -> bool:
    """Whether to stop now; stays True once it is True.

    Args:
      sync_hosts: whether the hosts exchange their requests now. All must do so after the same
        steps: hosts that stop after different steps wait for each other for ever. A single
        host needs no exchange.
    """
    if not self._stopping and (sync_hosts or jax.process_count() == 1):
      self._stopping = any_host(self._requested.is_set())
    return self._stopping


@contextlib.contextmanager
def catch_interruption() -> Iterator[Interruption]:
  """Yields an `Interruption` that the first SIGTERM or SIGINT requests; the second acts as usual.

  Batch systems send SIGTERM before they stop a job, and users press Ctrl-C.
  """
  interruption = Interruption()
  if threading.current_thread() is not threading.main_thread():
    yield interruption  # Python delivers signals only to the main thread.
    return
  previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

  def restore():
    for number, handler in previous.items():
      signal.signal(number, handler)

  def handle(*_):
    interruption.request()
    restore()

  for number in previous:
    signal.signal(number, handle)
  try:
    yield interruption
  finally:
    restore()

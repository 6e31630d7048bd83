"""Stopping between two steps instead of in the middle of one."""

import contextlib
import signal
import threading
from collections.abc import Iterator


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

"""Files for TensorBoard, written at once: an error is raised where it happens."""

import os
import pathlib
import secrets
import time
from collections.abc import Mapping
from typing import Any

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2

# The module is made by the compiler of protocol buffers, without types.
Event: Any = getattr(event_pb2, "Event")  # noqa: B009
SessionLog: Any = getattr(event_pb2, "SessionLog")  # noqa: B009


class EventFile:
  """A new event file in a folder.

  `tensorboardX.SummaryWriter` writes in a thread, and waits for ever for a thread that an error has
  ended, such as that of a full disk.

  Args:
    folder: created if missing.
    first_step: TensorBoard hides what older files have from this step on; 0: nothing.
  """

  def __init__(self, folder: pathlib.Path, *, first_step: int):
    folder.mkdir(parents=True, exist_ok=True)
    # Names have the time in seconds, which a second file may share, above all if the clock is set.
    self._writer = EventsWriter(os.fspath(folder / "events"), f".{secrets.token_hex(4)}")
    if first_step:
      start = SessionLog(status=SessionLog.START)
      self._add(Event(step=first_step, file_version="brain.Event:2"))
      self._add(Event(step=first_step, session_log=start))
    self._writer.flush()

  def write(self, step: int, metrics: Mapping[str, float], texts: Mapping[str, str]) -> None:
    """Adds numbers and texts of a step."""
    for name, value in metrics.items():
      self._add(Event(step=step, summary=summary.scalar(name, value)))
    for name, text in texts.items():
      self._add(Event(step=step, summary=summary.text(name, text)))
    self._writer.flush()

  def close(self) -> None:
    self._writer.close()

  def _add(self, event: Event) -> None:
    event.wall_time = time.time()
    self._writer.write_event(event)

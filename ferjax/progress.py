"""Progress of everything that lasts: a bar on a terminal, a line a minute in a log file."""

import datetime
import os
import sys
import threading
import time
from typing import Any, ClassVar

INTERVAL = 60.0  # seconds between lines
DISABLED = "TQDM_DISABLE"  # not empty in the environment: neither bars nor lines
_REFRESH = 1.0  # seconds; of the time next to a bar that nobody advances


class Progress:
  """Shows how much is done, how fast, and how long the rest will take, on stderr.

  The rate is the mean since the first update, before which programs are compiled.

  A thread prints the lines, so one appears every minute even while nothing is finished, such as
  during a compilation. Of several that are open, only the last one prints lines.

  Args:
    total: how much there is to do; None if unknown.
    unit: what is counted, in the singular; "" if nothing is, and only the time is shown.
    task: what is done, before the numbers.
    done: how much was done before.
    show: False shows nothing, not even `line`.
    keep: whether a bar stays on the terminal when it is closed.
    interval: seconds between lines.
  """

  _open: ClassVar[list["Progress"]] = []

  def __init__(
    self,
    total: int | None,
    unit: str = "",
    *,
    task: str = "",
    done: int = 0,
    show: bool = True,
    keep: bool = True,
    interval: float = INTERVAL,
  ):
    self._total, self._unit, self._task = total, unit, task
    self._done = done
    self._note, self._show, self._lines = "", show, 0
    self._start = time.monotonic()
    self._since: tuple[float, int] | None = None  # time of the first update, and what was done
    self._bar, self._thread, self._closing = None, None, threading.Event()
    if not show or os.environ.get(DISABLED):
      return
    if sys.stderr.isatty():
      self._bar = self._new_bar(keep)
    if self._bar is None or not unit:
      seconds = interval if self._bar is None else _REFRESH
      self._thread = threading.Thread(target=self._repeat, args=(seconds,), daemon=True)
      self._open.append(self)
      self._thread.start()

  def __enter__(self) -> "Progress":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def update(self, number: int = 1) -> None:
    """Counts what has been finished."""
    self._done += number
    if self._since is None:
      self._since = (time.monotonic(), self._done)
    if self._bar is not None:
      self._bar.update(number)

  def note(self, text: str) -> None:
    """Sets the text after the numbers, such as the latest metrics."""
    self._note = text
    if self._bar is not None:
      self._bar.set_postfix_str(text, refresh=False)

  def line(self, text: str) -> None:
    """Prints a line that stays."""
    if not self._show:
      return
    from tqdm import tqdm  # prints above the bars

    tqdm.write(text, file=sys.stderr)

  def close(self) -> None:
    """Ends the lines, with a last one if there were any, or the bar."""
    if self._thread is not None:
      self._closing.set()
      self._thread.join()
      self._open.remove(self)
      self._thread = None
      if self._lines:
        self.line(self._described(closed=True))
    if self._bar is not None:
      self._bar.close()

  def _new_bar(self, keep: bool) -> Any:
    from tqdm import tqdm  # imported here: `ferjax --help` needs none

    return tqdm(
      total=self._total,
      initial=self._done,
      desc=self._task or None,
      unit=self._unit,
      dynamic_ncols=True,
      leave=keep and bool(self._unit),
      bar_format=None if self._unit else "{desc}: {elapsed}",
      disable=False,
    )

  def _repeat(self, seconds: float) -> None:
    while not self._closing.wait(seconds):
      if self._bar is not None:
        self._bar.refresh()
      elif self._open[-1] is self:
        self._lines += 1
        self.line(self._described())

  def _described(self, *, closed: bool = False) -> str:
    """The line at this moment."""
    now = time.monotonic()
    start, first = self._since or (now, self._done)
    count = f"{self._done:,}" if self._total is None else f"{self._done:,}/{self._total:,}"
    parts = [f"{count} {_plural(self._unit)}"] if self._unit else []
    rate = (self._done - first) / (now - start) if now > start else 0.0
    if rate > 0:
      parts.append(_rate(rate, self._unit))
    if closed:
      parts.append(f"took {duration(now - self._start)}")
    elif rate > 0 and self._total is not None:
      parts.append(f"{duration(max(self._total - self._done, 0) / rate)} left")
    else:
      parts.append(f"{duration(now - self._start)} so far")
    text = f"{self._task}: {', '.join(parts)}" if self._task else ", ".join(parts)
    return f"{text}: {self._note}" if self._note else text


def duration(seconds: int | float) -> str:
  """Hours, minutes and seconds: "0:01:30"."""
  return str(datetime.timedelta(seconds=round(seconds)))


def _rate(per_second: float, unit: str) -> str:
  if per_second >= 1:
    return f"{per_second:.1f} {_plural(unit)}/s"
  return f"{1 / per_second:.1f} s/{unit}"


def _plural(unit: str) -> str:
  return f"{unit}es" if unit.endswith("ch") else f"{unit}s"

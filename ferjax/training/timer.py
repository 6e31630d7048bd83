"""How long training takes, without what comes between."""

import time


class Timer:
  """Times training steps. It is saved with a run, so that its seconds are those of all its parts.

  Steps are timed from one look at the clock to the next, for they are only queued when they return.
  The first step after a pause is not timed: it may compile.
  """

  def __init__(self, seconds: float = 0.0):
    self._seconds = seconds
    self._start: float | None = None
    self._examples = 0

  @property
  def seconds(self) -> float:
    """Of the timed steps."""
    return self._seconds

  def add_step(self, examples: int) -> None:
    """Counts a step of so many examples."""
    if self._start is None:
      self._start = time.perf_counter()
    else:
      self._examples += examples

  def lap(self) -> float | None:
    """Examples per second since the last lap or pause; None where no step was timed.

    The device must have done all steps.
    """
    if self._start is None or not self._examples:
      return None
    now = time.perf_counter()
    elapsed, examples = now - self._start, self._examples
    self._seconds += elapsed
    self._start, self._examples = now, 0
    return examples / elapsed

  def pause(self) -> None:
    """Pauses the clock until the next step, for work that is not training."""
    self._start, self._examples = None, 0

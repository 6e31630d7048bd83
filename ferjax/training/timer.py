"""Training time, excluding compilation, evaluation and saving."""

import time


class Timer:
  """Times training steps. Its seconds are saved with a run, so they add up over resumed runs.

  A step returns when it is queued, not when it is done; so whole laps are timed, not single steps.
  The first step after a pause is not timed: it may compile.
  """

  def __init__(self, seconds: float = 0.0):
    self._seconds = seconds
    self._start: float | None = None
    self._examples = 0

  @property
  def seconds(self) -> float:
    """Seconds of the timed steps."""
    return self._seconds

  def add_step(self, examples: int) -> None:
    """Counts a step of `examples` examples."""
    if self._start is None:
      self._start = time.perf_counter()
    else:
      self._examples += examples

  def lap(self) -> float | None:
    """Examples per second since the last lap or pause; None if no step was timed.

    The device must have finished all steps.
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

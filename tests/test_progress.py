"""Lines in a log file: one an interval, whatever is finished, with rate and time left."""

import contextlib
import functools
import re
import threading
import time

from ferjax.progress import DISABLED, Progress, duration

TICK = 0.01  # seconds


class Log:
  """A stream without a terminal, on which a test can wait for lines."""

  def __init__(self):
    self.text, self._written = "", threading.Condition()

  def isatty(self):
    return False

  def write(self, text):
    with self._written:
      self.text += text
      self._written.notify_all()

  def flush(self):
    pass

  def wait_for(self, pattern):
    with self._written:
      assert self._written.wait_for(lambda: re.search(pattern, self.text), timeout=10)


def logged(test):
  """Gives a test a `log` that is stderr while it runs; pytest replaces it between its phases."""

  @functools.wraps(test)
  def run(monkeypatch):
    monkeypatch.delenv(DISABLED, raising=False)
    log = Log()
    with contextlib.redirect_stderr(log):
      test(log, monkeypatch)

  del run.__wrapped__  # pytest would ask it for its arguments
  return run


@logged
def test_lines_have_counts_rate_and_time_left(log, monkeypatch):
  with Progress(10_000, "step", task="training", done=4, interval=TICK) as progress:
    log.wait_for(r"training: 4/10,000 steps, 0:00:0\d so far\n")
    progress.update(5)
    log.wait_for(r"training: 9/10,000 steps, 0:00:0\d so far\n")
    progress.update()
    progress.note("loss 1.0")
    log.wait_for(
      r"training: 10/10,000 steps, [\d.]+ (steps/s|s/step), [\d:, days]+ left: loss 1.0\n"
    )
  assert re.search(r"training: 10/10,000 steps, .*, took 0:00:0\d: loss 1.0\n$", log.text)


@logged
def test_the_time_left_is_that_of_the_rest_at_the_mean_rate(log, monkeypatch):
  """The time before the first update is that of compiling."""
  now = [0.0]
  monkeypatch.setattr(time, "monotonic", lambda: now[0])
  progress = Progress(110, "image", done=10, interval=TICK)
  now[0] = 100.0
  progress.update()
  progress.update(24)
  now[0] = 148.0
  log.wait_for(r"35/110 images, 2.0 s/image, 0:02:30 left\n")
  progress.close()
  assert log.text.endswith("35/110 images, 2.0 s/image, took 0:02:28\n")


@logged
def test_without_a_total_or_a_unit(log, monkeypatch):
  with Progress(None, "frame", interval=TICK) as progress:
    progress.update()
    progress.update()
    log.wait_for(r"2 frames, [\d.]+ (frames/s|s/frame), 0:00:0\d so far\n")
  with Progress(None, task="writing a.onnx", interval=TICK):
    log.wait_for(r"writing a.onnx: 0:00:0\d so far\n")


@logged
def test_only_the_innermost_prints_lines(log, monkeypatch):
  with Progress(5, "step", interval=TICK):
    log.wait_for("0/5 steps")
    with Progress(3, "batch", interval=TICK):
      log.wait_for("0/3 batches")
      before = log.text.count("/5 steps")
      log.wait_for("(batch.*\n.*){5}")
      assert log.text.count("/5 steps") <= before + 1  # one may have been on its way
    log.text = ""
    log.wait_for("0/5 steps")


@logged
def test_what_ends_at_once_prints_only_its_own_lines(log, monkeypatch):
  with Progress(3, "step") as progress:
    progress.update()
    progress.note("loss")
    progress.line("evaluated")
  progress.close()
  assert log.text == "evaluated\n"


@logged
def test_hidden_and_quiet(log, monkeypatch):
  with Progress(3, "step", show=False, interval=TICK) as progress:
    progress.line("hidden")
  monkeypatch.setenv(DISABLED, "1")
  with Progress(3, "step", interval=TICK) as progress:
    progress.line("a warning")
    time.sleep(5 * TICK)
  assert log.text == "a warning\n"


@logged
def test_a_bar_on_a_terminal(log, monkeypatch):
  log.isatty = lambda: True
  with Progress(4, "step", task="training", interval=TICK) as progress:
    progress.note("loss 1.0")
    progress.update(3)
    progress.line("evaluated")
    time.sleep(5 * TICK)
  assert "\r" in log.text
  assert "evaluated\n" in log.text
  assert re.search(r"training: .*3/4 \[.*loss 1.0", log.text)


def test_durations():
  assert [duration(x) for x in (0.4, 61, 3600 * 30)] == ["0:00:00", "0:01:01", "1 day, 6:00:00"]

import pytest

from ferjax.training import timer as timer_module
from ferjax.training.timer import Timer


@pytest.fixture
def clock(monkeypatch):
  """A clock that the test sets, in seconds."""

  class Clock:
    now = 100.0

  monkeypatch.setattr(timer_module.time, "perf_counter", lambda: Clock.now)
  return Clock


def test_first_step_after_a_pause_is_not_timed(clock):
  timer = Timer()
  assert timer.lap() is None
  timer.add_step(8)  # compiled, from 90 to 100
  assert timer.lap() is None
  clock.now = 102.0
  timer.add_step(8)
  clock.now = 104.0
  timer.add_step(8)
  assert timer.lap() == 16 / 4
  clock.now = 105.0
  timer.add_step(8)
  assert timer.lap() == 8 / 1
  timer.pause()
  clock.now = 200.0
  timer.add_step(8)
  assert timer.lap() is None
  clock.now = 202.0
  timer.add_step(8)
  assert timer.lap() == 8 / 2
  assert timer.seconds == 4 + 1 + 2


def test_seconds_continue_from_the_saved_value(clock):
  timer = Timer(60.0)
  timer.add_step(1)
  clock.now += 3
  timer.add_step(1)
  timer.lap()
  assert timer.seconds == 63.0

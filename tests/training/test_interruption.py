import os
import signal
import threading

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from ferjax.training.interruption import Interruption, catch_interruption


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_is_a_request_and_second_acts_as_usual(number):
  arrived = []
  before = signal.signal(number, lambda *_: arrived.append(number))
  try:
    with catch_interruption() as caught:
      assert not caught.should_stop(sync_hosts=False)
      os.kill(os.getpid(), number)
      assert caught.should_stop(sync_hosts=False)
      assert arrived == []
      os.kill(os.getpid(), number)
      assert arrived == [number]
    assert signal.getsignal(number) != signal.SIG_DFL
  finally:
    signal.signal(number, before)


def test_signal_handlers_are_unchanged_in_a_thread():
  before, seen = signal.getsignal(signal.SIGTERM), []

  def catch():
    with catch_interruption() as caught:
      seen.append((signal.getsignal(signal.SIGTERM), caught.should_stop(sync_hosts=True)))

  thread = threading.Thread(target=catch)
  thread.start()
  thread.join()
  assert seen == [(before, False)]


def test_several_hosts_stop_at_the_same_step(monkeypatch):
  """Another host's signal counts, and hosts exchange requests only when they synchronise."""
  asked = []

  def gather(mine):
    asked.append(bool(mine))
    return np.array([bool(mine), len(asked) == 3])

  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(multihost_utils, "process_allgather", gather)
  own = Interruption()
  stops = [own.should_stop(sync_hosts=step in (0, 3, 4, 6)) for step in range(7)]
  assert stops == [False] * 4 + [True] * 3
  assert asked == [False] * 3


def test_a_host_waits_for_the_others(monkeypatch):
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(multihost_utils, "process_allgather", lambda mine: np.array([mine, False]))
  own = Interruption()
  own.request()
  assert not own.should_stop(sync_hosts=False)
  assert own.should_stop(sync_hosts=True)

import jax.numpy as jnp
import numpy as np
import pytest

from ferjax.tasks.base import Loss
from ferjax.training.step import StepMetrics
from ferjax.training.step_log import NonFiniteError, StepLog


def metrics(loss, *, rate=0.1, skipped=False, finite=True):
  return StepMetrics(
    loss=Loss.of_parts({"class": jnp.float32(loss)}, jnp.float32(8 * rate), "num_examples"),
    learning_rate=jnp.float32(rate),
    grad_norm=jnp.float32(1),
    skipped=jnp.array(skipped),
    finite=jnp.array(finite),
  )


def test_means_and_last_rate():
  log = StepLog()
  log.add(1, metrics(2.0, rate=0.5))
  log.add(2, metrics(4.0, rate=0.25))
  means = log.drain()
  assert means == {
    "loss": 3.0,
    "loss_class": 3.0,
    "num_examples": 3.0,
    "learning_rate": 0.25,
    "grad_norm": 1.0,
  }
  assert log.drain() == {}


def test_non_finite_steps_are_named():
  log = StepLog()
  for step in range(11, 16):
    log.add(step, metrics(float("inf") if step > 12 else 1.0, finite=step <= 12))
  message = r"not finite after step 13 \(loss inf.*3 of the steps 11\.\.15"
  with pytest.raises(NonFiniteError, match=message):
    log.drain()


def test_skipped_steps_are_counted_and_not_in_the_means():
  log = StepLog(budget=3, skipped=1)
  for step, loss in enumerate((1.0, float("nan"), 3.0), 1):
    log.add(step, metrics(loss, skipped=np.isnan(loss)))
  assert log.drain()["loss"] == 2.0
  assert log.skipped == 2
  log.add(4, metrics(float("inf"), rate=0.5, skipped=True))
  assert log.drain() == {"learning_rate": 0.5}
  assert log.skipped == 3
  log.add(5, metrics(1.0))
  log.add(6, metrics(float("nan"), skipped=True))
  log.add(7, metrics(float("nan"), skipped=True))
  with pytest.raises(NonFiniteError, match=r"after step 6 .*after 3 skipped steps") as raised:
    log.drain()
  assert raised.value.step == 6
  assert np.isnan(raised.value.loss)


def test_spikes_have_their_records():
  log = StepLog(spike_deviations=20.0)
  for step in range(1, 31):
    log.add(step, metrics(100.0 if step == 25 else 2.0), np.array([step, -step]))
  log.drain()
  (spike,) = log.take_spikes()
  assert (spike.step, spike.loss, spike.records.tolist()) == (25, 100.0, [25, -25])
  assert spike.bound == pytest.approx(2 + 20 * 0.02 * 2)  # by the least deviation
  assert log.take_spikes() == []

import jax.numpy as jnp
import pytest

from ferjax.tasks.base import Loss
from ferjax.training.step import StepMetrics
from ferjax.training.step_log import NonFiniteError, StepLog


def metrics(loss, *, rate=0.1, finite=True):
  return StepMetrics(
    loss=Loss.of_parts({"class": jnp.float32(loss)}, jnp.float32(8 * rate), "num_examples"),
    learning_rate=jnp.float32(rate),
    grad_norm=jnp.float32(1),
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

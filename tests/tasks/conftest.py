import jax
import pytest


@pytest.fixture(scope="session")
def with_gradient():
  """Wraps a function that returns a `Loss` so that it also returns the gradient of the total."""

  def make(loss_fn):
    def total(*args, **kwargs):
      loss = loss_fn(*args, **kwargs)
      return loss.total, loss

    def run(*args, **kwargs):
      (_, loss), grads = jax.value_and_grad(total, has_aux=True)(*args, **kwargs)
      return loss, grads

    return run

  return make

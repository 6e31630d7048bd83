import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from ferjax.ops import depthwise_conv as module
from ferjax.ops.depthwise_conv import depthwise_conv

CASES = [
  ((6, 5), 3, 1, 1),
  ((7, 8), 3, 2, 1),
  ((9, 9), 7, 1, 3),
  ((5, 6), 3, 1, 0),
  ((8, 8), 5, 2, 2),
]


@pytest.fixture(params=["cpu", "gpu"])
def backend(request, monkeypatch):
  """Both ways of computing it run on a CPU; the backend's name only chooses."""
  monkeypatch.setattr(module.jax, "default_backend", lambda: request.param)
  return request.param


@pytest.mark.parametrize(("size", "k", "stride", "padding"), CASES)
def test_equals_scipy(backend, size, k, stride, padding):
  rng = np.random.default_rng(0)
  x = rng.standard_normal((2, *size, 3)).astype(np.float32)
  kernel = rng.standard_normal((k, k, 1, 3)).astype(np.float32)
  y = depthwise_conv(jnp.asarray(x), jnp.asarray(kernel), stride=stride, padding=padding)
  padded = np.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)])
  for image in range(2):
    for channel in range(3):
      expected = scipy.signal.correlate2d(
        padded[image, :, :, channel], kernel[:, :, 0, channel], mode="valid"
      )[::stride, ::stride]
      np.testing.assert_allclose(y[image, :, :, channel], expected, rtol=1e-4, atol=1e-5)


def test_both_ways_have_the_same_gradients(monkeypatch):
  x = jax.random.normal(jax.random.key(0), (2, 6, 7, 4))
  kernel = jax.random.normal(jax.random.key(1), (3, 3, 1, 4))

  def gradients(backend):
    monkeypatch.setattr(module.jax, "default_backend", lambda: backend)
    return jax.grad(lambda *a: jnp.sum(depthwise_conv(*a, stride=2, padding=1) ** 2), (0, 1))(
      x, kernel
    )

  for a, b in zip(gradients("cpu"), gradients("tpu"), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)

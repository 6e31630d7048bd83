import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from flax.errors import ScopeParamNotFoundError, ScopeParamShapeError

from ferjax.models.csp_darknet import Focus
from ferjax.models.layers import Conv, DropPath, TorchDense, batch_norm, upsample2


@pytest.mark.parametrize(("k", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2)])
@pytest.mark.parametrize("depthwise", [False, True])
def test_conv_equals_scipy(k, stride, depthwise):
  conv = Conv(4, k, stride, depthwise=depthwise, use_bias=True)
  x = jax.random.normal(jax.random.key(0), (2, 7, 6, 4))
  variables = conv.init(jax.random.key(1), x)
  kernel = np.asarray(variables["params"]["kernel"])
  y = np.asarray(conv.apply(variables, x))
  p = (k - 1) // 2
  padded = np.pad(x, [(0, 0), (p, p), (p, p), (0, 0)])
  for out in range(4):
    inputs = [out] if depthwise else range(4)
    want = variables["params"]["bias"][out] + sum(
      scipy.signal.correlate2d(padded[1, :, :, c], kernel[:, :, j, out], mode="valid")
      for j, c in enumerate(inputs)
    )
    np.testing.assert_allclose(y[1, :, :, out], want[::stride, ::stride], rtol=1e-4, atol=1e-5)


def test_given_parameters_are_checked_by_name_and_shape():
  dense, x = TorchDense(3), jnp.ones((2, 4))
  params = {"kernel": jnp.ones((4, 3)), "bias": jnp.arange(3.0)}
  np.testing.assert_array_equal(dense.apply({"params": params}, x), [[4, 5, 6]] * 2)
  with pytest.raises(ScopeParamShapeError, match=r"kernel.*\(4, 3\).*has shape \(5, 3\)"):
    dense.apply({"params": params | {"kernel": jnp.ones((5, 3))}}, x)
  with pytest.raises(ScopeParamNotFoundError, match="bias"):
    dense.apply({"params": {"kernel": params["kernel"]}}, x)


def test_focus_takes_the_phases_in_the_published_order():
  """(row, col) phases (even, even), (odd, even), (even, odd), (odd, odd)."""
  seen = {}

  def spy(next_fun, args, kwargs, context):
    if type(context.module).__name__ == "ConvNormAct":
      seen["x"] = args[0]
    return next_fun(*args, **kwargs)

  import flax.linen as nn

  x = jnp.arange(4 * 4, dtype=jnp.float32).reshape(1, 4, 4, 1)
  with nn.intercept_methods(spy):
    Focus(2).init(jax.random.key(0), x, train=False)
  np.testing.assert_array_equal(seen["x"][0, 0, 0], [0, 4, 1, 5])


def test_batch_norm_survives_a_large_mean():
  """E[x^2] - E[x]^2 in float32 would lose the variance of values near 1e4."""
  x = 1e4 + jax.random.normal(jax.random.key(0), (4, 8, 8, 1))
  norm = batch_norm("bn", train=True, dtype=jnp.float32, momentum=0.9, epsilon=1e-5)
  variables = {
    "params": {"scale": jnp.ones(1), "bias": jnp.zeros(1)},
    "batch_stats": {"mean": jnp.zeros(1), "var": jnp.ones(1)},
  }
  y, updates = norm.apply(variables, x, mutable=["batch_stats"])
  x64 = np.asarray(x, np.float64)
  np.testing.assert_allclose(y, (x64 - x64.mean()) / np.sqrt(x64.var() + 1e-5), atol=5e-3)
  np.testing.assert_allclose(updates["batch_stats"]["var"], 0.9 + 0.1 * x64.var(), rtol=1e-3)


def test_drop_path():
  x = jnp.ones((1000, 2))
  layer = DropPath(0.3)
  np.testing.assert_array_equal(layer.apply({}, x, train=False), x)
  y = np.asarray(layer.apply({}, x, train=True, rngs={"dropout": jax.random.key(0)}))
  assert set(np.unique(y)) == {0.0, np.float32(1 / 0.7)}
  np.testing.assert_array_equal(y[:, 0], y[:, 1])
  assert abs(y.mean() - 1) < 0.1


def test_upsample2():
  x = jnp.arange(4.0).reshape(1, 2, 2, 1)
  want = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
  np.testing.assert_array_equal(upsample2(x)[0, :, :, 0], want)

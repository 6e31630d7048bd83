import jax.numpy as jnp
import numpy as np
import pytest

from ferjax.training.joined import all_finite, global_norm

LARGE = 2**16 + 1  # elements of an array that is not joined


@pytest.fixture
def tree():
  rng = np.random.default_rng(0)
  shapes = {"kernel": (3, 5), "bias": (), "embedding": (LARGE,)}
  return {name: np.float32(rng.standard_normal(shape)) for name, shape in shapes.items()}


def test_norm_of_large_and_small_arrays(tree):
  expected = np.sqrt(sum(np.square(x, dtype=np.float64).sum() for x in tree.values()))
  np.testing.assert_allclose(global_norm(tree), expected, rtol=1e-5)
  np.testing.assert_allclose(global_norm({"bias": jnp.float32(-2)}), 2, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["kernel", "bias", "embedding"])
def test_one_value_that_is_not_finite(tree, name, value):
  counted = {**tree, "count": np.int32(7)}
  assert all_finite(counted)
  counted[name] = np.where(
    np.arange(counted[name].size).reshape(counted[name].shape) == 0, value, 1
  )
  assert not all_finite(counted)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ferjax.ops.scan_paths import from_paths, path_indices, to_paths


@pytest.mark.parametrize("size", [(4, 4), (3, 5)])
def test_orders_equal_the_released_ones(size, golden):
  """Released order: row, column, both reversed, diagonal, antidiagonal, both reversed."""
  expected = golden.expect(f"crossscan_{size[0]}x{size[1]}/index")
  np.testing.assert_array_equal(path_indices(*size), expected)


@pytest.mark.parametrize("size", [(4, 4), (3, 5)])
def test_merge_equals_the_released_one(size, golden, golden_rules):
  height, width = size
  case = f"crossmerge_{height}x{width}"
  length = height * width
  arange = np.arange(8 * length, dtype=np.float32).reshape(8, 1, length, 1)
  random = golden_rules.normal(f"crossmerge:{height}x{width}", (8, length))
  np.testing.assert_array_equal(random, golden.expect(f"{case}/random_in"))
  merge = lambda y: np.asarray(from_paths(jnp.asarray(y), height, width))[0, :, 0]  # noqa: E731
  np.testing.assert_array_equal(merge(arange), golden.expect(f"{case}/arange"))
  np.testing.assert_allclose(
    merge(random[:, None, :, None]), golden.expect(f"{case}/random_out"), rtol=1e-6, atol=1e-6
  )
  x = jnp.arange(length, dtype=jnp.float32)[None, :, None]
  of_scan = np.asarray(from_paths(to_paths(x, height, width), height, width))[0, :, 0]
  np.testing.assert_array_equal(of_scan, golden.expect(f"{case}/of_scan"))


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (6, 1), (3, 7), (8, 4)])
@pytest.mark.parametrize("num_paths", [4, 8])
def test_every_path_is_a_permutation_and_merging_undoes_it(size, num_paths):
  height, width = size
  indices = path_indices(height, width, num_paths)
  np.testing.assert_array_equal(
    np.sort(indices, axis=1), np.tile(np.arange(height * width), (num_paths, 1))
  )
  x = jax.random.normal(jax.random.key(0), (2, height * width, 3))
  paths = to_paths(x, height, width, num_paths)
  np.testing.assert_array_equal(paths, np.asarray(x)[:, indices].swapaxes(0, 1))
  np.testing.assert_allclose(from_paths(paths, height, width, num_paths), num_paths * x, rtol=1e-5)


def test_each_is_the_adjoint_of_the_other():
  key1, key2 = jax.random.split(jax.random.key(0))
  x = jax.random.normal(key1, (2, 15, 3))
  y = jax.random.normal(key2, (8, 2, 15, 3))
  inner = jnp.vdot(to_paths(x, 3, 5), y)
  np.testing.assert_allclose(jnp.vdot(x, from_paths(y, 3, 5)), inner, rtol=1e-5)
  grad = jax.grad(lambda x: jnp.vdot(to_paths(x, 3, 5), y))(x)
  np.testing.assert_allclose(grad, from_paths(y, 3, 5), rtol=1e-6)
  grad = jax.grad(lambda y: jnp.vdot(from_paths(y, 3, 5), x))(y)
  np.testing.assert_allclose(grad, to_paths(x, 3, 5), rtol=1e-6)


TURNS = {
  "identity": lambda m: m,
  "half turn": lambda m: m[::-1, ::-1],
  "transposition": lambda m: m.T,
  "transposition about the other diagonal": lambda m: m[::-1, ::-1].T,
  "horizontal flip": lambda m: m[:, ::-1],
  "vertical flip": lambda m: m[::-1],
  "quarter turn": np.rot90,
  "three-quarter turn": lambda m: np.rot90(m, 3),
}


@pytest.mark.parametrize("turn", TURNS)
def test_symmetries_that_permute_the_four_paths(turn):
  """A flip does not: it would need rows from right to left in top-down order."""
  paths = path_indices(4, 4, 4)
  found = {tuple(path) for path in TURNS[turn](np.arange(16).reshape(4, 4)).ravel()[paths]}
  common = found & {tuple(path) for path in paths}
  assert len(common) == (0 if "flip" in turn or "quarter" in turn else 4)


def test_errors():
  with pytest.raises(ValueError, match=r"num_paths is 3; it must be one of \(4, 8\)"):
    path_indices(4, 4, 3)
  with pytest.raises(ValueError, match="0 x 4 cells"):
    path_indices(0, 4)


@pytest.mark.parametrize("num_paths", [4, 8])
def test_symbolic_sizes_give_the_same_orders(num_paths):
  """A program exported for any map size computes the orders itself."""
  h, w = jax.export.symbolic_shape("h, w")
  flat = jax.ShapeDtypeStruct((1, h * w, 2), jnp.float32)

  def there_and_back(x, cells):
    paths = to_paths(x, *cells.shape, num_paths)
    weights = 1.0 + jnp.arange(num_paths, dtype=jnp.float32)[:, None, None, None]
    return paths, from_paths(weights * paths, *cells.shape, num_paths)

  program = jax.export.export(jax.jit(there_and_back))(
    flat, jax.ShapeDtypeStruct((h, w), jnp.float32)
  )
  for size in ((3, 5), (4, 2)):
    x = jax.random.normal(jax.random.key(0), (1, size[0] * size[1], 2))
    cells = jnp.zeros(size)
    for found, expected in zip(program.call(x, cells), there_and_back(x, cells), strict=True):
      np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

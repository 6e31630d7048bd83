import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ferjax.ops.sampling import affine_grid, grid_sample

IDENTITY = np.array([[[1, 0, 0], [0, 1, 0]]], np.float32)
NHWC, NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


def loop_grid(theta, height, width, align_corners):
  """The definition, one pixel at a time, in float64."""

  def centre(i, n):
    if align_corners:
      return -1 + 2 * i / (n - 1) if n > 1 else 0.0
    return -1 + (2 * i + 1) / n

  grid = np.zeros((len(theta), height, width, 2))
  for b, matrix in enumerate(theta.astype(np.float64)):
    for i in range(height):
      for j in range(width):
        grid[b, i, j] = matrix @ [centre(j, width), centre(i, height), 1]
  return grid


def loop_sample(image, grid, align_corners, outside):
  b, height, width, c = image.shape
  out = np.zeros((b, *grid.shape[1:3], c))

  def pixel(n, i, j):
    if outside == "border":
      return image[n, min(max(i, 0), height - 1), min(max(j, 0), width - 1)]
    if 0 <= i < height and 0 <= j < width:
      return image[n, i, j]
    return np.zeros(c)

  for n, i, j in np.ndindex(*grid.shape[:3]):
    x, y = grid[n, i, j].astype(np.float64)
    if align_corners:
      x, y = (x + 1) / 2 * (width - 1), (y + 1) / 2 * (height - 1)
    else:
      x, y = ((x + 1) * width - 1) / 2, ((y + 1) * height - 1) / 2
    x, y = (min(max(z, -99), 99) for z in (x, y))  # so that x + 1 is exact for far points
    left, top = math.floor(x), math.floor(y)
    for row, by in ((top, top + 1 - y), (top + 1, y - top)):
      for column, bx in ((left, left + 1 - x), (left + 1, x - left)):
        out[n, i, j] += by * bx * pixel(n, row, column)
  return out


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(5, 7), (1, 3), (4, 1)])
def test_grid_equals_its_definition(align_corners, size):
  theta = np.random.default_rng(0).normal(size=(2, 2, 3)).astype(np.float32)
  grid = affine_grid(jnp.asarray(theta), *size, align_corners=align_corners)
  np.testing.assert_allclose(grid, loop_grid(theta, *size, align_corners), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("outside", ["zeros", "border"])
def test_samples_equal_their_definition(align_corners, outside):
  """Points inside, between the outermost centres and the edge, just outside and far away."""
  rng = np.random.default_rng(1)
  image = rng.normal(size=(2, 5, 6, 3)).astype(np.float32)
  grid = rng.uniform(-1.6, 1.6, (2, 8, 9, 2)).astype(np.float32)
  grid[0, 0, :4] = [[-1, -1], [1, 1], [1e9, 0], [0, -1e30]]
  sample = jax.jit(grid_sample, static_argnames=("align_corners", "outside"))
  out = sample(jnp.asarray(image), jnp.asarray(grid), align_corners=align_corners, outside=outside)
  expected = loop_sample(image, grid, align_corners, outside)
  np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("outside", ["zeros", "border"])
@pytest.mark.parametrize("size", [(6, 5), (1, 1), (32, 17)])
def test_identity_grid_returns_the_image(align_corners, outside, size):
  image = jax.random.normal(jax.random.key(0), (1, *size, 2))
  grid = affine_grid(jnp.asarray(IDENTITY), *size, align_corners=align_corners)
  out = grid_sample(image, grid, align_corners=align_corners, outside=outside)
  np.testing.assert_allclose(out, image, atol=1e-5)


def test_mirror_and_shift():
  """x -> -x mirrors the columns; a shift of one pixel to the left leaves zeros on the right."""
  image = jnp.arange(12.0).reshape(1, 3, 4, 1)
  mirror = jnp.array([[[-1.0, 0, 0], [0, 1, 0]]])
  grid = affine_grid(mirror, 3, 4, align_corners=True)
  out = grid_sample(image, grid, align_corners=True)
  np.testing.assert_allclose(out, image[:, :, ::-1], atol=1e-5)
  shift = jnp.array([[[1.0, 0, 2 / 4], [0, 1, 0]]])
  grid = affine_grid(shift, 3, 4, align_corners=False)
  out = grid_sample(image, grid, align_corners=False)[0, :, :, 0]
  np.testing.assert_allclose(out, [[1, 2, 3, 0], [5, 6, 7, 0], [9, 10, 11, 0]], atol=1e-5)


def test_recorded_samples_and_gradients(emonext_golden, golden_rules):
  golden = emonext_golden
  theta = jnp.asarray(golden.expect("gridsample/theta"))
  image = jnp.asarray(golden.expect("gridsample/in").transpose(NHWC))
  shape = golden.index["gridsample/out"]["shape"]
  cotangent = golden_rules.normal("cot:gridsample", shape).transpose(NHWC)

  @jax.jit
  def run(theta, image):
    grid = affine_grid(theta, 12, 10, align_corners=True)
    out, vjp = jax.vjp(
      lambda theta, image: grid_sample(
        image, affine_grid(theta, 12, 10, align_corners=True), align_corners=True
      ),
      theta,
      image,
    )
    return grid, out, *vjp(jnp.asarray(cotangent))

  grid, out, theta_grad, image_grad = run(theta, image)
  assert golden.rel_l2("gridsample/grid", grid) < 1e-6
  assert golden.rel_l2("gridsample/out", np.asarray(out).transpose(NCHW)) < 1e-5
  assert golden.rel_l2("gridsample/theta_grad", theta_grad) < 1e-4
  assert golden.rel_l2("gridsample/in_grad", np.asarray(image_grad).transpose(NCHW)) < 1e-5
  identity = affine_grid(jnp.asarray(IDENTITY), 12, 10, align_corners=True)
  out = np.asarray(grid_sample(image[:1], identity, align_corners=True))
  assert golden.rel_l2("gridsample_identity/out", out.transpose(NCHW)) < 1e-5


def test_far_points_have_zero_gradients():
  image = jnp.ones((1, 4, 4, 1))
  grid = jnp.full((1, 2, 2, 2), 1e12)
  for outside in ("zeros", "border"):
    score = lambda grid: grid_sample(image, grid, align_corners=True, outside=outside).sum()  # noqa: E731
    np.testing.assert_array_equal(jax.grad(score)(grid), np.zeros(grid.shape))


def test_unknown_outside_is_rejected():
  with pytest.raises(ValueError, match="unknown outside 'mirror'; known: zeros, border"):
    grid_sample(
      jnp.zeros((1, 2, 2, 1)), jnp.zeros((1, 2, 2, 2)), align_corners=True, outside="mirror"
    )

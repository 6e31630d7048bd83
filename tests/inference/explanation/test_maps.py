"""Positions of maps on images: with images that encode their coordinates, and by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from ferjax.data.classification.views import center_placement, center_view
from ferjax.data.image import letterbox
from ferjax.inference.explanation.maps import (
  Explanation,
  compose,
  input_to_image,
  transformer_to_input,
  visible_region,
)
from ferjax.inference.results import Face
from ferjax.ops.sampling import affine_grid

THETAS = [
  [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
  [[0.5, 0.1, -0.2], [-0.3, 0.8, 0.25]],
  [[0.0, -1.5, 0.4], [1.5, 0.0, 0.0]],
]


def _explanation(cells, to_image, view):
  face = Face(None, 0.75, "anger", {"anger": 0.75, "fear": 0.25})
  cells, affine = np.array(cells, np.float32), np.array(to_image, np.float64)
  return Explanation(face, "fear", "map", cells, affine, tuple(map(float, view)))


def _heat(explanation, width, height):
  """The heat on a whole image."""
  return explanation.heat((0.0, 0.0, float(width), float(height)), height, width)


def _coordinate_image(height, width):
  """An image whose red and green are three times the column and row index."""
  y, x = np.mgrid[:height, :width]
  return np.stack([3 * x, 3 * y, 0 * x], axis=-1).astype(np.uint8)


def _original_coordinates(affine, size):
  """Column and row indices in the original at the centres of the input's pixels."""
  u, v = np.meshgrid(*[(np.arange(size) + 0.5) / size] * 2)
  return np.stack([u, v, np.ones_like(u)], axis=-1) @ affine.T - 0.5


@pytest.mark.parametrize("shape", [(48, 80), (80, 48), (71, 83), (30, 30), (20, 33)])
@pytest.mark.parametrize("resize", [0, 41])
def test_a_view_maps_back_to_its_crop(shape, resize):
  size = 30
  placement = center_placement(shape[1], shape[0], size, resize=resize)
  expected = center_view(_coordinate_image(*shape), size, resize=resize)[..., :2] / 3
  position = _original_coordinates(input_to_image(placement, size), size)
  # The antialiasing filter bends the ramp at the image edges.
  np.testing.assert_allclose(position[2:-2, 2:-2], expected[2:-2, 2:-2], atol=0.3)


@pytest.mark.parametrize("shape", [(48, 80), (80, 49), (16, 83), (64, 64)])
def test_a_letterboxed_image_maps_back(shape):
  square, placement = letterbox(_coordinate_image(*shape), 64)
  position = _original_coordinates(input_to_image(placement, 64), 64)
  inside = (
    (position >= 3).all(-1) & (position[..., 0] < shape[1] - 4) & (position[..., 1] < shape[0] - 4)
  )
  assert inside.sum() > 100
  np.testing.assert_allclose(position[inside], square[..., :2][inside] / 3, atol=0.3)
  assert visible_region(placement, 64) == pytest.approx((0, 0, shape[1], shape[0]), abs=1e-3)


def test_the_visible_region_of_a_view():
  # 100x60 to 50x30; the middle 20x20 begins at (15, 5).
  placement = center_placement(100, 60, 20, resize=30)
  np.testing.assert_allclose(placement, [0.5, 0.5, -15, -5, 100, 60])
  assert visible_region(placement, 20) == (30, 10, 70, 50)


def test_a_hot_cell_is_at_its_pixels():
  # 64x32 in a square of 64: 16 rows of grey above. Cell (1, 2) of 4x4 is (32, 0)..(48, 16).
  _, placement = letterbox(np.zeros((32, 64, 3), np.uint8), 64)
  cells = np.zeros((4, 4))
  cells[1, 2] = 3
  explanation = _explanation(cells, input_to_image(placement, 64), visible_region(placement, 64))
  heat, seen = _heat(explanation, 64, 32)
  assert seen.all()
  assert explanation.peak == 3
  y, x = np.mgrid[:32, :64] + 0.5
  tent = np.maximum(1 - np.abs(x - 40) / 16, 0) * np.maximum(1 - np.abs(y - 8) / 16, 0)
  np.testing.assert_allclose(heat, tent, atol=1e-6)


def test_there_is_no_heat_outside_the_view():
  placement = center_placement(100, 60, 20, resize=30)
  explanation = _explanation(
    np.ones((2, 2)), input_to_image(placement, 20), visible_region(placement, 20)
  )
  heat, seen = _heat(explanation, 100, 60)
  expected = np.zeros((60, 100), bool)
  expected[10:50, 30:70] = True
  np.testing.assert_array_equal(seen, expected)
  np.testing.assert_allclose(heat, expected)


def test_a_region_equals_its_part_of_the_whole():
  rng = np.random.default_rng(0)
  explanation = _explanation(rng.normal(size=(3, 5)), [[70, 10, -4], [-5, 50, 6]], (0, 0, 60, 50))
  whole, seen = _heat(explanation, 64, 48)
  part, seen_of_part = explanation.heat((16.0, 8.0, 40.0, 32.0), 24, 24)
  np.testing.assert_allclose(part, whole[8:32, 16:40])
  np.testing.assert_array_equal(seen_of_part, seen[8:32, 16:40])
  assert 0 < seen.sum() < seen.size


def test_heat_moves_with_the_image():
  cells = np.random.default_rng(1).normal(size=(4, 4))
  here = _explanation(cells, [[40, 0, 2], [0, 40, 3]], (0, 0, 64, 64))
  there = _explanation(cells, compose(np.array([[1, 0, 7], [0, 1, 5.0]]), here.to_image), here.view)
  first, _ = _heat(here, 64, 64)
  second, _ = _heat(there, 64, 64)
  np.testing.assert_allclose(second[5:, 7:], first[:-5, :-7], atol=1e-12)


def test_without_positive_cells_there_is_no_heat():
  explanation = _explanation(-np.ones((2, 2)), [[8, 0, 0], [0, 8, 0]], (0, 0, 8, 8))
  heat, seen = _heat(explanation, 8, 8)
  assert explanation.peak == 0
  assert not heat.any()
  assert seen.all()


def test_negative_cells_do_not_cool_their_neighbours():
  explanation = _explanation([[2, -50]], [[8, 0, 0], [0, 4, 0]], (0, 0, 8, 4))
  heat, _ = _heat(explanation, 8, 4)
  np.testing.assert_allclose(heat[0], [1, 1, 0.875, 0.625, 0.375, 0.125, 0, 0])


def test_the_score_is_that_of_the_explained_class():
  assert _explanation([[1]], np.eye(2, 3), (0, 0, 1, 1)).score == 0.25


@pytest.mark.parametrize("theta", THETAS)
@pytest.mark.parametrize("size", [2, 5, 32])
def test_transformer_to_input_matches_the_affine_grid(theta, size):
  grid = affine_grid(jnp.array([theta]), size, size, align_corners=True)[0]
  expected = (np.asarray(grid) + 1) * (size - 1) / 2  # column and row indices
  to_pixels = np.array([[size, 0, 0], [0, size, 0.0]])
  affine = compose(to_pixels, transformer_to_input(np.array(theta), size))
  np.testing.assert_allclose(_original_coordinates(affine, size), expected, atol=1e-4)


def test_the_outline_of_a_map():
  """By hand: 5 pixels, halved in width about the middle pixel and moved right by one pixel."""
  theta = np.array([[0.5, 0, 0.5], [0, 1, 0.0]])
  # Pixel centres 0.5..4.5 are -1..1. The edge 0 is -1.25, halved -0.625, moved by a pixel -0.125,
  # which is 2.25 of 5; the edge 5 is 1.25, halved 0.625, moved 1.125, which is 4.75.
  outline = _explanation(np.ones((1, 1)), transformer_to_input(theta, 5), (0, 0, 1, 1)).outline
  expected = [[0.45, 0], [0.95, 0], [0.95, 1], [0.45, 1]]
  np.testing.assert_allclose(outline, expected, atol=1e-12)


def test_a_sheared_outline_is_in_clockwise_order():
  outline = _explanation(np.ones((1, 1)), [[10, 2, 1], [3, 20, 0]], (0, 0, 1, 1)).outline
  np.testing.assert_allclose(outline, [[1, 0], [11, 3], [13, 23], [3, 20]])


def test_a_transformer_that_samples_a_point_gives_no_heat():
  affine = compose(np.array([[64, 0, 0], [0, 64, 0.0]]), transformer_to_input(np.zeros((2, 3)), 32))
  explanation = _explanation(np.ones((2, 2)), affine, (0, 0, 64, 64))
  heat, seen = _heat(explanation, 64, 64)
  assert not heat.any()
  assert not seen.any()
  np.testing.assert_allclose(explanation.outline, np.full((4, 2), 32))

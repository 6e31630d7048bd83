import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ferjax.ops.boxes import (
  box_area,
  cell_grid,
  clip_boxes,
  cxcywh_to_xyxy,
  paired_iou,
  pairwise_iou,
  undo_placement,
  xyxy_to_cxcywh,
)


def _random_boxes(seed: int, *shape: int) -> np.ndarray:
  rng = np.random.default_rng(seed)
  corner = rng.uniform(0, 50, (*shape, 2))
  return np.concatenate([corner, corner + rng.uniform(5, 40, (*shape, 2))], -1).astype(np.float32)


def test_conversion_by_hand_and_back():
  boxes = jnp.array([[10.0, 20.0, 4.0, 8.0]])
  np.testing.assert_array_equal(cxcywh_to_xyxy(boxes), [[8, 16, 12, 24]])
  boxes = jnp.asarray(_random_boxes(0, 3, 5))
  np.testing.assert_allclose(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes, rtol=1e-5)


def test_area_of_inverted_box_is_zero():
  boxes = jnp.array([[0.0, 0, 2, 3], [2.0, 3, 0, 0], [0.0, 0, -2, 3]])
  np.testing.assert_array_equal(box_area(boxes), [6, 0, 0])


@pytest.mark.parametrize(
  ("other", "iou"),
  [
    ((0, 0, 10, 10), 1.0),
    ((5, 0, 15, 10), 50 / 150),
    ((2, 2, 6, 6), 16 / 100),
    ((10, 0, 20, 10), 0.0),  # touching
    ((30, 30, 40, 40), 0.0),  # apart on both axes: a product of two negative sides is no overlap
    ((4, 4, 4, 4), 0.0),  # empty
  ],
)
def test_iou_by_hand(other, iou):
  box = jnp.array([[0.0, 0, 10, 10]])
  other = jnp.array([other], jnp.float32)
  np.testing.assert_allclose(pairwise_iou(box, other), [[iou]], rtol=1e-6)
  np.testing.assert_allclose(paired_iou(other, box), [iou], rtol=1e-6)


def test_pairwise_equals_loop_over_pixels():
  a, b = (np.round(_random_boxes(seed, 6)).astype(int) for seed in (1, 2))

  def cover(box):
    canvas = np.zeros((100, 100), bool)
    canvas[box[1] : box[3], box[0] : box[2]] = True
    return canvas

  expected = [[np.sum(cover(x) & cover(y)) / np.sum(cover(x) | cover(y)) for y in b] for x in a]
  result = pairwise_iou(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
  np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_empty_boxes_have_finite_gradients():
  grad = jax.grad(lambda box: paired_iou(box, box).sum())(jnp.zeros((1, 4)))
  np.testing.assert_array_equal(grad, np.zeros((1, 4)))


def test_grid_of_two_maps():
  grid = cell_grid([(2, 3), (1, 1)], (32, 48))
  np.testing.assert_array_equal(
    grid.index, [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1], [0, 0]]
  )
  np.testing.assert_array_equal(grid.stride, [[16, 16]] * 6 + [[48, 32]])
  np.testing.assert_array_equal(np.asarray(grid.centers)[[0, 5, 6]], [[8, 8], [40, 24], [24, 16]])


def test_undo_placement_inverts_the_contract():
  boxes = _random_boxes(3, 2, 4)
  # scale x, scale y, left, top, width, height
  placement = np.array([[0.5, 0.25, 3, 7, 100, 90], [2, 2, 0, 40, 80, 80]], np.float32)
  scale, offset = placement[:, None, [0, 1, 0, 1]], placement[:, None, [2, 3, 2, 3]]
  placed = boxes * scale + offset
  np.testing.assert_allclose(
    undo_placement(jnp.asarray(placed), jnp.asarray(placement)), boxes, rtol=1e-5, atol=1e-5
  )


def test_clip_uses_width_for_x_and_height_for_y():
  boxes = jnp.array([[[-5.0, -6, 300, 300], [10, 20, 30, 40]], [[250.0, 0, 300, 10], [0, 0, 9, 9]]])
  clipped = clip_boxes(boxes, jnp.array([100.0, 200]), jnp.array([50.0, 5]))
  np.testing.assert_array_equal(
    clipped, [[[0, 0, 100, 50], [10, 20, 30, 40]], [[200, 0, 200, 5], [0, 0, 9, 5]]]
  )

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ferjax.expressions import UNLABELLED
from ferjax.ops.assignment import (
  class_cost,
  dynamic_k,
  inside_and_near,
  resolve_conflicts,
  select_cheapest,
  simota,
)
from ferjax.ops.boxes import CellGrid, cell_grid, pairwise_iou

# Golden cases and their images that have boxes.
IMAGES = [
  ("loss_40_20_10", 0),
  ("loss_40_20_10", 2),
  ("loss_20_20_10", 0),
  ("loss_20_20_10", 2),
  ("loss_conflict", 0),
  ("loss_conflict", 1),
]


def _released_grid(facts: dict) -> CellGrid:
  """Cells with the strides of the released loss, which do not depend on the map sizes."""
  levels = [
    cell_grid([(size, size)], (size * stride, size * stride))
    for size, stride in zip(facts["sizes"], facts["strides"], strict=True)
  ]
  return CellGrid(*map(jnp.concatenate, zip(*levels, strict=True)))


_simota = jax.jit(simota)


def _inputs(golden, case: str, image: int, num_boxes: int = 6) -> dict:
  """The arguments of `simota`; padding boxes are inside the image, with labels, but masked."""
  grid = _released_grid(golden.train[case])
  raw = np.concatenate(
    [golden.expect(f"{case}/raw{level}")[image].reshape(12, -1).T for level in range(3)]
  )
  center = (raw[:, :2] + grid.index) * grid.stride
  half = np.exp(raw[:, 2:4]) * grid.stride / 2
  labels = golden.expect(f"{case}/labels{image}")
  filler = np.tile(np.array([[160, 160, 90, 90, 3]], np.float32), (num_boxes - len(labels), 1))
  rows = np.concatenate([labels, filler])
  return {
    "boxes": jnp.concatenate([center - half, center + half], axis=1),
    "obj_logits": jnp.asarray(raw[:, 4]),
    "cls_logits": jnp.asarray(raw[:, 5:]),
    "gt_boxes": jnp.asarray(
      np.concatenate([rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2], axis=1)
    ),
    "gt_labels": jnp.asarray(rows[:, 4].astype(np.int32)),
    "gt_mask": jnp.asarray(np.arange(len(rows)) < len(labels)),
    "grid": grid,
  }


@pytest.mark.parametrize(("case", "image"), IMAGES)
def test_steps_equal_the_released_program(golden, case, image):
  def expect(name):
    return golden.expect(f"{case}/img{image}/{name}")

  args = _inputs(golden, case, image)
  count = len(expect("dynamic_k"))
  inside, near = inside_and_near(args["gt_boxes"], args["gt_mask"], args["grid"])
  candidates = np.any(inside | near, axis=0)
  np.testing.assert_array_equal(candidates, expect("candidates").astype(bool))

  ious = np.where(candidates[None], pairwise_iou(args["gt_boxes"], args["boxes"]), 0)
  np.testing.assert_allclose(ious[:count, candidates], expect("ious"), rtol=1e-4, atol=1e-6)
  top = np.sort(ious, axis=1)[:, -10:].sum(axis=1)
  np.testing.assert_allclose(top[:count], expect("iou_topk_sum"), rtol=1e-5)
  k = dynamic_k(jnp.asarray(ious))
  np.testing.assert_array_equal(k[:count], expect("dynamic_k"))

  cost = (
    class_cost(args["obj_logits"], args["cls_logits"], args["gt_labels"])
    - 3 * np.log(ious + 1e-8)
    + 1e5 * ~np.asarray(inside & near)
  )
  np.testing.assert_allclose(cost[:count, candidates], expect("cost"), rtol=1e-5)


@pytest.mark.parametrize(("case", "image"), IMAGES)
def test_assignment_equals_the_released_program(golden, case, image):
  args = _inputs(golden, case, image)
  result = _simota(**args)
  matched = np.asarray(result.matched)
  expected = golden.expect(f"{case}/img{image}/fg_mask").astype(bool)
  np.testing.assert_array_equal(matched, expected)
  gt_index = np.asarray(result.gt_index)[matched]
  np.testing.assert_array_equal(gt_index, golden.expect(f"{case}/img{image}/matched_gt"))
  np.testing.assert_array_equal(
    np.asarray(args["gt_labels"])[gt_index], golden.expect(f"{case}/img{image}/matched_class")
  )
  np.testing.assert_allclose(
    np.asarray(result.iou)[matched],
    golden.expect(f"{case}/img{image}/matched_iou"),
    rtol=1e-4,
    atol=1e-6,
  )
  assert not np.any(np.asarray(result.iou)[~matched])
  assert not np.any(np.asarray(result.gt_index)[~matched])


def test_without_boxes_nothing_is_matched(golden):
  args = _inputs(golden, "loss_40_20_10", 0)
  args["gt_mask"] = jnp.zeros_like(args["gt_mask"])
  result = _simota(**args)
  assert not result.matched.any()
  assert not result.iou.any()


def assert_same(result, other):
  """Of two programs: the ten float32 operations of an IoU differ by at most 10 * 6e-8."""
  np.testing.assert_array_equal(result.matched, other.matched)
  np.testing.assert_array_equal(result.gt_index, other.gt_index)
  np.testing.assert_allclose(result.iou, other.iou, rtol=1e-6)


def test_number_of_padding_boxes_does_not_matter(golden):
  tight = _simota(**_inputs(golden, "loss_conflict", 0, num_boxes=4))
  padded = _simota(**_inputs(golden, "loss_conflict", 0))
  assert_same(tight, padded)


def test_order_of_boxes_does_not_matter(golden):
  args = _inputs(golden, "loss_conflict", 0)
  order = np.array([3, 5, 1, 0, 4, 2])
  shuffled = args | {name: args[name][order] for name in ("gt_boxes", "gt_labels", "gt_mask")}
  result, other = _simota(**args), _simota(**shuffled)
  np.testing.assert_array_equal(result.matched, other.matched)
  matched = np.asarray(result.matched)
  np.testing.assert_array_equal(
    np.asarray(result.gt_index)[matched], order[np.asarray(other.gt_index)[matched]]
  )


def test_vmap_equals_singles(golden):
  singles = [_inputs(golden, "loss_40_20_10", 0), _inputs(golden, "loss_40_20_10", 2)]
  grid = singles[0].pop("grid")
  singles[1].pop("grid")
  stacked = [jnp.stack(pair) for pair in zip(*(s.values() for s in singles), strict=True)]
  batched = jax.jit(jax.vmap(simota, in_axes=(0,) * 6 + (None,)))(*stacked, grid)
  for i, single in enumerate(singles):
    assert_same(jax.tree.map(lambda x, i=i: x[i], batched), _simota(**single, grid=grid))


def test_class_cost_equals_double_precision():
  rng = np.random.default_rng(0)
  obj, cls = rng.normal(0, 6, 50), rng.normal(0, 6, (50, 4))
  labels = np.array([2, 0, 2])
  p = np.sqrt(1 / (1 + np.exp(-cls)) / (1 + np.exp(-obj))[:, None])
  onehot = np.eye(4)[labels]
  terms = onehot[:, None] * np.log(p)[None] + (1 - onehot)[:, None] * np.log1p(-p)[None]
  result = class_cost(
    jnp.asarray(obj, jnp.float32), jnp.asarray(cls, jnp.float32), jnp.asarray(labels, jnp.int32)
  )
  np.testing.assert_allclose(result, -terms.sum(axis=-1), rtol=1e-4, atol=1e-5)


def test_class_cost_of_extreme_logits_is_finite():
  cost = class_cost(
    jnp.array([200.0, -400.0]), jnp.array([[200.0, 200], [-400, -400]]), jnp.array([0])
  )
  # Both classes certain: one is wrong, at the floor. Neither certain: the other is at the floor.
  np.testing.assert_allclose(cost, [[100, 100]], rtol=1e-6)


def test_an_unlabelled_box_costs_as_much_as_the_class_that_fits_best():
  rng = np.random.default_rng(0)
  logits = jnp.asarray(rng.normal(0, 3, 20), jnp.float32), jnp.asarray(rng.normal(0, 3, (20, 3)))
  unlabelled, *labelled = class_cost(*logits, jnp.array([UNLABELLED, 0, 1, 2]))
  np.testing.assert_array_equal(unlabelled, np.min(labelled, axis=0))


def test_an_unlabelled_box_does_not_take_the_cells_of_a_labelled_one():
  """Of two equal boxes, the labelled one is first; a cell that fits both goes to the first."""
  grid = cell_grid([(4, 4)], (32, 32))
  boxes = jnp.tile(jnp.array([[8.0, 8, 24, 24]]), (16, 1))
  objectness, classes = jnp.zeros(16), jnp.tile(jnp.array([[2.0, -2, -3]]), (16, 1))
  truth = jnp.array([[8.0, 8, 24, 24]] * 2)

  def given(*labels):
    labels, mask = jnp.array(labels), jnp.ones(2, bool)
    result = _simota(boxes, objectness, classes, truth, labels, mask, grid)
    return np.unique(np.asarray(result.gt_index)[np.asarray(result.matched)]).tolist()

  assert given(0, UNLABELLED) == [0]
  assert given(UNLABELLED, 0) == [0]
  assert given(1, UNLABELLED) == [1]  # the cells predict class 0, which contradicts the first box


def test_dynamic_k_sums_the_ten_largest():
  ious = np.zeros((4, 30), np.float32)
  ious[0, 5] = 0.9  # rounds down to 0: at least one
  ious[1, 3:6] = 0.7  # 2.1
  ious[2] = 1.0  # 30 ones: only ten count
  ious[3, 10:14] = 0.999  # 3.996
  np.testing.assert_array_equal(dynamic_k(jnp.asarray(ious)), [1, 2, 10, 3])
  np.testing.assert_array_equal(dynamic_k(jnp.asarray(ious[:, 3:6])), [1, 2, 3, 1])


def test_selection_takes_the_cheapest_and_breaks_ties_by_index():
  cost = np.full((3, 12), 5, np.float32)
  cost[0, [7, 2]] = 1
  cost[2] = np.inf
  cost[2, 4] = 3
  selected = select_cheapest(jnp.asarray(cost), jnp.array([3, 2, 2]))
  assert [np.flatnonzero(row).tolist() for row in selected] == [[0, 2, 7], [0, 1], [4]]


def test_a_contested_cell_goes_to_the_cheapest_box_of_all():
  cost = jnp.array([[3.0, 1, 9, 1], [2.0, 5, 9, 1], [1.0, 2, 9, 0]])
  selected = jnp.array([[1, 0, 0, 1], [1, 1, 0, 1], [0, 0, 0, 1]], bool)
  matched, gt_index = resolve_conflicts(cost, selected)
  # Selected by 0 and 1 but cheapest for 2; by 1 only; by none; by all.
  assert matched.tolist() == [True, True, False, True]
  assert gt_index.tolist() == [2, 1, 0, 2]


def test_cell_borders_are_open():
  grid = cell_grid([(8, 8)], (64, 64))  # centres at 4, 12, 20, ...
  inside, near = inside_and_near(jnp.array([[12.0, 12, 28, 28]]), jnp.array([True]), grid)
  rows, columns = np.nonzero(np.asarray(inside).reshape(8, 8))
  assert (set(rows), set(columns)) == ({2}, {2})  # 12 and 28 are on the border
  # 2.5 strides around 20 reach from 0 to 40, without the ends.
  rows, columns = np.nonzero(np.asarray(near).reshape(8, 8))
  assert set(rows) == set(columns) == {0, 1, 2, 3, 4}

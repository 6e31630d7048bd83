"""SimOTA: assigns a detector's cells to ground-truth boxes.

Ge et al., *YOLOX: Exceeding YOLO Series in 2021*, arXiv 2107.08430, section 2.1
(spec: fer_yolo_mamba, Loss). All functions take one image; callers use `vmap`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ferjax.expressions import UNLABELLED
from ferjax.ops.boxes import CellGrid, pairwise_iou

CENTER_RADIUS = 2.5  # strides
IOU_WEIGHT = 3.0
OUTSIDE_PENALTY = 1e5
MAX_CELLS = 10  # per box


class Assignment(NamedTuple):
  """For each cell: whether it is matched to a box, the box's index, and the IoU with it.

  `gt_index` and `iou` are 0 where `matched` is False.
  """

  matched: Bool[Array, "a"]
  gt_index: Int[Array, "a"]
  iou: Float[Array, "a"]


def simota(
  boxes: Float[Array, "a 4"],
  obj_logits: Float[Array, "a"],
  cls_logits: Float[Array, "a k"],
  gt_boxes: Float[Array, "g 4"],
  gt_labels: Int[Array, "g"],
  gt_mask: Bool[Array, "g"],
  grid: CellGrid,
) -> Assignment:
  """Assigns cells to boxes by lowest prediction cost; boxes are xyxy input pixels.

  A label may be `UNLABELLED`, see `class_cost`.
  """
  inside, near = inside_and_near(gt_boxes, gt_mask, grid)
  candidates = jnp.any(inside | near, axis=0)
  valid = candidates[None] & gt_mask[:, None]
  ious = jnp.where(valid, pairwise_iou(gt_boxes, boxes), 0)
  cost = (
    class_cost(obj_logits, cls_logits, gt_labels)
    - IOU_WEIGHT * jnp.log(ious + 1e-8)
    + OUTSIDE_PENALTY * ~(inside & near)
  )
  cost = jnp.where(valid, cost, jnp.inf)
  matched, gt_index = resolve_conflicts(cost, select_cheapest(cost, dynamic_k(ious)))
  iou = jnp.take_along_axis(ious, gt_index[None], axis=0)[0]
  return Assignment(matched, gt_index, jnp.where(matched, iou, 0))


def inside_and_near(
  gt_boxes: Float[Array, "g 4"], gt_mask: Bool[Array, "g"], grid: CellGrid
) -> tuple[Bool[Array, "g a"], Bool[Array, "g a"]]:
  """Masks of cells whose centre is inside each box, and within 2.5 strides of its centre."""
  centers = grid.centers[None]
  low, high = gt_boxes[:, None, :2], gt_boxes[:, None, 2:]
  inside = jnp.all((centers > low) & (centers < high), axis=-1)
  distance = jnp.abs(centers - (low + high) / 2)
  near = jnp.all(distance < CENTER_RADIUS * grid.stride[None], axis=-1)
  return inside & gt_mask[:, None], near & gt_mask[:, None]


def class_cost(
  obj_logits: Float[Array, "a"], cls_logits: Float[Array, "a k"], gt_labels: Int[Array, "g"]
) -> Float[Array, "g a"]:
  """Binary cross-entropy of sqrt(objectness * class probability) with each box's one-hot label.

  Only the term of the box's own class differs between boxes. So the sum with all classes absent
  is computed once, and that term is replaced: this avoids an array over boxes, cells and classes.
  Logarithms are clamped at -100, as in the released program.

  A box that is `UNLABELLED` has the cost of the class that fits the cell best: a prediction cannot
  contradict a label that nobody knows. So it competes for cells with labelled boxes on equal terms.
  Without a cost, it would take every cell that it shares with a labelled box.
  """
  log_p = (jax.nn.log_sigmoid(cls_logits) + jax.nn.log_sigmoid(obj_logits)[:, None]) / 2
  present = jnp.maximum(log_p, -100.0).T
  absent = jnp.maximum(jnp.log(-jnp.expm1(log_p)), -100.0).T
  difference = present - absent
  is_labelled = (gt_labels != UNLABELLED)[:, None]
  of_label = jnp.take(difference, jnp.maximum(gt_labels, 0), axis=0)
  own = jnp.where(is_labelled, of_label, jnp.max(difference, axis=0)[None])
  return -(jnp.sum(absent, axis=0)[None] + own)


def dynamic_k(ious: Float[Array, "g a"]) -> Int[Array, "g"]:
  """The number of cells per box: the sum of its 10 largest IoUs, rounded down, at least 1."""
  largest, _ = _top_k(ious, min(MAX_CELLS, ious.shape[1]))
  return jnp.maximum(jnp.sum(largest, axis=1).astype(jnp.int32), 1)


def select_cheapest(cost: Float[Array, "g a"], k: Int[Array, "g"]) -> Bool[Array, "g a"]:
  """Mask of each box's `k` cells of lowest finite cost; ties go to the lower index."""
  negated, cells = _top_k(-cost, min(MAX_CELLS, cost.shape[1]))
  last = jnp.minimum(k, cells.shape[1])[:, None] - 1
  last_cost = -jnp.take_along_axis(negated, last, axis=1)
  last_cell = jnp.take_along_axis(cells, last, axis=1)
  # Comparing with the k-th cost, unlike scattering the k indices, is fast on every backend.
  tied = (cost == last_cost) & (jnp.arange(cost.shape[1])[None] <= last_cell)
  return ((cost < last_cost) | tied) & jnp.isfinite(cost)


def resolve_conflicts(
  cost: Float[Array, "g a"], selected: Bool[Array, "g a"]
) -> tuple[Bool[Array, "a"], Int[Array, "a"]]:
  """Mask of matched cells, and the index of each cell's box (0 if unmatched).

  A cell that several boxes select goes to the box of lowest cost among all boxes, even one that
  did not select it, as in YOLOX.
  """
  num_boxes = jnp.sum(selected, axis=0)
  gt_index = jnp.where(num_boxes > 1, jnp.argmin(cost, axis=0), jnp.argmax(selected, axis=0))
  return num_boxes > 0, gt_index.astype(jnp.int32)


def _top_k(values: Float[Array, "g a"], k: int) -> tuple[Float[Array, "g k"], Int[Array, "g k"]]:
  """The `k` largest of each row and their indices: decreasing values, ties by increasing index.

  Under `vmap`, `jax.lax.top_k` gathers a sharded batch on every device; this scan does not.
  """
  num_columns = values.shape[1]
  columns = jnp.broadcast_to(jnp.arange(num_columns)[None], values.shape)

  def take_largest(left: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
    # Two plain reductions: XLA does not vectorise `argmax` on CPUs.
    largest = jnp.max(left, axis=1, keepdims=True)
    index = jnp.min(columns, axis=1, keepdims=True, where=left == largest, initial=num_columns)
    return jnp.where(columns == index, -jnp.inf, left), (largest[:, 0], index[:, 0])

  _, (largest, indices) = jax.lax.scan(take_largest, values, length=k)
  return largest.T, indices.T

"""Non-maximum suppression with fixed-size output."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ferjax.ops.boxes import pairwise_iou


def nms(
  boxes: Float[Array, "n 4"],
  scores: Float[Array, "n"],
  labels: Int[Array, "n"] | None,
  *,
  iou_threshold: float | Float[Array, ""],
  score_threshold: float | Float[Array, ""],
  max_detections: int,
) -> tuple[Int[Array, "d"], Bool[Array, "d"]]:
  """Exact greedy suppression within each class, or across classes if `labels` is None.

  The remaining box with the highest score is kept, and boxes of its class with an IoU above
  `iou_threshold` are dropped, until `max_detections` are kept. Only boxes with a score of at least
  `score_threshold` are considered; ties go to the lower index.

  Returns:
    Indices of the kept boxes by decreasing score, and a mask; the index is 0 where it is False.
  """

  def keep_best(remaining: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
    best = jnp.argmax(remaining).astype(jnp.int32)
    found = remaining[best] > -jnp.inf
    overlaps = pairwise_iou(boxes[best][None], boxes)[0] > iou_threshold
    if labels is not None:
      overlaps &= labels == labels[best]
    dropped = overlaps.at[best].set(True)  # an empty box does not overlap itself
    return jnp.where(dropped, -jnp.inf, remaining), (jnp.where(found, best, 0), found)

  eligible = jnp.where(scores >= score_threshold, scores, -jnp.inf)
  _, (indices, mask) = jax.lax.scan(keep_best, eligible, length=max_detections)
  return indices, mask

"""Boxes, and the cells of a detector's maps.

Boxes are `xyxy`: left, top, right, bottom in pixels. Coordinates are continuous: a one-pixel box
has width 1, without the "+ 1" of integer coordinates.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class CellGrid(NamedTuple):
  """The cells of all maps, map by map, in row-major order; both fields are (x, y)."""

  index: Float[Array, "a 2"]  # column and row within the cell's map
  stride: Float[Array, "a 2"]  # size of the cell in input pixels

  @property
  def centers(self) -> Float[Array, "a 2"]:
    """Centres of the cells in input pixels."""
    return (self.index + 0.5) * self.stride


def cell_grid(map_sizes: Sequence[tuple[int, int]], image_size: tuple[int, int]) -> CellGrid:
  """The cells of maps of the given (height, width) for an input of (height, width) pixels.

  The stride of a map is input size / map size, never a constant (spec: fer_yolo_mamba, Two
  variants).
  """
  indices, strides = [], []
  for height, width in map_sizes:
    y, x = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    index = jnp.stack([x, y], axis=-1).reshape(-1, 2).astype(jnp.float32)
    stride = jnp.array([image_size[1] / width, image_size[0] / height], jnp.float32)
    indices.append(index)
    strides.append(jnp.broadcast_to(stride[None], index.shape))
  return CellGrid(jnp.concatenate(indices), jnp.concatenate(strides))


def cxcywh_to_xyxy(boxes: Float[Array, "*s 4"]) -> Float[Array, "*s 4"]:
  """(centre x, centre y, width, height) to corners."""
  center, size = boxes[..., :2], boxes[..., 2:]
  return jnp.concatenate([center - size / 2, center + size / 2], axis=-1)


def xyxy_to_cxcywh(boxes: Float[Array, "*s 4"]) -> Float[Array, "*s 4"]:
  """Corners to (centre x, centre y, width, height)."""
  low, high = boxes[..., :2], boxes[..., 2:]
  return jnp.concatenate([(low + high) / 2, high - low], axis=-1)


def box_area(boxes: Float[Array, "*s 4"]) -> Float[Array, "*s"]:
  """Area in square pixels; 0 if right < left or bottom < top."""
  return jnp.prod(jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1)


def pairwise_iou(a: Float[Array, "n 4"], b: Float[Array, "m 4"]) -> Float[Array, "n m"]:
  """Intersection over union of every box of `a` with every box of `b`."""
  return _iou(a[:, None], b[None])


def paired_iou(a: Float[Array, "*s 4"], b: Float[Array, "*s 4"]) -> Float[Array, "*s"]:
  """Elementwise intersection over union of two arrays of boxes."""
  return _iou(a, b)


def undo_placement(
  boxes: Float[Array, "*s n 4"], placement: Float[Array, "*s 6"]
) -> Float[Array, "*s n 4"]:
  """Maps boxes from pixels of the model's input to pixels of the original image.

  `placement` is (scale x, scale y, left, top, width, height), see `ferjax.typing`.
  """
  scale = jnp.tile(placement[..., None, 0:2], 2)
  offset = jnp.tile(placement[..., None, 2:4], 2)
  return (boxes - offset) / scale


def clip_boxes(
  boxes: Float[Array, "*s n 4"], width: Float[Array, "*s"], height: Float[Array, "*s"]
) -> Float[Array, "*s n 4"]:
  """Clips boxes to an image of the given size; boxes outside of it get zero area."""
  limit = jnp.stack([width, height, width, height], axis=-1)[..., None, :]
  return jnp.clip(boxes, 0, limit)


def _iou(a: Array, b: Array) -> Array:
  low = jnp.maximum(a[..., :2], b[..., :2])
  high = jnp.minimum(a[..., 2:], b[..., 2:])
  intersection = box_area(jnp.concatenate([low, high], axis=-1))
  union = box_area(a) + box_area(b) - intersection
  # The inner `where` keeps the gradient finite for pairs of empty boxes, whose IoU is 0.
  overlap = union > 0
  return jnp.where(overlap, intersection / jnp.where(overlap, union, 1), 0)

"""Face and expression detection: loss, post-processing and metrics of a YOLOX-style head."""

import dataclasses
import pathlib
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ferjax.config import Config, EvalConfig
from ferjax.expressions import UNLABELLED
from ferjax.ops.assignment import simota
from ferjax.ops.boxes import (
  CellGrid,
  box_area,
  cell_grid,
  clip_boxes,
  cxcywh_to_xyxy,
  paired_iou,
  undo_placement,
)
from ferjax.ops.nms import nms
from ferjax.tasks.base import Examples, Loss
from ferjax.tasks.detection.metrics import FACE_AP, DetectionMetrics
from ferjax.typing import DetectionBatch, Detections, DetectorOutput

IOU_LOSS_WEIGHT = 5.0


@dataclasses.dataclass(frozen=True)
class DetectionTask:
  """Detection of faces and their expressions; see `ferjax.tasks.base.Task`."""

  class_names: tuple[str, ...]

  name: ClassVar[str] = "detection"
  selection_metrics: ClassVar[tuple[str, ...]] = ("map50", "map", FACE_AP)
  shown_metrics: ClassVar[tuple[str, ...]] = ("map50", "map", FACE_AP)

  @classmethod
  def from_config(cls, config: Config) -> "DetectionTask":
    """The task for the config's classes; its loss has no settings."""
    return cls(tuple(config.data.class_names))

  @property
  def num_classes(self) -> int:
    return len(self.class_names)

  @property
  def primary_metric(self) -> str:
    return "map50"

  def metrics(self) -> DetectionMetrics:
    """A new, empty accumulator."""
    return DetectionMetrics(self.class_names)

  def loss(self, output: DetectorOutput, batch: DetectionBatch) -> Loss:
    """See `detection_loss`; the sums are over the whole batch, for any sharding."""
    self._check(output)
    height, width = batch["image"].shape[1:3]
    return detection_loss(
      output,
      _grid_of(output, (height, width)),
      boxes=batch["boxes"],
      label=batch["label"],
      box_mask=batch["box_mask"],
      mask=batch["mask"],
    )

  def postprocess(
    self,
    output: DetectorOutput,
    *,
    image_size: int | tuple[int, int],
    placement: Float[Array, "b 6"] | None = None,
    score_threshold: float | Float[Array, ""],
    iou_threshold: float | Float[Array, ""],
    max_detections: int,
    per_class_nms: bool = True,
  ) -> Detections:
    """Raw maps to boxes (spec: fer_yolo_mamba, Post-processing and metrics). Runs under `jit`.

    Args:
      output: raw maps.
      image_size: side, or (height, width), of the model's input in pixels.
      placement: the position of each original image in the input; boxes are then in pixels of the
        original image and clipped to it, and boxes outside it are dropped. Without it, boxes are
        in input pixels and not clipped.
      score_threshold: minimum objectness * class probability. An array is traced, so a new value
        compiles nothing; a Python number is compiled in.
      iou_threshold: boxes with a higher IoU with a better box are dropped.
      max_detections: maximum number of detections per image.
      per_class_nms: whether boxes only drop boxes of the same class, as average precision per
        class needs. Otherwise a face gets one box, of its most probable class.

    Raises:
      ValueError: a threshold is not in 0..1, `max_detections` is below 1, or the maps do not
        have 5 channels plus one per class.
    """
    detections, _ = self.postprocess_cells(
      output,
      image_size=image_size,
      placement=placement,
      score_threshold=score_threshold,
      iou_threshold=iou_threshold,
      max_detections=max_detections,
      per_class_nms=per_class_nms,
    )
    return detections

  def postprocess_cells(
    self,
    output: DetectorOutput,
    *,
    image_size: int | tuple[int, int],
    placement: Float[Array, "b 6"] | None = None,
    score_threshold: float | Float[Array, ""],
    iou_threshold: float | Float[Array, ""],
    max_detections: int,
    per_class_nms: bool = True,
  ) -> tuple[Detections, Int[Array, "b d"]]:
    """Like `postprocess`, with the cell of each detection, in the order of `decode`."""
    self._check(output)
    for name, value in (("score_threshold", score_threshold), ("iou_threshold", iou_threshold)):
      # The value of an array was checked before it was converted.
      if not isinstance(value, jax.Array) and not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; it must be in 0..1.")
    if max_detections < 1:
      raise ValueError(f"max_detections is {max_detections}; it must be at least 1.")

    return self.select(
      self.candidates(output, image_size=image_size, placement=placement),
      score_threshold=score_threshold,
      iou_threshold=iou_threshold,
      max_detections=max_detections,
      per_class_nms=per_class_nms,
    )

  def select(
    self,
    cells: "Candidates",
    *,
    score_threshold: float | Float[Array, ""],
    iou_threshold: float | Float[Array, ""],
    max_detections: int,
    per_class_nms: bool = True,
  ) -> tuple[Detections, Int[Array, "b d"]]:
    """Non-maximum suppression; arguments and results are those of `postprocess_cells`."""

    def suppress(boxes: Array, scores: Array, labels: Array) -> tuple[Array, Array]:
      return nms(
        boxes,
        scores,
        labels if per_class_nms else None,
        iou_threshold=iou_threshold,
        score_threshold=score_threshold,
        max_detections=max_detections,
      )

    index, mask = jax.vmap(suppress)(cells.input_boxes, cells.eligible, cells.labels)
    every = jnp.ones_like(cells.scores, bool)
    kept = Detections(cells.boxes, cells.scores, cells.labels, cells.class_scores, every)
    return jax.tree.map(lambda rows: _take_rows(rows, index, mask), kept), index

  def candidates(
    self,
    output: DetectorOutput,
    *,
    image_size: int | tuple[int, int],
    placement: Float[Array, "b 6"] | None = None,
  ) -> "Candidates":
    """Everything before non-maximum suppression; arguments as for `postprocess`."""
    boxes, obj_logits, cls_logits = decode(output, image_size)
    class_scores = jax.nn.sigmoid(obj_logits)[..., None] * jax.nn.sigmoid(cls_logits)
    scores = jnp.max(class_scores, axis=-1)
    labels = jnp.argmax(class_scores, axis=-1).astype(jnp.int32)
    final_boxes, eligible = boxes, scores
    if placement is not None:
      final_boxes = undo_placement(boxes, placement)
      final_boxes = clip_boxes(final_boxes, placement[:, 4], placement[:, 5])
      eligible = jnp.where(box_area(final_boxes) > 0, scores, -jnp.inf)
    return Candidates(final_boxes, scores, labels, class_scores, boxes, eligible)

  def predict(
    self, output: DetectorOutput, batch: DetectionBatch, *, image_size: int, config: EvalConfig
  ) -> Detections:
    """`postprocess` with the settings of evaluation; boxes are in pixels of the original images."""
    return self.postprocess(
      output,
      image_size=image_size,
      placement=batch["placement"],
      score_threshold=config.score_threshold,
      iou_threshold=config.iou_threshold,
      max_detections=config.max_detections,
    )

  def merge_views(
    self, output: DetectorOutput, num_views: int, *, probabilities: bool = False
  ) -> DetectorOutput:
    """Raises a ValueError: boxes of several views cannot be merged."""
    field = "flip" if probabilities else "ten_crop"
    raise ValueError(
      f"A detector uses one view of an image, not {num_views}; set eval.{field}=False."
    )

  def write_report(self, metrics: DetectionMetrics, source: Examples, folder: pathlib.Path) -> None:
    """Writes precision_recall.png and confusion.png."""
    # Imported here because inference needs this module, but not Matplotlib.
    from ferjax.tasks.detection.plots import plot_precision_recall
    from ferjax.tasks.plots import plot_confusion

    del source
    plot_precision_recall(metrics, folder / "precision_recall.png")
    plot_confusion(metrics.confusion_matrix(), metrics.class_names, folder / "confusion.png")

  def _check(self, output: DetectorOutput) -> None:
    for level in output.levels:
      if level.shape[-1] != 5 + self.num_classes:
        raise ValueError(
          f"A map of shape {level.shape} has {level.shape[-1]} channels; {self.num_classes} "
          f"classes need 5 + {self.num_classes}. Create the model with "
          f"num_classes={self.num_classes}."
        )


class Candidates(NamedTuple):
  """The boxes of all cells; the first four fields are as in `Detections`.

  `input_boxes` are in pixels of the model's input, where suppression compares them. `eligible` are
  the scores, or -inf for a box outside of the image.
  """

  boxes: Float[Array, "b a 4"]
  scores: Float[Array, "b a"]
  labels: Int[Array, "b a"]
  class_scores: Float[Array, "b a k"]
  input_boxes: Float[Array, "b a 4"]
  eligible: Float[Array, "b a"]


def decode(
  output: DetectorOutput, image_size: int | tuple[int, int]
) -> tuple[Float[Array, "b a 4"], Float[Array, "b a"], Float[Array, "b a k"]]:
  """Boxes (xyxy, input pixels), objectness logits and class logits of all cells."""
  if isinstance(image_size, int):
    image_size = (image_size, image_size)
  return decode_cells(output, _grid_of(output, image_size))


def decode_cells(
  output: DetectorOutput, grid: CellGrid
) -> tuple[Float[Array, "b a 4"], Float[Array, "b a"], Float[Array, "b a k"]]:
  """Like `decode`, for given cells: centre (xy + index) * stride, size exp(wh) * stride."""
  raw = jnp.concatenate(
    [level.reshape(level.shape[0], -1, level.shape[-1]) for level in output.levels], axis=1
  ).astype(jnp.float32)
  center = (raw[..., 0:2] + grid.index[None]) * grid.stride[None]
  size = jnp.exp(raw[..., 2:4]) * grid.stride[None]
  return cxcywh_to_xyxy(jnp.concatenate([center, size], axis=-1)), raw[..., 4], raw[..., 5:]


def detection_loss(
  output: DetectorOutput,
  grid: CellGrid,
  *,
  boxes: Float[Array, "b m 4"],
  label: Int[Array, "b m"],
  box_mask: Bool[Array, "b m"],
  mask: Bool[Array, "b"],
) -> Loss:
  """The YOLOX loss with SimOTA assignment (spec: fer_yolo_mamba, Loss), in float32.

  Args:
    output: raw maps.
    grid: the cells of the maps.
    boxes: ground truth, xyxy in input pixels.
    label: classes of the boxes; `UNLABELLED` boxes count for all parts except the class.
    box_mask: False for padding boxes.
    mask: False for excluded examples.

  Returns:
    The parts `iou`, `objectness` and `class`, each divided by the number of matched cells of the
    batch, `num_matched`, or by 1 if there are none. Cells of unlabelled boxes are among them, so
    every labelled cell has the same weight in every batch.
  """
  pred_boxes, obj_logits, cls_logits = decode_cells(output, grid)
  predictions = jax.lax.stop_gradient((pred_boxes, obj_logits, cls_logits))
  assign = jax.vmap(simota, in_axes=(0, 0, 0, 0, 0, 0, None))
  matched, gt_index, target_iou = assign(*predictions, boxes, label, box_mask & mask[:, None], grid)

  gt_boxes = jnp.take_along_axis(boxes, gt_index[..., None], axis=1)
  gt_labels = jnp.take_along_axis(label, gt_index, axis=1)
  is_labelled = matched & (gt_labels != UNLABELLED)
  targets = jax.nn.one_hot(gt_labels, cls_logits.shape[-1]) * target_iou[..., None]
  iou = paired_iou(pred_boxes, gt_boxes)
  sums = {
    "iou": IOU_LOSS_WEIGHT * jnp.sum(1 - iou**2, where=matched),
    "objectness": jnp.sum(
      _binary_cross_entropy(obj_logits, matched.astype(jnp.float32)), where=mask[:, None]
    ),
    "class": jnp.sum(_binary_cross_entropy(cls_logits, targets), where=is_labelled[..., None]),
  }
  num_matched = jnp.sum(matched, dtype=jnp.float32)
  parts = {name: value / jnp.maximum(num_matched, 1) for name, value in sums.items()}
  return Loss.of_parts(parts, num_matched, "num_matched")


def _binary_cross_entropy(logits: Array, targets: Array) -> Array:
  return jax.nn.softplus(logits) - logits * targets


def _grid_of(output: DetectorOutput, image_size: tuple[int, int]) -> CellGrid:
  return cell_grid([(level.shape[1], level.shape[2]) for level in output.levels], image_size)


def _take_rows(rows: Array, index: Array, mask: Array) -> Array:
  """Rows [b a ...] at index [b d], zero where mask [b d] is False."""
  trailing = (1,) * (rows.ndim - 2)
  taken = jnp.take_along_axis(rows, index.reshape(*index.shape, *trailing), axis=1)
  return jnp.where(mask.reshape(*mask.shape, *trailing), taken, jnp.zeros_like(taken))

"""Detects faces and classifies their expressions with a trained network.

Preprocessing (`ferjax.data.image`) and post-processing (`DetectionTask.postprocess`) are those of
evaluation, except that a face gets one box, and evaluation one per class.
"""

import abc
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from ferjax.compiler_options import compiler_options
from ferjax.data.image import IMAGENET_MEAN, IMAGENET_STD, letterbox, luma
from ferjax.inference.base import ImagePredictor, Prepared, check_count, stack_padded
from ferjax.inference.forward import forward
from ferjax.inference.results import Face
from ferjax.models import create_model
from ferjax.models.registry import check_image_size, spec_of
from ferjax.ops.normalize import normalize
from ferjax.tasks.detection.task import DetectionTask
from ferjax.trained import TrainedNetwork
from ferjax.typing import Detections
from ferjax.weights.opening import Step, open_weights
from ferjax.weights.settings import check_fraction

SCORE_THRESHOLD, IOU_THRESHOLD, MAX_DETECTIONS = 0.3, 0.3, 100


def detection_program(
  model: nn.Module,
  class_names: Sequence[str],
  image_size: int,
  *,
  mean: Sequence[float],
  std: Sequence[float],
  max_detections: int,
  per_class_nms: bool,
) -> Callable[..., Detections]:
  """The program of prediction, from bytes to boxes.

  Arguments are as for `Predictor.from_model`.

  Returns:
    A function (variables, image u8[b h w c], placement f32[b 6], score threshold, IoU threshold) ->
    `Detections` in pixels of the original images. The thresholds are scalars.
  """
  task = DetectionTask(tuple(class_names))

  def detect(
    variables: dict[str, Any],
    image: UInt8[Array, "b h w c"],
    placement: Float[Array, "b 6"],
    score_threshold: Float[Array, ""],
    iou_threshold: Float[Array, ""],
  ) -> Detections:
    output = forward(model, variables, image, mean, std)
    return task.postprocess(
      output,
      image_size=image_size,
      placement=placement,
      score_threshold=score_threshold,
      iou_threshold=iou_threshold,
      max_detections=max_detections,
      per_class_nms=per_class_nms,
    )

  return detect


class FaceDetector(ImagePredictor[tuple[np.ndarray, np.ndarray]]):
  """A predictor that detects faces in letterboxed images.

  Attributes (besides those of `ImagePredictor`):
    image_size: side of the model's input, pixels.
    grey: whether the input has one grey channel.
  """

  image_size: int
  grey: bool

  @abc.abstractmethod
  def _detections(
    self, squares: UInt8[np.ndarray, "b s s c"], placements: Float[np.ndarray, "b 6"]
  ) -> Detections:
    """The detections of a batch of `batch_size` images, as NumPy arrays."""

  def _inputs(self, image: UInt8[np.ndarray, "h w 3"]) -> tuple[np.ndarray, np.ndarray]:
    square, placement = letterbox(image, self.image_size)
    return (luma(square) if self.grey else square), placement

  def _faces(self, batch: list[Prepared[tuple[np.ndarray, np.ndarray]]]) -> list[tuple[Face, ...]]:
    squares, placements = (
      stack_padded(list(rows), self._padded_size(len(batch)))
      for rows in zip(*(prepared.inputs for prepared in batch), strict=True)
    )
    detections = self._detections(squares, placements)
    return [
      self._faces_of(jax.tree.map(lambda rows, row=row: rows[row], detections))
      for row in range(len(batch))
    ]

  def _faces_of(self, detections: Detections) -> tuple[Face, ...]:
    return tuple(
      Face(
        box=tuple(detections.boxes[row].tolist()),
        score=float(detections.scores[row]),
        expression=self.class_names[detections.labels[row]],
        scores=dict(zip(self.class_names, detections.class_scores[row].tolist(), strict=True)),
      )
      for row in np.flatnonzero(detections.mask)
    )


class Predictor(FaceDetector):
  """Detects faces and classifies their expressions with a trained network."""

  def __init__(
    self,
    checkpoint: str | os.PathLike | TrainedNetwork,
    *,
    step: Step = None,
    batch_size: int = 8,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    max_detections: int = MAX_DETECTIONS,
    per_class_nms: bool = False,
    image_size: int | None = None,
  ):
    """Loads the model, class names, image size and weights.

    Args:
      checkpoint: the name of known weights, a weights file, a training workdir, one checkpoint in
        it, or an open one; see `ferjax.weights.open_weights`.
      step: of a checkpoint: a number, "best", "latest", or None for the best, or the latest if none
        was evaluated.
      batch_size: images per batch.
      score_threshold: faces below this score are dropped (0..1); None for that of the weights, or
        0.3.
      iou_threshold: of two boxes with a higher IoU, the one with the lower score is dropped (0..1);
        None for that of the weights, or 0.3.
      max_detections: maximum number of faces per image.
      per_class_nms: whether boxes of other expressions are never dropped, as in evaluation. A face
        with two likely expressions can then get two boxes.
      image_size: side of the square to which images are reduced or enlarged, pixels: a larger one
        finds smaller faces in more time. None for that of the weights.

    Raises:
      FileNotFoundError: the checkpoint does not exist, and is not the name of known weights.
      ValueError: a setting is out of range, the model is for another task, or this version
        cannot read the checkpoint.
    """
    check_detection_settings(batch_size, score_threshold, iou_threshold, max_detections)
    opened = open_weights(checkpoint, step=step)
    opened.check_task("detection")
    meta = opened.meta
    settings = {"score_threshold": SCORE_THRESHOLD, "iou_threshold": IOU_THRESHOLD}
    settings |= opened.settings
    self.step, self.digest = opened.step, opened.digest
    model = opened.build_model(create_model)
    if image_size is not None:
      check_input_size(model, image_size)
    self._build(
      model,
      opened.variables(),
      meta["class_names"],
      meta["image_size"] if image_size is None else image_size,
      mean=meta["mean"],
      std=meta["std"],
      grey=meta["grey"],
      batch_size=batch_size,
      score_threshold=(settings["score_threshold"] if score_threshold is None else score_threshold),
      iou_threshold=settings["iou_threshold"] if iou_threshold is None else iou_threshold,
      max_detections=max_detections,
      per_class_nms=per_class_nms,
    )
    if self.image_size != meta["image_size"]:
      self.settings["image_size"] = self.image_size

  @classmethod
  def from_model(
    cls,
    model: nn.Module,
    variables: dict[str, Any],
    class_names: Sequence[str],
    image_size: int,
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    grey: bool = False,
    batch_size: int = 8,
    score_threshold: float = SCORE_THRESHOLD,
    iou_threshold: float = IOU_THRESHOLD,
    max_detections: int = MAX_DETECTIONS,
    per_class_nms: bool = False,
  ) -> "Predictor":
    """Like the constructor, with a model and its variables instead of a checkpoint.

    `class_names` are in the order of the model's outputs; `image_size` is the side of the
    model's input in pixels; `mean` and `std` normalise RGB in 0..1; `grey` converts images to grey.
    """
    check_detection_settings(batch_size, score_threshold, iou_threshold, max_detections)
    predictor = cls.__new__(cls)
    predictor.step = None
    predictor._build(
      model,
      variables,
      class_names,
      image_size,
      mean=mean,
      std=std,
      grey=grey,
      batch_size=batch_size,
      score_threshold=score_threshold,
      iou_threshold=iou_threshold,
      max_detections=max_detections,
      per_class_nms=per_class_nms,
    )
    return predictor

  def _build(
    self,
    model: nn.Module,
    variables: dict[str, Any],
    class_names: Sequence[str],
    image_size: int,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    grey: bool,
    batch_size: int,
    score_threshold: float,
    iou_threshold: float,
    max_detections: int,
    per_class_nms: bool,
  ) -> None:
    self.class_names = tuple(class_names)
    self.image_size = image_size
    self.batch_size = batch_size
    self.settings = {
      "score_threshold": score_threshold,
      "iou_threshold": iou_threshold,
      "max_detections": max_detections,
      "per_class_nms": per_class_nms,
    }
    self.grey = grey
    self._normalize = functools.partial(normalize, mean=tuple(mean), std=tuple(std))
    # Traced arguments, so other thresholds do not recompile the program.
    self._thresholds = np.float32(score_threshold), np.float32(iou_threshold)
    detect = detection_program(
      model,
      class_names,
      image_size,
      mean=mean,
      std=std,
      max_detections=max_detections,
      per_class_nms=per_class_nms,
    )
    self._detect = jax.jit(detect, compiler_options=compiler_options())
    self._model = model
    self._variables = jax.device_put(variables)

  def _detections(self, squares, placements) -> Detections:
    found = self._detect(self._variables, squares, placements, *self._thresholds)
    return jax.device_get(found)


def check_input_size(model: nn.Module, image_size: int) -> None:
  """Raises a ValueError if the detector cannot take squares with sides of so many pixels."""
  spec = spec_of(model)
  check_image_size(image_size, 1 if spec is None else spec.stride)


def check_detection_settings(
  batch_size: int,
  score_threshold: float | None,
  iou_threshold: float | None,
  max_detections: int,
) -> None:
  """Raises a ValueError for a setting out of range; None is the default of the weights."""
  check_count("batch_size", batch_size)
  check_count("max_detections", max_detections)
  for name, value in (("score_threshold", score_threshold), ("iou_threshold", iou_threshold)):
    if value is not None:
      check_fraction(name, value)

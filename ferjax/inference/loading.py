"""Loads the predictor for a trained network."""

import os
import warnings
from collections.abc import Sequence
from typing import Any

from ferjax.inference.base import ImagePredictor
from ferjax.inference.classification import ExpressionClassifier
from ferjax.inference.detection import Predictor
from ferjax.inference.two_stage import DetectAndClassify
from ferjax.trained import TrainedNetwork
from ferjax.weights.defaults import DEFAULT_CLASSIFIER, DEFAULT_DETECTOR
from ferjax.weights.opening import Step, open_weights

Source = str | os.PathLike | TrainedNetwork


def load_predictor(
  checkpoint: Source | None = None,
  *,
  step: Step = None,
  detector: Source | None = None,
  crop_scale: float | None = None,
  crop_margin: float | Sequence[float] | None = None,
  batch_size: int = 8,
  score_threshold: float | None = None,
  iou_threshold: float | None = None,
  max_detections: int | None = None,
  per_class_nms: bool | None = None,
  image_size: int | None = None,
  flip: bool | None = None,
  logit_adjustment: float | None = None,
) -> ImagePredictor:
  """A `Predictor`, an `ExpressionClassifier` or a `DetectAndClassify`, depending on the task.

  Args:
    checkpoint: of a detector or a classifier: the name of known weights, a weights file, a training
      workdir, one checkpoint in it, or an open one; see `ferjax.weights.open_weights`. None for the
      default classifier, and the default detector unless another is given.
    step: of `checkpoint`: a number, "best", "latest", or None for the best, or the latest if none
      was evaluated.
    detector: for a classifier: a face detector, as for `checkpoint`, at its best step, or the
      latest if none was evaluated. Without it, images are treated as cropped faces.
    crop_scale, crop_margin: with a classifier and a detector only, as for `DetectAndClassify`.
    batch_size: images per batch.
    score_threshold, iou_threshold, max_detections, image_size: if faces are detected, as for
      `Predictor`.
    per_class_nms: for a detector alone, as for `Predictor`.
    flip, logit_adjustment: for a classifier, as for `ExpressionClassifier`.

  Raises:
    FileNotFoundError: a checkpoint does not exist, and is not the name of known weights.
    ValueError: a setting is out of range or does not apply to this model, one of the models
      is for another task, or this version cannot read a checkpoint.
  """
  if checkpoint is None:
    checkpoint = DEFAULT_CLASSIFIER
    detector = DEFAULT_DETECTOR if detector is None else detector
  checkpoint = _open(checkpoint, step)
  task = _task(checkpoint)
  detection = _given(
    score_threshold=score_threshold,
    iou_threshold=iou_threshold,
    max_detections=max_detections,
    image_size=image_size,
  )
  cropping = _given(crop_scale=crop_scale, crop_margin=crop_margin)
  suppression = _given(per_class_nms=per_class_nms)
  classification = _given(flip=flip, logit_adjustment=logit_adjustment)
  if task == "detection":
    if detector is not None:
      raise ValueError(
        f"{checkpoint.name} is a detector, which classifies expressions itself; omit the "
        f"detector {detector}, or pass a classifier as the checkpoint"
      )
    _refuse(
      cropping | classification,
      f"{checkpoint.name} is a detector without a classifier; pass a classifier's checkpoint",
    )
    return Predictor(checkpoint, batch_size=batch_size, **detection, **suppression)
  if detector is None:
    _refuse(
      detection | cropping | suppression,
      f"{checkpoint.name} is a classifier, which treats every image as a face; pass a detector "
      "to detect faces",
    )
    return ExpressionClassifier(checkpoint, batch_size=batch_size, **classification)
  _refuse(suppression, f"{checkpoint.name} is a classifier, which gives every face one expression")
  detector = _open(detector)
  if _task(detector) != "detection":
    raise ValueError(
      f"the detector {detector.name} is a classifier, which does not detect faces; expected the "
      "checkpoint of a detector"
    )
  return DetectAndClassify(
    Predictor(detector, batch_size=batch_size, **detection),
    ExpressionClassifier(checkpoint, batch_size=batch_size, **classification),
    **cropping,
  )


def _open(source: Source, step: Step = None) -> TrainedNetwork:
  """`open_weights`, with a warning for a network that is not trained as a whole."""
  opened = open_weights(source, step=step)
  if initialised := opened.meta.get("initialised"):
    warnings.warn(
      f"{opened.name} was imported from a part of its weights, and {', '.join(initialised)} have "
      "random values, so its results mean nothing: train it first, with "
      "config.train.pretrained",
      stacklevel=3,
    )
  return opened


def _task(checkpoint: TrainedNetwork) -> str:
  task = checkpoint.meta["task"]
  if task not in ("detection", "classification"):
    raise ValueError(
      f"{checkpoint.name} is for the task {task!r}; expected 'detection' or 'classification'"
    )
  return task


def _given(**settings: Any) -> dict:
  return {name: value for name, value in settings.items() if value is not None}


def _refuse(settings: dict, reason: str) -> None:
  """Raises a ValueError if any are set."""
  for name, value in settings.items():
    raise ValueError(f"{name} is {value}, but does not apply here: {reason}, or omit {name}")

"""Loads the predictor for a checkpoint."""

import os

from ferjax.checkpoint import Checkpoint, Step, open_checkpoint
from ferjax.inference.base import ImagePredictor
from ferjax.inference.classification import ExpressionClassifier
from ferjax.inference.detection import Predictor
from ferjax.inference.two_stage import DetectAndClassify


def load_predictor(
  checkpoint: str | os.PathLike | Checkpoint,
  *,
  step: Step = None,
  detector: str | os.PathLike | Checkpoint | None = None,
  crop_scale: float | None = None,
  batch_size: int = 8,
  score_threshold: float | None = None,
  iou_threshold: float | None = None,
  max_detections: int | None = None,
  flip: bool = False,
  logit_adjustment: float | None = None,
) -> ImagePredictor:
  """A `Predictor`, an `ExpressionClassifier` or a `DetectAndClassify`, depending on the task.

  Args:
    checkpoint: of a detector or a classifier: a training workdir, one checkpoint in it, or an open
      checkpoint.
    step: of `checkpoint`: a number, "best", "latest", or None for the best, or the latest if none
      was evaluated.
    detector: for a classifier: checkpoint of a face detector, at its best step, or the latest if
      none was evaluated. Without it, images are treated as cropped faces.
    crop_scale: with `detector` only, as for `DetectAndClassify`.
    batch_size: images per batch.
    score_threshold, iou_threshold, max_detections: if faces are detected, as for `Predictor`.
    flip, logit_adjustment: for a classifier, as for `ExpressionClassifier`.

  Raises:
    FileNotFoundError: a checkpoint does not exist.
    ValueError: a setting is out of range or does not apply to this model, one of the models
      is for another task, or this version cannot read a checkpoint.
  """
  checkpoint = open_checkpoint(checkpoint, step=step)
  task = _task(checkpoint)
  detection = _given(
    score_threshold=score_threshold, iou_threshold=iou_threshold, max_detections=max_detections
  )
  cropping = _given(crop_scale=crop_scale)
  classification = _given(flip=flip or None, logit_adjustment=logit_adjustment)
  if task == "detection":
    if detector is not None:
      raise ValueError(
        f"{checkpoint.folder} is a detector, which classifies expressions itself; omit the "
        f"detector {detector}, or pass a classifier as the checkpoint"
      )
    _refuse(
      cropping | classification,
      f"{checkpoint.folder} is a detector without a classifier; pass a classifier's checkpoint",
    )
    return Predictor(checkpoint, batch_size=batch_size, **detection)
  if detector is None:
    _refuse(
      detection | cropping,
      f"{checkpoint.folder} is a classifier, which treats every image as a face; pass a detector "
      "to detect faces",
    )
    return ExpressionClassifier(checkpoint, batch_size=batch_size, **classification)
  detector = open_checkpoint(detector)
  if _task(detector) != "detection":
    raise ValueError(
      f"the detector {detector.folder} is a classifier, which does not detect faces; expected the "
      "checkpoint of a detector"
    )
  return DetectAndClassify(
    Predictor(detector, batch_size=batch_size, **detection),
    ExpressionClassifier(checkpoint, batch_size=batch_size, **classification),
    **cropping,
  )


def _task(checkpoint: Checkpoint) -> str:
  task = checkpoint.meta["task"]
  if task not in ("detection", "classification"):
    raise ValueError(
      f"{checkpoint.folder} is for the task {task!r}; expected 'detection' or 'classification'"
    )
  return task


def _given(**settings: float | int | None) -> dict:
  return {name: value for name, value in settings.items() if value is not None}


def _refuse(settings: dict, reason: str) -> None:
  """Raises a ValueError if any are set."""
  for name, value in settings.items():
    raise ValueError(f"{name} is {value}, but does not apply here: {reason}, or omit {name}")

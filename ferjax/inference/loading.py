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
) -> ImagePredictor:
  """A `Predictor`, an `ExpressionClassifier` or a `DetectAndClassify`, by its task.

  Args:
    checkpoint: of a detector or a classifier: the folder that training wrote, or one checkpoint
      in it; or an open one.
    step: of `checkpoint`: a number, "best", "latest", or None for the best where one was
      evaluated.
    detector: for a classifier: checkpoint of the detector that finds the faces, its best where
      one was evaluated. Without it, images are treated as cropped faces.
    crop_scale: with `detector` only, as for `DetectAndClassify`.
    batch_size: images that a model sees at once.
    score_threshold, iou_threshold, max_detections: where faces are looked for, as for
      `Predictor`.

  Raises:
    FileNotFoundError: there is no such checkpoint.
    ValueError: a setting is out of range or does not apply to this model, one of the models
      is for another task, or this version cannot read a checkpoint.
  """
  checkpoint = open_checkpoint(checkpoint, step=step)
  task = _task(checkpoint)
  detection = _given(
    score_threshold=score_threshold, iou_threshold=iou_threshold, max_detections=max_detections
  )
  cropping = _given(crop_scale=crop_scale)
  if task == "detection":
    if detector is not None:
      raise ValueError(
        f"{checkpoint.folder} is a detector, which classifies expressions itself; leave out the "
        f"detector {detector}, or give a classifier as the checkpoint"
      )
    _refuse(
      cropping,
      f"{checkpoint.folder} is a detector, and there is no classifier for its boxes; pass the "
      "checkpoint of a classifier",
    )
    return Predictor(checkpoint, batch_size=batch_size, **detection)
  if detector is None:
    _refuse(
      detection | cropping,
      f"{checkpoint.folder} is a classifier, which treats every image as a face; pass a detector "
      "to detect faces",
    )
    return ExpressionClassifier(checkpoint, batch_size=batch_size)
  detector = open_checkpoint(detector)
  if _task(detector) != "detection":
    raise ValueError(
      f"the detector {detector.folder} is a classifier, which does not detect faces; expected the "
      "checkpoint of a network that detects"
    )
  return DetectAndClassify(
    Predictor(detector, batch_size=batch_size, **detection),
    ExpressionClassifier(checkpoint, batch_size=batch_size),
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
  """Raises a ValueError if there are any."""
  for name, value in settings.items():
    raise ValueError(f"{name} is {value}, but does not apply here: {reason}, or leave {name} out")

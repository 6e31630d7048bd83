"""The predictor of a command: its options, and how it is loaded."""

import argparse
from typing import TYPE_CHECKING, Any

from ferjax._version import __version__
from ferjax.commands.options import Add, add_detection_options, crop_margin
from ferjax.weights.defaults import DEFAULT_CLASSIFIER, DEFAULT_DETECTOR

if TYPE_CHECKING:
  from ferjax.inference.base import ImagePredictor

DEFAULT_WEIGHTS = "the weights of a classifier and a detector that come with ferjax"


def add_classifier_options(add: Add) -> None:
  """Adds the settings of a classifier."""
  add(
    "--flip",
    action=argparse.BooleanOptionalAction,
    help="a classifier averages the probabilities of a face and its mirror image: twice the time "
    "(default: as the weights say, or no)",
  )
  add(
    "--logit-adjustment",
    type=float,
    metavar="T",
    help="a classifier subtracts T times the logarithm of the classes' frequencies in training: "
    "above 0, rare expressions become more probable (default: as the weights say, or 0)",
  )


def add_face_detection_options(add: Add) -> None:
  """Adds a detector for a classifier, and the settings of any detector."""
  add(
    "--detector",
    metavar="WEIGHTS",
    help="a detector, if --checkpoint is a classifier; named like --checkpoint",
  )
  add(
    "--crop-scale",
    type=float,
    metavar="S",
    help="side of the classifier's square crop, relative to the longer side of the detector's box "
    "(default: the margins of the classifier's weights, or 1.2)",
  )
  add(
    "--crop-margin",
    type=crop_margin,
    metavar="M",
    help="margins of the classifier's crop around the box instead, relative to the box: one "
    "number, or left,top,right,bottom",
  )
  add_detection_options(add, max_detections=100)


def load(arguments: argparse.Namespace, *, batch_size: int) -> "ImagePredictor":
  """Loads the predictor that the options describe; errors as for `load_predictor`."""
  from ferjax.inference.loading import load_predictor

  return load_predictor(
    arguments.checkpoint,
    step=arguments.step,
    detector=arguments.detector,
    crop_scale=arguments.crop_scale,
    crop_margin=arguments.crop_margin,
    batch_size=batch_size,
    score_threshold=arguments.score_threshold,
    iou_threshold=arguments.iou_threshold,
    max_detections=arguments.max_detections,
    per_class_nms=arguments.per_class_nms,
    flip=arguments.flip,
    logit_adjustment=arguments.logit_adjustment,
  )


def detector_name(arguments: argparse.Namespace) -> str | None:
  """The name or path of the detector; None without one."""
  if arguments.checkpoint is None and arguments.detector is None:
    return DEFAULT_DETECTOR
  return arguments.detector


def header(arguments: argparse.Namespace, predictor: "ImagePredictor") -> dict[str, Any]:
  """The fields that describe the predictor: the header of predictions.json."""
  detector = detector_name(arguments)
  return {
    "ferjax": __version__,
    "checkpoint": arguments.checkpoint or DEFAULT_CLASSIFIER,
    "step": predictor.step,
    **({} if detector is None else {"detector": detector}),
    **predictor.settings,
  }

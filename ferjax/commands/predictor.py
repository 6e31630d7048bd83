"""The predictor of a command: its options, and how it is loaded."""

import argparse
from typing import TYPE_CHECKING, Any

from ferjax._version import __version__
from ferjax.commands.options import Add, add_detection_options, crop_margin
from ferjax.weights.defaults import DEFAULT_CLASSIFIER, DEFAULT_DETECTOR

if TYPE_CHECKING:
  from ferjax.inference.base import ImagePredictor

DEFAULT_WEIGHTS = "the weights of a classifier and a detector that come with ferjax"
# Settings that are parts of an exported program.
_IN_PROGRAMS = ("max_detections", "per_class_nms", "image_size", "flip", "logit_adjustment")


def add_exported_option(add: Add) -> None:
  """Adds an exported program instead of weights."""
  add(
    "--exported",
    metavar="FILE",
    help="a file of `ferjax export` with a program (.stablehlo, .onnx), instead of --checkpoint",
  )


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
  """Loads the predictor that the options describe.

  Raises:
    ValueError, OSError: as `load_predictor` and `load_exported`; or an option does not apply to an
      exported program.
    ImportError: the exported file needs a package that is not installed.
  """
  options: dict[str, Any] = {
    name: getattr(arguments, name)
    for name in ("detector", "crop_scale", "crop_margin", "score_threshold", "iou_threshold")
  }
  in_programs = {name: getattr(arguments, name) for name in _IN_PROGRAMS}
  if arguments.exported is None:
    from ferjax.inference.loading import load_predictor

    given = options | in_programs
    return load_predictor(arguments.checkpoint, step=arguments.step, batch_size=batch_size, **given)
  from ferjax.export.predictors import load_exported

  for name in ("checkpoint", "step", *_IN_PROGRAMS):
    if getattr(arguments, name) is not None:
      option = "--" + name.replace("_", "-")
      raise ValueError(
        f"{option} does not apply to --exported {arguments.exported}, whose program is complete; "
        f"omit it, or give it to `ferjax export`"
      )
  return load_exported(arguments.exported, batch_size=batch_size, **options)


def detector_name(arguments: argparse.Namespace) -> str | None:
  """The name or path of the detector; None without one."""
  sources = (arguments.exported, arguments.checkpoint, arguments.detector)
  return DEFAULT_DETECTOR if sources == (None, None, None) else arguments.detector


def default_batch_size(arguments: argparse.Namespace) -> int:
  """The number of images, or frames, in a batch: 8, but 2 with a detector on a CPU.

  Two are as fast there as eight, and need a third of the memory.
  """
  import jax

  return 2 if detector_name(arguments) is not None and jax.default_backend() == "cpu" else 8


def header(arguments: argparse.Namespace, predictor: "ImagePredictor") -> dict[str, Any]:
  """The fields that describe the predictor: the header of predictions.json."""
  detector = detector_name(arguments)
  return {
    "ferjax": __version__,
    "checkpoint": arguments.exported or arguments.checkpoint or DEFAULT_CLASSIFIER,
    "step": predictor.step,
    **({} if detector is None else {"detector": detector}),
    **predictor.settings,
  }

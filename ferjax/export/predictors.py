"""Predictors that run an exported file instead of a network of this package."""

import os
import pathlib
import pkgutil
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from ferjax.export.exported_file import ExportedFile
from ferjax.export.options import FORMATS
from ferjax.inference.base import ImagePredictor, check_count
from ferjax.inference.classification import DEFAULTS, FaceClassifier
from ferjax.inference.detection import FaceDetector, Predictor, check_detection_settings
from ferjax.inference.two_stage import DetectAndClassify
from ferjax.trained import TrainedNetwork
from ferjax.typing import Classifications, Detections
from ferjax.weights.settings import check_margin

Source = str | os.PathLike | TrainedNetwork


def load_exported(
  file: str | os.PathLike,
  *,
  detector: Source | None = None,
  crop_scale: float | None = None,
  crop_margin: float | Sequence[float] | None = None,
  batch_size: int = 8,
  score_threshold: float | None = None,
  iou_threshold: float | None = None,
) -> ImagePredictor:
  """A predictor that runs an exported file; the answers are those of `ferjax.load_predictor`.

  Args:
    file: written by `ferjax export`, in a format that contains a program.
    detector: for a classifier: an exported detector, or one as for `ferjax.load_predictor`.
    crop_scale, crop_margin: with a classifier and a detector only, as for `DetectAndClassify`.
    batch_size: images per batch.
    score_threshold, iou_threshold: if faces are detected; None for those of the file or weights.

  Raises:
    FileNotFoundError: a file does not exist.
    ValueError: a file is damaged, contains no program, or a newer version wrote it; or a setting is
      out of range or does not apply.
    ImportError: a library is missing; the message names the command that installs it.
  """
  exported = open_exported(file)
  thresholds = {"score_threshold": score_threshold, "iou_threshold": iou_threshold}
  cropping = {"crop_scale": crop_scale, "crop_margin": crop_margin}
  if exported.description["task"] == "detection":
    if detector is not None:
      raise ValueError(f"{file} is a detector, which classifies expressions; omit {detector}")
    _refuse(cropping, f"{file} is a detector without a classifier")
    return ExportedDetector(exported, batch_size=batch_size, **thresholds)
  classifier = ExportedClassifier(exported, batch_size=batch_size)
  if detector is None:
    _refuse(
      thresholds | cropping,
      f"{file} is a classifier, which treats every image as a face; add a detector",
    )
    return classifier
  return DetectAndClassify(_detector(detector, batch_size, thresholds), classifier, **cropping)


def _detector(source: Source, batch_size: int, thresholds: dict) -> FaceDetector:
  if isinstance(source, TrainedNetwork) or _format_of(source) is None:
    return Predictor(source, batch_size=batch_size, **thresholds)
  exported = open_exported(source)
  if exported.description["task"] != "detection":
    raise ValueError(f"the detector {source} is a classifier; expected a detector")
  return ExportedDetector(exported, batch_size=batch_size, **thresholds)


def _refuse(settings: dict, reason: str) -> None:
  for name, value in settings.items():
    if value is not None:
      raise ValueError(f"{name} is {value}, but does not apply here: {reason}, or omit {name}")


def _format_of(file: str | os.PathLike) -> str | None:
  """The format with a program that the suffix names."""
  suffix = pathlib.PurePath(file).suffix
  return next((name for name, x in FORMATS.items() if x.reader and x.suffix == suffix), None)


def open_exported(file: str | os.PathLike) -> ExportedFile:
  """Opens an exported file that contains a program; errors are those of `load_exported`."""
  kind = _format_of(file)
  if kind is None:
    known = " or ".join(x.suffix for x in FORMATS.values() if x.reader)
    raise ValueError(
      f"{os.fspath(file)!r} is no exported program; expected a file of `ferjax export` that ends "
      f"in {known}. Weights files and checkpoints are given with --checkpoint"
    )
  path = pathlib.Path(file).expanduser()
  if not path.is_file():
    raise FileNotFoundError(f"{file}: no such file; `ferjax export` writes exported files")
  exported = pkgutil.resolve_name(FORMATS[kind].reader)(path)
  if exported.description["raw"]:
    raise ValueError(
      f"{file} has the outputs of the network, without boxes and probabilities; export it without "
      "--raw"
    )
  return exported


class ExportedDetector(FaceDetector):
  """Detects faces with an exported detector."""

  def __init__(
    self,
    exported: ExportedFile,
    *,
    batch_size: int = 8,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
  ):
    """Takes the thresholds of the file where they are None; errors as for `Predictor`."""
    description = exported.description
    names = ("score_threshold", "iou_threshold", "max_detections")
    settings: dict[str, Any] = {
      name: x for name, x in description["settings"].items() if name in names
    }
    if len(settings) < len(names):
      raise ValueError(
        f"the exported detector has the settings {', '.join(settings) or 'none'}; expected "
        f"{', '.join(names)}: export it again"
      )
    given = {"score_threshold": score_threshold, "iou_threshold": iou_threshold}
    settings |= {name: x for name, x in given.items() if x is not None}
    check_detection_settings(batch_size, **settings)
    self.class_names = tuple(description["class_names"])
    self.image_size = description["image_size"]
    self.grey = description["grey"]
    self.step, self.digest = description["step"], exported.digest
    self.batch_size = batch_size
    self.settings = {**settings, "per_class_nms": False}
    self._call = exported.call

  def _detections(
    self, squares: UInt8[np.ndarray, "b s s c"], placements: Float[np.ndarray, "b 6"]
  ) -> Detections:
    names = ("score_threshold", "iou_threshold")
    thresholds = (np.asarray(self.settings[name], np.float32) for name in names)
    return Detections(**self._call(squares, placements, *thresholds))


class ExportedClassifier(FaceClassifier):
  """Classifies face images with an exported classifier."""

  def __init__(self, exported: ExportedFile, *, batch_size: int = 8):
    """Raises a ValueError if the batch size is not positive."""
    check_count("batch_size", batch_size)
    description = exported.description
    settings = dict(description["settings"])
    if (margin := settings.pop("crop_margin", None)) is not None:
      self.crop_margin = check_margin(margin)
    self.class_names = tuple(description["class_names"])
    self.image_size = description["image_size"]
    self.resize, self.grey = description["resize"], description["grey"]
    self.step, self.digest = description["step"], exported.digest
    self.batch_size = batch_size
    self.settings = {name: x for name, x in settings.items() if x != DEFAULTS.get(name)}
    self._call = exported.call

  def _classifications(self, views: UInt8[np.ndarray, "b s s c"]) -> Classifications:
    return Classifications(**self._call(views))

"""The program of prediction of a trained network: what every exported file computes."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ferjax.export.options import PREDICTION, ExportOptions
from ferjax.inference.classification import DEFAULTS, classification_program
from ferjax.inference.detection import (
  IOU_THRESHOLD,
  MAX_DETECTIONS,
  SCORE_THRESHOLD,
  check_detection_settings,
  detection_program,
)
from ferjax.models import create_model
from ferjax.ops.normalize import normalize
from ferjax.tasks.detection.task import DetectionTask
from ferjax.trained import TrainedNetwork

Shape = tuple[int | str, ...]  # "b" is the batch


class Program(NamedTuple):
  """What an exported file computes.

  Attributes:
    function: (variables, *arguments) -> name of each output -> array, for `jax.jit`.
    arguments: name -> shape and type of each argument after the variables.
    settings: of prediction; those in the program and, for a detector, the defaults of its
      thresholds.
    inputs, outputs: text for people on each argument and each output.
  """

  function: Callable[..., Any]
  arguments: Mapping[str, tuple[Shape, Any]]
  settings: dict[str, Any]
  inputs: dict[str, str]
  outputs: dict[str, str]


def prediction_program(
  opened: TrainedNetwork, options: ExportOptions, dtype: str | None = None
) -> Program:
  """The program of `ferjax predict` for a detector or a classifier.

  Args:
    opened: the network.
    options: of the export.
    dtype: replaces the network's, if it is not None.

  Raises:
    ValueError: the network is for another task, or a setting is out of range or does not apply.
  """
  _check_task(opened)
  return _PROGRAMS[opened.meta["task"]](opened, options, dtype)


def raw_program(
  opened: TrainedNetwork, options: ExportOptions, dtype: str | None = None
) -> Program:
  """The network's own outputs; arguments and errors are those of `prediction_program`.

  The cells of a detector's maps are one after the other, map by map, in row-major order.
  """
  _check_task(opened)
  settings = {name: getattr(options, name) for name in PREDICTION}
  for name, value in settings.items():
    if value is not None:
      raise ValueError(f"{name} is {value}, but does not apply to raw outputs; omit it, or raw")
  meta = opened.meta
  model = _network(opened, dtype)

  def raw(variables: dict[str, Any], image: Array) -> dict[str, Array]:
    image = normalize(image, meta["mean"], meta["std"])
    output: Any = model.apply(variables, image, train=False)
    if meta["task"] == "classification":
      return {"logits": output.logits}
    levels = [x.reshape(x.shape[0], -1, x.shape[-1]) for x in output.levels]
    return {"cells": jnp.concatenate(levels, axis=1)}

  arguments = {"image": (_image_shape(meta), np.uint8)}
  return Program(raw, arguments, {}, {"image": _image_text(meta)}, _RAW[meta["task"]])


_RAW = {
  "detection": {
    "cells": "float32 [b, a, 5 + k]: for each cell of the maps, finest first, x, y, w, h, and the "
    "logits of objectness and of each class. The centre of the box is ((x, y) + (column, row)) * "
    "stride, and its size is exp((w, h)) * stride, in pixels of the image"
  },
  "classification": {"logits": "float32 [b, k]: of each class"},
}


def candidates_program(
  opened: TrainedNetwork, dtype: str | None = None
) -> Callable[..., dict[str, Array]]:
  """(variables, image, placement) -> the fields of `Candidates`, of a detector."""
  meta = opened.meta
  model, task = _network(opened, dtype), DetectionTask(tuple(meta["class_names"]))

  def candidates(variables: dict[str, Any], image: Array, placement: Array) -> dict[str, Array]:
    image = normalize(image, meta["mean"], meta["std"])
    output: Any = model.apply(variables, image, train=False)
    size = meta["image_size"]
    return task.candidates(output, image_size=size, placement=placement)._asdict()

  return candidates


def _check_task(opened: TrainedNetwork) -> None:
  task = opened.meta["task"]
  if task not in _PROGRAMS:
    raise ValueError(f"{opened.name} is for the task {task!r}; expected {' or '.join(_PROGRAMS)}")


def _network(opened: TrainedNetwork, dtype: str | None) -> nn.Module:
  change = {} if dtype is None else {"dtype": dtype}
  return opened.build_model(lambda **arguments: create_model(**{**arguments, **change}))


def _refuse(opened: TrainedNetwork, task: str, **settings: Any) -> None:
  for name, value in settings.items():
    if value is not None:
      raise ValueError(f"{name} is {value}, but {opened.name} is for {task}; omit {name}")


def _detector(opened: TrainedNetwork, options: ExportOptions, dtype: str | None) -> Program:
  _refuse(opened, "detection", flip=options.flip, logit_adjustment=options.logit_adjustment)
  given = options.given()
  settings = {
    "score_threshold": SCORE_THRESHOLD,
    "iou_threshold": IOU_THRESHOLD,
    "max_detections": MAX_DETECTIONS,
    **opened.settings,
  }
  settings |= {name: given[name] for name in settings if name in given}
  check_detection_settings(1, **settings)
  meta = opened.meta
  size = meta["image_size"]
  function = detection_program(
    _network(opened, dtype),
    meta["class_names"],
    size,
    mean=meta["mean"],
    std=meta["std"],
    max_detections=settings["max_detections"],
    per_class_nms=False,
  )
  arguments = {
    "image": (_image_shape(meta), np.uint8),
    "placement": (("b", 6), np.float32),
    "score_threshold": ((), np.float32),
    "iou_threshold": ((), np.float32),
  }
  inputs = {
    "image": f"{_image_text(meta)}: the image, reduced or enlarged to fit, and padded",
    "placement": "float32 [b, 6]: scale x, scale y, left, top, width and height. A pixel of the "
    "original image, of this width and height, is at original * scale + (left, top)",
    "score_threshold": "float32 []: faces below it are dropped",
    "iou_threshold": "float32 []: of two boxes with a higher IoU, the one with the lower score is "
    "dropped",
  }
  return Program(_named(function), arguments, settings, inputs, _DETECTIONS)


_DETECTIONS = {
  "boxes": "float32 [b, d, 4]: left, top, right, bottom in pixels of the original image",
  "scores": "float32 [b, d], decreasing: objectness times the probability of the best class",
  "labels": "int32 [b, d]: index of the best class",
  "class_scores": "float32 [b, d, k]: objectness times the probability of each class",
  "mask": "bool [b, d]: whether there is a face in this row",
}


def _classifier(opened: TrainedNetwork, options: ExportOptions, dtype: str | None) -> Program:
  detection = ("score_threshold", "iou_threshold", "max_detections")
  _refuse(opened, "classification", **{name: getattr(options, name) for name in detection})
  meta = opened.meta
  settings = {**DEFAULTS, **opened.settings}
  for name in ("flip", "logit_adjustment"):
    if getattr(options, name) is not None:
      settings[name] = getattr(options, name)
  function = classification_program(
    _network(opened, dtype),
    meta["class_names"],
    mean=meta["mean"],
    std=meta["std"],
    flip=settings["flip"],
    logit_adjustment=settings["logit_adjustment"],
    temperature=settings["temperature"],
    class_prior=meta.get("class_prior", ()),
  )
  inputs = {"image": f"{_image_text(meta)}: a face, resized and cropped to its middle"}
  outputs = {
    "probabilities": "float32 [b, k]: of each class",
    "labels": "int32 [b]: index of the most probable class",
  }
  arguments = {"image": (_image_shape(meta), np.uint8)}
  return Program(_named(function), arguments, settings, inputs, outputs)


def _named(function: Callable[..., Any]) -> Callable[..., Any]:
  """Returns a dict instead of a type that a program without ferjax does not have."""
  return lambda *arguments: function(*arguments)._asdict()


def _image_shape(meta) -> Shape:
  return "b", meta["image_size"], meta["image_size"], 1 if meta["grey"] else 3


def _image_text(meta) -> str:
  size = meta["image_size"]
  return f"uint8 [b, {size}, {size}, 1], grey" if meta["grey"] else f"uint8 [b, {size}, {size}, 3]"


_PROGRAMS = {"detection": _detector, "classification": _classifier}

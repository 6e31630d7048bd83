"""Compares a written ONNX file with JAX, on photographs or drawings."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ferjax.export.onnx.images import example_images, kind_of_images, program_inputs
from ferjax.export.onnx.libraries import require
from ferjax.export.onnx.reader import open_session
from ferjax.export.options import ExportOptions
from ferjax.export.programs import Program, candidates_program
from ferjax.tasks.detection.task import Candidates, DetectionTask
from ferjax.trained import TrainedNetwork

TOLERANCE = 1e-4
DTYPE = "float32"  # onnxruntime has no bfloat16 on CPUs
_MAX_IMAGES = 16
_DRAWINGS = 4


def compare(
  file: pathlib.Path,
  opened: TrainedNetwork,
  program: Program,
  variables: dict[str, Any],
  cells: Mapping[str, str],
  options: ExportOptions,
) -> str:
  """Runs a file with onnxruntime, as a batch and with the first image alone.

  A difference is relative to the largest number that is usual: 1 for probabilities and logits, the
  image's side for boxes.

  Args:
    file: written by `ferjax.export.onnx.writer.write`.
    opened: the network.
    program: what the file should compute.
    variables: of the network.
    cells: names of the tensors with a detector's candidates; empty if it has none.
    options: of the export.

  Returns:
    A line with the largest difference.

  Raises:
    ValueError: a difference is larger than `TOLERANCE`.
    OSError, ImageError: an image cannot be read.
  """
  images = example_images(opened, options.images, most=_MAX_IMAGES, drawings=_DRAWINGS)
  arrays = program_inputs(opened, images)[: len(program.arguments)]
  model = _with_outputs(file, cells)
  session = open_session(model, str(file))
  outputs = [x.name for x in session.get_outputs()]
  function = candidates_program(opened, DTYPE) if cells else program.function
  expected = jax.device_get(jax.jit(function)(variables, *arrays))
  largest = 0.0
  for size in (1, len(images)):
    given = dict(zip(program.arguments, (x[:size] for x in arrays), strict=False))
    found = dict(zip(outputs, session.run(outputs, given), strict=True))
    rows = {name: x[:size] for name, x in expected.items()}
    if cells:
      found_cells = {field: found.pop(name) for field, name in cells.items()}
      side = float(opened.meta["image_size"])
      scales = {"boxes": side, "input_boxes": side}
      largest = max(largest, _difference(found_cells, rows, scales))
      rows = _selected(opened, program, found_cells)
      largest = max(largest, _difference(found, rows, scales))
    else:
      largest = max(largest, _difference(found, rows, {}))
  if not largest <= TOLERANCE:
    raise ValueError(
      f"onnxruntime's answers differ from JAX's by {largest:.1e}, which is more than "
      f"{TOLERANCE:.0e}; the file is not written. Other versions of onnx and onnxruntime may help, "
      "or the format stablehlo"
    )
  shown = kind_of_images(options.images)
  return f"largest difference from JAX on {len(images)} {shown}: {largest:.1e}"


def _selected(
  opened: TrainedNetwork, program: Program, cells: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """The detections that JAX selects from these candidates."""
  task = DetectionTask(tuple(opened.meta["class_names"]))
  candidates = jax.tree.map(jax.numpy.asarray, Candidates(**cells))
  detections, _ = task.select(candidates, per_class_nms=False, **program.settings)
  return jax.device_get(detections)._asdict()


# The order of equal scores, and whether a box touches the image, may depend on rounding.
_ROUNDED = ("labels", "eligible")


def _difference(
  found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], scales: Mapping[str, float]
) -> float:
  """The largest difference of all fields, relative to the scale of each; 1 if it has none."""
  largest = 0.0
  for name in expected.keys() - set(_ROUNDED):
    a, b = (np.asarray(x[name], np.float64) for x in (found, expected))
    if a.shape != b.shape:
      return math.inf
    scale = np.maximum(scales.get(name, 1.0), np.abs(b))
    largest = max(largest, float(np.max(np.abs(a - b) / scale, initial=0)))
  return largest


def _with_outputs(file: pathlib.Path, tensors: Mapping[str, str]) -> bytes:
  """The file, with these tensors as further outputs."""
  onnx = require("onnx")
  model = onnx.load(str(file))
  model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors.values())
  return model.SerializeToString()

"""Compares a written ONNX file with JAX, on photographs or drawings."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ferjax.data.classification.views import center_view
from ferjax.data.image import decode, letterbox, luma
from ferjax.data.image_files import list_images
from ferjax.data.synthetic.faces import SyntheticFaces
from ferjax.data.synthetic.scenes import MIN_IMAGE_SIZE, SyntheticScenes
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
  images = _images(opened, options.images)
  arrays = _inputs(opened, images)[: len(program.arguments)]
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
  kind = "images" if options.images else "drawings"
  return f"largest difference from JAX on {len(images)} {kind}: {largest:.1e}"


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


def _images(opened: TrainedNetwork, paths: Sequence[str]) -> list[np.ndarray]:
  if paths:
    files: list[pathlib.Path] = []
    for path in map(pathlib.Path, paths):
      files += list_images(path, recursive=False).files if path.is_dir() else [path]
    if not files:
      raise ValueError(f"--images is {' '.join(paths)}, without an image; expected at least one")
    return [decode(path) for path in files[:_MAX_IMAGES]]
  size = max(opened.meta["image_size"], MIN_IMAGE_SIZE)
  kind = SyntheticScenes if opened.meta["task"] == "detection" else SyntheticFaces
  drawings = kind(_DRAWINGS, image_size=size, seed=0)
  # Not all of them square.
  return [drawings[i]["image"][i * size // 8 :] for i in range(_DRAWINGS)]


def _inputs(opened: TrainedNetwork, images: Sequence[np.ndarray]) -> list[np.ndarray]:
  """The arguments of the program for a batch of images."""
  meta = opened.meta
  if meta["task"] == "classification":
    options = {"resize": meta["resize"], "grey": meta["grey"]}
    views = np.stack([center_view(image, meta["image_size"], **options) for image in images])
    return [views[..., :1] if meta["grey"] else views]
  squares, placements = zip(*(letterbox(x, meta["image_size"]) for x in images), strict=True)
  squares = [luma(square) for square in squares] if meta["grey"] else squares
  return [np.stack(squares), np.stack(placements)]

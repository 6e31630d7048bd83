"""Replaces an ONNX file by a smaller one, and says what that gains and loses."""

import json
import pathlib
from typing import Any

import numpy as np

from ferjax.data.sources import Source
from ferjax.export.description import KEY, ExportDescription
from ferjax.export.onnx.checksum import BLANK, with_checksum
from ferjax.export.onnx.images import example_images, kind_of_images, program_inputs
from ferjax.export.onnx.libraries import require
from ferjax.export.onnx.losses import (
  agreement,
  evaluate,
  labelled_drawings,
  latencies,
  open_labelled,
)
from ferjax.export.onnx.quantization import quantize
from ferjax.export.onnx.reader import open_model
from ferjax.export.options import ExportOptions
from ferjax.trained import TrainedNetwork

_MAX_IMAGES = 200
_DRAWINGS = 16


def labelled_data(opened: TrainedNetwork, options: ExportOptions) -> Source | None:
  """Images to measure a smaller file on: the data set of the options, or else drawings.

  None for a float32 file, or if the network's classes are not drawn. Errors are those of
  `open_labelled`.
  """
  meta = opened.meta
  if options.data_set:
    return open_labelled(options.data_set, options.split, meta["task"], meta["class_names"])
  if not options.quantize:
    return None
  return labelled_drawings(meta["task"], meta["class_names"], meta["image_size"])


def make_smaller(
  file: pathlib.Path, opened: TrainedNetwork, options: ExportOptions, source: Source | None
) -> str:
  """Quantises a file in place; what it loses is in its description, too.

  Args:
    file: written in float32.
    opened: its network.
    options: of the export; `quantize` is not "".
    source: labelled images; None for none.

  Returns:
    Lines with size, latency, agreement and accuracy.

  Raises:
    OSError, ImageError: an image cannot be read.
    ImportError: a library is missing.
  """
  onnx = require("onnx")
  before = file.read_bytes()
  model = onnx.load_from_string(before)
  full = open_model(before, str(file))
  images = example_images(opened, options.images, most=_MAX_IMAGES, drawings=_DRAWINGS)
  feeds = [_feed(opened, image) for image in images]
  quantized = quantize(model, options.quantize, feeds)
  on = f"{len(images)} {kind_of_images(options.images)}"
  figures: dict[str, Any] = {"kind": options.quantize, "images": on}
  description: ExportDescription = {
    **full.description,
    "quantization": figures,
    "sha256": BLANK,
  }
  smaller = open_model(_with_description(quantized, description), str(file))
  figures["agreement"] = agreement(smaller, full, images)
  if source is not None:
    # Without the folder, which is nobody's business but the user's.
    named = " ".join([pathlib.Path(options.data_set).name, options.split]).strip()
    figures["data_set"] = named or f"{len(source)} labelled drawings"
    figures["accuracy"] = evaluate(smaller, source)
    figures["float32_accuracy"] = evaluate(full, source)
  after = _with_description(quantized, description)
  file.write_bytes(after)
  times = latencies([before, after], feeds[0])
  return "\n".join(_lines(figures, (len(before), len(after)), times))


def _feed(opened: TrainedNetwork, image: np.ndarray) -> dict[str, np.ndarray]:
  return dict(zip(("image", "placement"), program_inputs(opened, [image]), strict=False))


def _with_description(model: Any, description: ExportDescription) -> bytes:
  text = json.dumps(description, allow_nan=False)
  require("onnx").helper.set_model_props(model, {KEY: text})
  return with_checksum(model.SerializeToString())


def _lines(figures: dict[str, Any], sizes: tuple[int, int], times: list[float]) -> list[str]:
  kind, same = figures["kind"], figures["agreement"]
  lines = [
    f"{kind} in place of float32: {sizes[1] / 1e6:.2f} MB instead of {sizes[0] / 1e6:.2f}; "
    f"{times[1] * 1e3:.3g} ms instead of {times[0] * 1e3:.3g} for one image, with one thread"
  ]
  found = f"{figures['images']}: {same['found']} of {same['faces']} faces found"
  found += f", {same['additional']} additional" if same["additional"] else ""
  if "same_expression" in same:
    found += (
      f"; {same['same_expression']:.1%} of them have the expression of float32, and the largest "
      f"difference of a score is {same['largest_difference']:.1e}"
    )
  lines.append(found)
  if "accuracy" in figures:
    changes = (
      f"{name} {value:.4f} instead of {figures['float32_accuracy'][name]:.4f}"
      for name, value in figures["accuracy"].items()
    )
    lines.append(f"{figures['data_set']}: {', '.join(changes)}")
  return lines

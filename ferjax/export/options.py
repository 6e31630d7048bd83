"""The formats, and the options of each."""

import dataclasses
from typing import Any, NamedTuple

PARAMETERS = ("inside", "arguments")
QUANTIZE = ("float16", "dynamic", "static")


@dataclasses.dataclass(frozen=True)
class ExportOptions:
  """Options of an export; None is the default of the weights or of prediction.

  Attributes:
    raw: without decoding of boxes, non-maximum suppression and softmax: the network's outputs.
    parameters: "inside" the program, or "arguments" of it.
    score_threshold, iou_threshold, max_detections: of a detector, as for
      `ferjax.inference.detection.Predictor`.
    flip, logit_adjustment: of a classifier, as for
      `ferjax.inference.classification.ExpressionClassifier`.
    images: files or folders on which the exported file is compared with JAX, and from which a
      static quantisation has its ranges; empty for drawings.
    dtype: of the kernels in the file: "float32" or "float16".
    quantize: one of `QUANTIZE`, as for `ferjax.export.onnx.quantization.quantize`; "" for float32.
    data_set, split: labelled images on which the quantised file is measured, as for
      `ferjax.export.onnx.losses.open_labelled`; "" for none.
  """

  raw: bool = False
  parameters: str = "inside"
  score_threshold: float | None = None
  iou_threshold: float | None = None
  max_detections: int | None = None
  flip: bool | None = None
  logit_adjustment: float | None = None
  images: tuple[str, ...] = ()
  dtype: str = "float32"
  quantize: str = ""
  data_set: str = ""
  split: str = ""

  def given(self) -> dict[str, Any]:
    """The options that differ from their defaults."""
    default = ExportOptions()
    values = dataclasses.asdict(self)
    return {name: x for name, x in values.items() if x != getattr(default, name)}


PREDICTION = (
  "score_threshold",
  "iou_threshold",
  "max_detections",
  "flip",
  "logit_adjustment",
)


class Format(NamedTuple):
  """One format.

  Attributes:
    writer: location of the function `write(opened, file, options)`, which writes a
      `ferjax.trained.TrainedNetwork` to a path and returns a line about the file, or "".
    suffix: of the file.
    options: the fields of `ExportOptions` that apply.
    reader: location of the function `read(file)`, which returns an `ExportedFile`; "" for a format
      without a program.
  """

  writer: str
  suffix: str
  options: tuple[str, ...] = ()
  reader: str = ""


FORMATS = {
  "stablehlo": Format(
    "ferjax.export.stablehlo:write",
    ".stablehlo",
    (*PREDICTION, "parameters"),
    "ferjax.export.stablehlo:read",
  ),
  "onnx": Format(
    "ferjax.export.onnx.writer:write",
    ".onnx",
    (*PREDICTION, "raw", "images", "quantize", "data_set", "split"),
    "ferjax.export.onnx.reader:read",
  ),
  "safetensors": Format("ferjax.export.safetensors_file:write", ".safetensors", ("dtype",)),
  "torch": Format("ferjax.export.torch_file:write", ".pth"),
}

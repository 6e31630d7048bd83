"""Smaller ONNX files: kernels in float16, or int8 by onnxruntime's quantiser.

The kernels are those of convolutions and of matrix products with a constant, which is nearly the
whole file. The scan, the decoding of boxes and their suppression stay in float32.
"""

import contextlib
import importlib
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ferjax.export.onnx.libraries import require

_LAYERS = ("Conv", "MatMul")
_INSTALLED = "onnxruntime.quantization"


def quantize(model: Any, kind: str, feeds: Sequence[Mapping[str, np.ndarray]]) -> Any:
  """A smaller `onnx.ModelProto` with the same inputs and outputs, without metadata.

  Args:
    model: an `onnx.ModelProto` in float32, which stays as it is.
    kind: "float16": kernels are stored as float16, and computed with in float32. "dynamic": int8
      kernels; the range of each layer's input is taken from the input. "static": int8 kernels and
      inputs, whose ranges are those on `feeds`.
    feeds: inputs by name, for "static".

  Raises:
    ImportError: a library is missing.
  """
  copy = type(model)()
  copy.CopyFrom(model)
  del copy.metadata_props[:]
  if kind == "float16":
    _store_kernels_as_float16(copy)
    return copy
  return _in_int8(copy, kind, feeds)


def _store_kernels_as_float16(model: Any) -> None:
  onnx = require("onnx")
  graph = model.graph
  kernels = {name for node in graph.node if node.op_type in _LAYERS for name in node.input}
  kernels -= {x.name for x in graph.input}
  casts = []
  for tensor in graph.initializer:
    if tensor.name not in kernels or tensor.data_type != onnx.TensorProto.FLOAT:
      continue
    values = onnx.numpy_helper.to_array(tensor)
    if values.ndim < 2 or np.abs(values).max(initial=0) > np.finfo(np.float16).max:
      continue
    name = tensor.name
    stored = f"{name}_float16"
    tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), stored))
    cast = onnx.helper.make_node(
      "Cast", [stored], [name], name=f"Cast_{name}", to=onnx.TensorProto.FLOAT
    )
    casts.append(cast)
  nodes = [*casts, *graph.node]
  del graph.node[:]
  graph.node.extend(nodes)


def _in_int8(model: Any, kind: str, feeds: Sequence[Mapping[str, np.ndarray]]) -> Any:
  onnx = require("onnx")
  require("onnxruntime")
  library = importlib.import_module(_INSTALLED)
  # Says that the graph is simplified already; the quantiser logs a warning otherwise.
  onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
  options = {
    "op_types_to_quantize": list(_LAYERS),
    "nodes_to_exclude": _last_layers(model.graph),
    "extra_options": {"MatMulConstBOnly": True},
  }
  with tempfile.TemporaryDirectory() as folder, _quiet():
    output = pathlib.Path(folder, "quantized.onnx")
    if kind == "dynamic":
      # onnxruntime has no convolution on CPUs of unsigned inputs with signed kernels.
      library.quantize_dynamic(model, output, weight_type=library.QuantType.QUInt8, **options)
    else:
      library.quantize_static(
        model,
        output,
        _reader(library, feeds),
        per_channel=True,
        # 7 bits: sums of two products do not overflow the 16 bits of CPUs without VNNI.
        reduce_range=True,
        activation_type=library.QuantType.QUInt8,
        weight_type=library.QuantType.QInt8,
        **options,
      )
    quantized = onnx.load(str(output))
  del quantized.metadata_props[:]
  return quantized


def _last_layers(graph: Any) -> list[str]:
  """The layers without another layer behind them, whose outputs are logits and boxes."""
  before_layer: set[str] = set()
  last = []
  for node in reversed(graph.node):
    is_layer = node.op_type in _LAYERS
    leads_to_layer = not before_layer.isdisjoint(node.output)
    if is_layer and not leads_to_layer:
      last.append(node.name)
    if is_layer or leads_to_layer:
      before_layer.update(node.input)
  return last


def _reader(library: Any, feeds: Sequence[Mapping[str, np.ndarray]]) -> Any:
  class Reader(library.CalibrationDataReader):
    def __init__(self):
      self.feeds = iter(feeds)

    def get_next(self):
      return next(self.feeds, None)

  return Reader()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Without onnxruntime's warnings about the calibration's own graph."""
  runtime = require("onnxruntime")
  runtime.set_default_logger_severity(3)  # errors
  try:
    yield
  finally:
    runtime.set_default_logger_severity(2)

"""Reads ONNX files with onnxruntime."""

import importlib
import pathlib

import numpy as np

from ferjax.export.description import KEY, damaged, read_description
from ferjax.export.exported_file import ExportedFile
from ferjax.export.onnx.libraries import require

_INVALID = ("InvalidProtobuf", "InvalidGraph", "InvalidArgument", "Fail", "NotImplemented")


def read(file: pathlib.Path) -> ExportedFile:
  """Reads a file that `ferjax.export.onnx.writer.write` wrote.

  Raises:
    OSError: it cannot be read.
    ValueError: it is damaged, another kind of file, or a newer version wrote it.
    ImportError: onnxruntime is missing.
  """
  session = open_session(file.read_bytes(), str(file))
  text = session.get_modelmeta().custom_metadata_map.get(KEY)
  description = read_description(text, str(file))
  inputs = [x.name for x in (*session.get_inputs(), *session.get_overridable_initializers())]
  outputs = [x.name for x in session.get_outputs()]

  def call(*arrays: np.ndarray) -> dict[str, np.ndarray]:
    found = session.run(outputs, dict(zip(inputs, arrays, strict=True)))
    return dict(zip(outputs, found, strict=True))

  return ExportedFile(description, call)


def open_session(model: bytes, name: str):
  """An `onnxruntime.InferenceSession`; raises a ValueError for a model that it cannot run."""
  runtime = require("onnxruntime")
  state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
  invalid = tuple(getattr(state, kind) for kind in _INVALID)
  options = runtime.SessionOptions()
  options.log_severity_level = 3  # errors
  try:
    return runtime.InferenceSession(model, options, providers=runtime.get_available_providers())
  except invalid as error:
    raise damaged(name, f"onnxruntime cannot load it ({' '.join(str(error).split())})") from error

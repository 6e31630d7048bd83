"""Reads ONNX files with onnxruntime."""

import hashlib
import importlib
import pathlib

import numpy as np

from ferjax.export.description import KEY, damaged, read_description
from ferjax.export.exported_file import ExportedFile
from ferjax.export.onnx.checksum import check
from ferjax.export.onnx.libraries import require

_INVALID = ("InvalidProtobuf", "InvalidGraph", "InvalidArgument", "Fail", "NotImplemented")


def read(file: pathlib.Path) -> ExportedFile:
  """Reads a file that `ferjax.export.onnx.writer.write` wrote.

  Raises:
    OSError: it cannot be read.
    ValueError: it is damaged, another kind of file, or a newer version wrote it.
    ImportError: onnxruntime is missing.
  """
  return open_model(file.read_bytes(), str(file))


def open_model(model: bytes, name: str) -> ExportedFile:
  """Opens the content of a file; `name` is for messages. Errors are those of `read`."""
  session = open_session(model, name)
  text = session.get_modelmeta().custom_metadata_map.get(KEY)
  description = read_description(text, name)
  check(model, description, name)
  inputs = [x.name for x in (*session.get_inputs(), *session.get_overridable_initializers())]
  outputs = [x.name for x in session.get_outputs()]

  def call(*arrays: np.ndarray) -> dict[str, np.ndarray]:
    found = session.run(outputs, dict(zip(inputs, arrays, strict=True)))
    return dict(zip(outputs, found, strict=True))

  return ExportedFile(description, call, hashlib.sha256(model).hexdigest())


def open_session(model: bytes, name: str, *, threads: int = 0):
  """An `onnxruntime.InferenceSession`; raises a ValueError for a model that it cannot run.

  With `threads`, it runs on the CPU with so many.
  """
  runtime = require("onnxruntime")
  state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
  invalid = tuple(getattr(state, kind) for kind in _INVALID)
  options = runtime.SessionOptions()
  options.log_severity_level = 3  # errors
  # Azure's runs models elsewhere.
  providers = [x for x in runtime.get_available_providers() if x != "AzureExecutionProvider"]
  if threads:
    options.intra_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
  try:
    return runtime.InferenceSession(model, options, providers=providers)
  except (*invalid, RuntimeError, ValueError) as error:
    raise damaged(name, f"onnxruntime cannot load it ({' '.join(str(error).split())})") from error

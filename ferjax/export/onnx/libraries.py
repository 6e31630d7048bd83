"""The libraries of the extra `onnx`."""

import importlib
from typing import Any

INSTALL = "pip install 'ferjax[onnx]'"


def require(name: str) -> Any:
  """Imports `onnx` or `onnxruntime`; raises an ImportError that says how to install it."""
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise ImportError(f"ONNX files need {name}, which is not installed: {INSTALL}") from error

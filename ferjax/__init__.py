"""Facial expression recognition in JAX.

The public names are loaded on first use, so that a data worker that imports `ferjax.data` does not
initialise JAX.
"""

import importlib
from typing import TYPE_CHECKING

from ferjax._version import __version__

if TYPE_CHECKING:
  from ferjax.inference.detection import Predictor
  from ferjax.inference.loading import load_predictor
  from ferjax.models import create_model
  from ferjax.weights.opening import load_variables

__all__ = ["Predictor", "__version__", "create_model", "load_predictor", "load_variables"]

_HOME = {
  "create_model": "ferjax.models",
  "load_predictor": "ferjax.inference.loading",
  "load_variables": "ferjax.weights.opening",
  "Predictor": "ferjax.inference.detection",
}


def __getattr__(name: str):
  if name not in _HOME:
    raise AttributeError(f"module 'ferjax' has no attribute {name!r}; public names: {__all__}")
  return getattr(importlib.import_module(_HOME[name]), name)


def __dir__():
  return __all__

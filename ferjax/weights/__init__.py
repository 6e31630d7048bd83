"""Named weights: trained networks in one file each, with their description.

The files of this package are in `files/`. Other packages open trained networks with
`open_weights`, which also takes the checkpoints of a run. The public names are loaded on first use,
so that the command line can name the defaults without JAX.
"""

import importlib
from typing import TYPE_CHECKING

from ferjax.weights.defaults import DEFAULT_CLASSIFIER, DEFAULT_DETECTOR

if TYPE_CHECKING:
  from ferjax.weights.file import WeightsFile
  from ferjax.weights.known import known_weights
  from ferjax.weights.opening import load_variables, open_weights
  from ferjax.weights.saving import save_weights

__all__ = [
  "DEFAULT_CLASSIFIER",
  "DEFAULT_DETECTOR",
  "WeightsFile",
  "known_weights",
  "load_variables",
  "open_weights",
  "save_weights",
]

_HOME = {
  "WeightsFile": "ferjax.weights.file",
  "known_weights": "ferjax.weights.known",
  "load_variables": "ferjax.weights.opening",
  "open_weights": "ferjax.weights.opening",
  "save_weights": "ferjax.weights.saving",
}


def __getattr__(name: str):
  if name not in _HOME:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names: {__all__}")
  return getattr(importlib.import_module(_HOME[name]), name)

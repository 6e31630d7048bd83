"""Exports trained networks for other programs: one file each, with its description inside.

The public names are loaded on first use, so that the command line can name the formats without JAX.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from ferjax.export.exporting import export_network
  from ferjax.export.options import FORMATS, ExportOptions
  from ferjax.export.predictors import load_exported

__all__ = ["FORMATS", "ExportOptions", "export_network", "load_exported"]

_HOME = {
  "FORMATS": "ferjax.export.options",
  "ExportOptions": "ferjax.export.options",
  "export_network": "ferjax.export.exporting",
  "load_exported": "ferjax.export.predictors",
}


def __getattr__(name: str):
  if name not in _HOME:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names: {__all__}")
  return getattr(importlib.import_module(_HOME[name]), name)

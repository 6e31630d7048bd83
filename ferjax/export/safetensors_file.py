"""safetensors: a weights file, which everything that takes a checkpoint takes."""

import pathlib

from ferjax.export.options import ExportOptions
from ferjax.trained import TrainedNetwork
from ferjax.weights.saving import save_weights


def write(opened: TrainedNetwork, file: pathlib.Path, options: ExportOptions) -> str:
  """Writes the variables under their own names, such as "params/head/kernel".

  Errors are those of `ferjax.export.export_network`.
  """
  weights = save_weights(opened, file, dtype=options.dtype)
  return f"{weights.num_parameters:,} parameters, kernels in {options.dtype}"

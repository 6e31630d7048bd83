"""torch: a state dict with the names and layouts of the network's authors.

The file is `{"state_dict": ..., "ferjax": description}`. The released program loads its state dict
with `strict=True`, and `ferjax weights import` makes the same variables of it again.
"""

import pathlib

import jax
import numpy as np

from ferjax.export.description import describe
from ferjax.export.options import ExportOptions
from ferjax.interop.state_dict_files import DESCRIPTION, FORMAT
from ferjax.interop.torch_weights import export_state_dict
from ferjax.models import create_model
from ferjax.trained import TrainedNetwork

KIND = "torch"


def write(opened: TrainedNetwork, file: pathlib.Path, options: ExportOptions) -> str:
  """Writes the variables as float32, and the description.

  Errors are those of `ferjax.export.export_network`.
  """
  del options  # the format has none
  try:
    import torch  # pyright: ignore[reportMissingImports]
  except ImportError as error:
    raise ImportError("writing a torch file needs PyTorch: pip install 'ferjax[torch]'") from error
  model = opened.build_model(create_model)
  try:
    state_dict = export_state_dict(model, jax.device_get(opened.variables()))
  except TypeError as error:  # a network of another package
    raise ValueError(f"{opened.name} has no form in torch: {error}") from error

  def tensor(value: np.ndarray):
    # The layers that the released program does not use are 50 MB of zeros; one stands for all.
    if value.size > 1 and not value.any():
      return torch.from_numpy(np.zeros((), value.dtype)).expand(value.shape)
    return torch.from_numpy(np.array(value, order="C"))  # a copy: torch takes nothing read-only

  tensors = {name: tensor(value) for name, value in state_dict.items()}
  torch.save({"state_dict": tensors, DESCRIPTION: describe(opened, KIND, format=FORMAT)}, file)
  return f"{len(tensors)} entries with the released names"

"""The naming of each network, by the class of its module."""

import flax.linen as nn

from ferjax.interop import emonext_names, fer_yolo_mamba_names, fermam_names
from ferjax.interop.naming import Naming

_NAMINGS: dict[str, Naming] = {
  "FerYoloMamba": fer_yolo_mamba_names.NAMING,
  "EmoNeXt": emonext_names.NAMING,
  "FERMam": fermam_names.FERMAM,
  "IR50": fermam_names.IR50,
  "MobileFaceNet": fermam_names.MOBILEFACENET,
}


def table_of(model: nn.Module) -> Naming:
  """A function from the path of a variable to its released name."""
  name = type(model).__name__
  if name not in _NAMINGS:
    known = ", ".join(_NAMINGS)
    raise TypeError(f"no released names are known for {name}; known: {known}")
  return _NAMINGS[name]

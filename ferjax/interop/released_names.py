"""The naming table of each network, by module class."""

import flax.linen as nn

from ferjax.interop.naming import Naming
from ferjax.models.registry import MODELS, resolve


def table_of(model: nn.Module) -> Naming:
  """The table that maps the path of a variable to its released name.

  Raises:
    TypeError: the registry has no table for this module class.
  """
  known = {module: x for spec in MODELS.values() for module, x in spec.released_names.items()}
  if type(model) not in known:
    names = ", ".join(module.__name__ for module in known)
    raise TypeError(f"no released names are known for {type(model).__name__}; known: {names}")
  return resolve(known[type(model)])

"""Names and layouts of our models' variables in the released programs."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Path = tuple[str, ...]

_COUNTER = ".num_batches_tracked"  # of torch's BatchNorm

_LEAVES = {
  "kernel": "weight",
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
}


@dataclasses.dataclass(frozen=True)
class Naming:
  """The naming table of one network.

  Attributes:
    rules: (pattern, replacement) pairs of regular expressions, applied in order to the path of a
      module, joined by dots.
    leaves: last part of a variable's path, or its last two joined by a dot -> its name in the
      released program, in addition to the usual ones; other names stay.
    flattened: path (joined by dots) of a Dense layer whose input is a flattened square map -> the
      map's channels. The released program flattens it channels first, ferjax channels last.
    image_size: side of the square image for which the model has the shapes of a state dict.
    ignored: pattern of entries without a counterpart in the model, besides torch's counters.
    unused: ignored entries that the released program expects -> their shapes; exported as zeros.
    size: the network's size for the shapes of a state dict; "" if it is not of this network. Raises
      a ValueError if no size has these shapes. None for a network without sizes, whose state dicts
      are not recognised before they are compared with it.
    classes: an entry whose first axis is the classes.
    branches: part of the network that is also released separately -> the prefix of its names.
    first_kernels: paths (joined by dots) of the convolutions whose input is the image, or its
      phases one after the other.
    input: fields of `ferjax.config.DataConfig` in which the released program's input, or the
      order of its classes, differs from their defaults.
  """

  rules: tuple[tuple[str, str | Callable[[re.Match], str]], ...]
  leaves: Mapping[str, str] = dataclasses.field(default_factory=dict)
  flattened: Mapping[str, int] = dataclasses.field(default_factory=dict)
  image_size: Callable[[Mapping[str, np.ndarray]], int] = lambda state_dict: 32
  ignored: str = "$^"
  unused: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
  size: Callable[[Mapping[str, np.ndarray]], str] | None = None
  classes: str = ""
  branches: Mapping[str, str] = dataclasses.field(default_factory=dict)
  first_kernels: tuple[str, ...] = ()
  input: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __call__(self, path: Path) -> str:
    """The released name of a variable; `path` starts with its collection."""
    module = ".".join(path[1:-1])
    for pattern, replacement in self.rules:
      module = re.sub(pattern, replacement, module)
    leaves = {path[-1]: path[-1], **_LEAVES, **self.leaves}
    leaf = leaves.get(".".join(path[-2:]), leaves[path[-1]])
    return f"{module}.{leaf}" if module else leaf

  def ignores(self, name: str) -> bool:
    """Whether an entry of a released state dict has no counterpart in the model."""
    return name.endswith(_COUNTER) or re.search(self.ignored, name) is not None

  def flattened_channels(self, path: Path) -> int | None:
    """Channels of the flattened map that a Dense kernel takes; None for other variables."""
    return self.flattened.get(".".join(path[1:-1])) if path[-1] == "kernel" else None

  def fixes_image_size(self, state_dict: Mapping[str, np.ndarray]) -> bool:
    """Whether the shapes of a state dict fit images of one size only."""
    paths = (("params", *path.split("."), "kernel") for path in self.flattened)
    return any(self(path) in state_dict for path in paths)


def size_by_shape(
  name: str,
  shape: tuple[int, ...],
  sizes: Mapping[tuple[int, ...], str],
  unit: str = "channels",
) -> str:
  """The size that `sizes` has for a shape; a ValueError names the entry, if there is none."""
  if shape not in sizes:
    known = ", ".join(f"{size} {'/'.join(map(str, key))}" for key, size in sizes.items())
    raise ValueError(
      f"{name!r} has {'/'.join(map(str, shape))} {unit}, as no size of the network: {known}; get "
      "the whole file of one of these"
    )
  return sizes[shape]

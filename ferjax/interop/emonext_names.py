"""Names of the variables of `EmoNeXt` in the released program."""

import math
import re
from collections.abc import Mapping

import numpy as np

from ferjax.expressions import FER2013_CODES
from ferjax.interop.naming import Naming, size_by_shape
from ferjax.models.emonext import SIZES

_MAP_CHANNELS = 10  # of the localisation network's flattened map
_DENSE = "fc_loc.0.weight"
_STEM = "downsample_layers.0.0.weight"
_UNIT = "channels/blocks of stage 2"
_DEPTH = re.compile(r"stages\.2\.(\d+)\.")  # the sizes differ in the blocks of this stage


def image_size(state_dict: Mapping[str, np.ndarray]) -> int:
  """The image side of a released checkpoint, derived from its localisation network.

  Raises:
    ValueError: no square image has a localisation network of this width.
  """
  if _DENSE not in state_dict:
    return 32
  columns = math.prod(np.shape(state_dict[_DENSE])[1:])
  side = math.isqrt(columns // _MAP_CHANNELS)
  if side * side * _MAP_CHANNELS != columns or side % 8 != 4:
    raise ValueError(
      f"{_DENSE!r} has {columns} inputs; a square image of 32 n pixels gives "
      f"{_MAP_CHANNELS} * (8 n - 4)^2, such as 27040 for 224 pixels"
    )
  return 4 * (side + 4)


def size(state_dict: Mapping[str, np.ndarray]) -> str:
  """The size of a state dict of this network or of a ConvNeXt, by width and depth."""
  if _STEM not in state_dict:
    return ""
  depth = len({match[1] for name in state_dict if (match := _DEPTH.match(name))})
  sizes = {(x.widths[0], x.depths[2]): name for name, x in SIZES.items()}
  return size_by_shape(_STEM, (*np.shape(state_dict[_STEM])[:1], depth), sizes, _UNIT)


NAMING = Naming(
  rules=(
    (r"^stn\.conv0\.conv$", r"localization.0"),
    (r"^stn\.conv0\.norm$", r"localization.1"),
    (r"^stn\.conv1\.conv$", r"localization.4"),
    (r"^stn\.conv1\.norm$", r"localization.5"),
    (r"^stn\.dense0$", r"fc_loc.0"),
    (r"^stn\.dense1$", r"fc_loc.2"),
    (r"^stem\.conv$", r"downsample_layers.0.0"),
    (r"^stem\.norm$", r"downsample_layers.0.1"),
    (r"^downsample(\d)\.norm$", r"downsample_layers.\1.0"),
    (r"^downsample(\d)\.conv$", r"downsample_layers.\1.1"),
    (r"^downsample(\d)\.se\b", r"downsample_layers.\1.2"),
    (r"^(downsample_layers\.\d\.2)\.dense0$", r"\1.fc.0"),
    (r"^(downsample_layers\.\d\.2)\.dense1$", r"\1.fc.2"),
    (r"^stage(\d)\.block(\d+)\b", r"stages.\1.\2"),
    (r"^(stages\..*)\.conv$", r"\1.dwconv"),
    (r"^(stages\..*)\.dense0$", r"\1.pwconv1"),
    (r"^(stages\..*)\.dense1$", r"\1.pwconv2"),
  ),
  flattened={"stn.dense0": _MAP_CHANNELS},
  image_size=image_size,
  size=size,
  classes="head.weight",
  first_kernels=("stn.conv0.conv", "stem.conv"),
  input={
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
    "grey": True,
    "resize": 236,
    # The order of the folders angry, disgust, fear, happy, neutral, sad, surprise.
    "class_names": tuple(sorted(FER2013_CODES.values())),
  },
)

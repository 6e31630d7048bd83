"""The networks, by name."""

import flax.linen as nn
import jax.numpy as jnp

from ferjax.models.emonext import EmoNeXt
from ferjax.models.fer_yolo_mamba import FerYoloMamba
from ferjax.models.fermam import FERMam

_MODELS = {"fer_yolo_mamba": FerYoloMamba, "emonext": EmoNeXt, "fermam": FERMam}
# What each network is for: a "detection" model returns a `DetectorOutput`, a "classification" model
# a `ClassifierOutput`.
TASKS = {
  "fer_yolo_mamba": "detection",
  "emonext": "classification",
  "fermam": "classification",
}
_DTYPES = ("float32", "bfloat16")


def create_model(
  name: str,
  *,
  num_classes: int,
  variant: str = "corrected",
  size: str | None = None,
  dtype: str = "float32",
  **options,
) -> nn.Module:
  """A network as a Flax linen module: `model.apply(variables, images, train=False)`.

  Args:
    name: a key of `TASKS`.
    num_classes: length of the class scores, at least 1.
    variant: "corrected", or "released" to compute what the authors' program computes; both have
      the same parameters.
    size: of the network; None for the one its paper describes.
    dtype: of the computation; parameters and the scan stay float32.
    **options: further fields of the module, such as `drop_path_rate`.

  Raises:
    ValueError: an unknown name, size, variant or dtype, or num_classes < 1.
    TypeError: an unknown option.
  """
  if name not in _MODELS:
    raise ValueError(f"unknown model {name!r}; known: {', '.join(_MODELS)}")
  if dtype not in _DTYPES:
    raise ValueError(f"unknown dtype {dtype!r}; known: {', '.join(_DTYPES)}")
  if num_classes < 1:
    raise ValueError(f"num_classes is {num_classes}; it must be at least 1")
  if size is not None:
    options["size"] = size
  module = _MODELS[name](
    num_classes=num_classes, variant=variant, dtype=jnp.dtype(dtype).type, **options
  )
  module.check()
  return module

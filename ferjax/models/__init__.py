"""Creates networks by name."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from ferjax.config import ModelConfig
from ferjax.models import emonext, fer_yolo_mamba, fermam
from ferjax.models.options import checked_options
from ferjax.models.registry import check_choices, model_spec, register_model

register_model("fer_yolo_mamba", fer_yolo_mamba.SPEC)
register_model("emonext", emonext.SPEC)
register_model("fermam", fermam.SPEC)

_DTYPES = ("float32", "bfloat16")
_VARIANT = ModelConfig().variant  # also for networks with only one


def create_model(
  name: str,
  *,
  num_classes: int,
  variant: str = _VARIANT,
  size: str | None = None,
  dtype: str = "float32",
  **options,
) -> nn.Module:
  """A network as a Flax linen module: `model.apply(variables, images, train=False)`.

  Args:
    name: a key of `ferjax.models.registry.MODELS`.
    num_classes: length of the class scores, at least 1.
    variant: "corrected", or "released" to reproduce the authors' program; both have the same
      parameters.
    size: of the network; None for the paper's.
    dtype: of the computation; parameters and the scan stay float32.
    **options: other fields of the module, such as `drop_path_rate`.

  Raises:
    ValueError: an unknown name, size, variant or dtype, or num_classes < 1.
    TypeError: an unknown option, or one of the wrong type.
  """
  spec = model_spec(name)
  if dtype not in _DTYPES:
    raise ValueError(f"unknown dtype {dtype!r}; known: {', '.join(_DTYPES)}")
  if num_classes < 1:
    raise ValueError(f"num_classes is {num_classes}; it must be at least 1")
  fields = {field.name for field in dataclasses.fields(spec.module)}
  if variant != _VARIANT or "variant" in fields:
    options["variant"] = variant
  if size is not None:
    options["size"] = size
  for field in ("size", "variant"):
    if field in options and field not in fields:
      raise ValueError(f"{field} is {options[field]!r}, but {name} has none; omit it")
  module = spec.module(
    num_classes=num_classes, dtype=jnp.dtype(dtype).type, **checked_options(name, options)
  )
  check_choices(module, name, {**spec.choices, "frozen": spec.frozen})
  if hasattr(module, "check"):
    module.check()
  return module

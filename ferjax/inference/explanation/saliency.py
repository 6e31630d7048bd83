"""Attribution of a score to the cells of a feature map: HiResCAM.

The contribution of a cell is the sum over its channels of feature times gradient of the score, and
positive values are evidence for it. This is HiResCAM (Draelos, Carin, arXiv 2011.08891). Grad-CAM
(Selvaraju et al., ICCV 2017, arXiv 1610.02391) averages the gradients over the map first; the two
are the same where the network averages the map, as most classifiers do with the last. Elsewhere the
averages belong to no place: of several faces, all that look alike would light up for each.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ferjax.models.registry import spec_of


def apply_watched(
  model: nn.Module,
  variables: dict[str, Any],
  image: Float[Array, "b h w 3"],
  layers: Sequence[str],
  *,
  replaced: Mapping[str, Any] | None = None,
) -> tuple[Any, dict[str, Any]]:
  """`model.apply` for inference, and the outputs of some of its submodules.

  Calls are intercepted; parameters and outputs of the model do not change.

  Args:
    model: called with `train=False`.
    variables: of the model.
    image: its input.
    layers: paths of submodules, such as "stage3" or "stn/dense1".
    replaced: values that replace the outputs of some of them. Under `jit`, what only the true
      output depends on is then not computed.

  Returns:
    The model's output, and the true output of each layer.

  Raises:
    ValueError: a submodule does not exist, or was not called.
  """
  seen: dict[str, Any] = {}

  def watch(call, args, kwargs, context):
    result = call(*args, **kwargs)
    path = "/".join(context.module.path)
    if context.method_name != "__call__" or path not in layers:
      return result
    seen[path] = result
    return (replaced or {}).get(path, result)

  with nn.intercept_methods(watch):
    output = model.apply(variables, image, train=False)
  for layer in layers:
    if layer not in seen:
      raise ValueError(
        f"{type(model).__name__} calls no submodule {layer!r}; expected a path as in its "
        "parameters, such as 'stage3' or 'image/unit1'"
      )
  return output, seen


def hirescam(
  features: Float[Array, "*n h w c"], gradient: Float[Array, "*n h w c"]
) -> Float[Array, "*n h w"]:
  """The contribution of each cell to a score, to first order, in float32."""
  return jnp.sum(features.astype(jnp.float32) * gradient.astype(jnp.float32), axis=-1)


def default_layer(model: nn.Module, image_size: int) -> str:
  """Path of the map that explains an answer of a registered network.

  Raises:
    ValueError: the network is not registered, or names no such map.
  """
  spec = spec_of(model)
  if spec is None or spec.explain_layer is None:
    raise ValueError(
      f"no feature map is known of {type(model).__name__}; name the submodule that returns it: "
      "layer"
    )
  return spec.explain_layer(image_size)


def with_gradients(model: nn.Module) -> nn.Module:
  """The same model without frozen parts, which block gradients."""
  return model if getattr(model, "frozen", "none") == "none" else model.clone(frozen="none")

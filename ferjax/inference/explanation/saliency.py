"""Attribution of a score to the cells of a feature map: HiResCAM.

A cell's contribution is the sum over its channels of feature times gradient of the score; positive
values are evidence for the class. This is HiResCAM (Draelos, Carin, arXiv 2011.08891). Grad-CAM
(Selvaraju et al., ICCV 2017, arXiv 1610.02391) averages the gradients over the map first. The two
are equal if the network averages the map, as most classifiers do with their last one. Otherwise the
averages lose the location: the map of one face would highlight all faces that look alike.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ferjax.models.registry import spec_of


def apply_capturing(
  model: nn.Module,
  variables: dict[str, Any],
  image: Float[Array, "b h w 3"],
  layers: Sequence[str],
  *,
  replaced: Mapping[str, Any] | None = None,
) -> tuple[Any, dict[str, Any]]:
  """`model.apply` for inference, and the outputs of some of its submodules.

  Calls are intercepted; the model's parameters and outputs do not change.

  Args:
    model: called with `train=False`.
    variables: of the model.
    image: its input.
    layers: paths of submodules, such as "stage3" or "stn/dense1".
    replaced: layer -> value that replaces its output. Under `jit`, operations that only the
      original output depends on are then not computed.

  Returns:
    The model's output, and the original output of each layer.

  Raises:
    ValueError: a submodule does not exist, or was not called.
  """
  captured: dict[str, Any] = {}

  def capture(call, args, kwargs, context):
    result = call(*args, **kwargs)
    path = "/".join(context.module.path)
    if context.method_name != "__call__" or path not in layers:
      return result
    captured[path] = result
    return (replaced or {}).get(path, result)

  with nn.intercept_methods(capture):
    output = model.apply(variables, image, train=False)
  for layer in layers:
    if layer not in captured:
      raise ValueError(
        f"{type(model).__name__} calls no submodule {layer!r}; expected a path as in its "
        "parameters, such as 'stage3' or 'image/unit1'"
      )
  return output, captured


def hirescam(
  features: Float[Array, "*n h w c"], gradient: Float[Array, "*n h w c"]
) -> Float[Array, "*n h w"]:
  """The first-order contribution of each cell to a score, in float32."""
  return jnp.sum(features.astype(jnp.float32) * gradient.astype(jnp.float32), axis=-1)


def default_layer(model: nn.Module, image_size: int) -> str:
  """Path of the feature map that explains predictions of a registered network.

  Raises:
    ValueError: the network is not registered, or its entry names no feature map.
  """
  spec = spec_of(model)
  if spec is None or spec.explain_layer is None:
    raise ValueError(
      f"no feature map is known for {type(model).__name__}; pass the path of the submodule that "
      "returns one as `layer`"
    )
  return spec.explain_layer(image_size)


def unfrozen(model: nn.Module) -> nn.Module:
  """The same model without frozen parts, so that gradients reach all of them."""
  return model if getattr(model, "frozen", "none") == "none" else model.clone(frozen="none")

"""Which cells of a feature map speak for a score: class activation by gradients.

The contribution of a cell is the sum over its channels of feature times gradient of the score, and
what is positive speaks for it. This is HiResCAM (Draelos, Carin, arXiv 2011.08891). Grad-CAM
(Selvaraju et al., ICCV 2017, arXiv 1610.02391) averages the gradients over the map first; the two
are the same where the network averages the map, as EmoNeXt does with its last one. Elsewhere the
averages belong to no place: of several faces, all that look alike would light up for each.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ferjax.models.emonext import COARSEST_STRIDE, EmoNeXt
from ferjax.models.fermam import FERMam


def apply_watched(
  model: nn.Module,
  variables: dict[str, Any],
  image: Float[Array, "b h w 3"],
  layers: Sequence[str],
  *,
  replaced: Mapping[str, Any] | None = None,
) -> tuple[Any, dict[str, Any]]:
  """`model.apply` for inference, and what some of its submodules returned.

  Neither parameters nor outputs of the model are touched: calls are watched from outside.

  Args:
    model: called with `train=False`.
    variables: of the model.
    image: its input.
    layers: paths of submodules, such as "stage3" or "stn/dense1".
    replaced: what is taken for the outputs of some of them. What only the true output depends on
      is then not computed, under `jit`.

  Returns:
    The model's output, and the true output of each layer.

  Raises:
    ValueError: a submodule is not there, or was not called.
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
  """What each cell adds to a score, to first order; in float32."""
  return jnp.sum(features.astype(jnp.float32) * gradient.astype(jnp.float32), axis=-1)


def classifier_layer(model: nn.Module, image_size: int) -> str:
  """Path of the map that explains an answer of one of the package's classifiers.

  EmoNeXt's last one; at 32 pixels, where that is a single cell, one of 4 x 4. FERMam's is that of
  the image branch: what comes behind has a quarter of its cells, and is not laid out as the image
  is in the released variant.

  Raises:
    ValueError: an unknown network.
  """
  if isinstance(model, FERMam):
    return "image"
  if isinstance(model, EmoNeXt):
    # Behind its LayerNorm, which does not care for the scale of a cell: before it, features times
    # gradient add up to 0 in each. The next map, of 2 x 2 cells, often has no positive one.
    return "stage3" if image_size > COARSEST_STRIDE else "downsample2/norm"
  raise ValueError(
    f"no feature map is known of {type(model).__name__}; name the submodule that returns it: layer"
  )


def with_gradients(model: nn.Module) -> nn.Module:
  """The model without frozen parts, which pass no gradient on; it computes the same."""
  return model if getattr(model, "frozen", "none") == "none" else model.clone(frozen="none")

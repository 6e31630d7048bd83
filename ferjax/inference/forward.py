"""The forward pass of prediction: normalised bytes through a trained network."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
from flax.errors import FlaxError
from jaxtyping import Array, UInt8

from ferjax.ops.normalize import normalize
from ferjax.trained import WeightsError


def forward(
  model: nn.Module,
  variables: dict[str, Any],
  image: UInt8[Array, "b h w c"],
  mean: Sequence[float],
  std: Sequence[float],
) -> Any:
  """The outputs of a network for RGB or grey images.

  Raises:
    WeightsError: while tracing, the variables or the size of the images do not fit the network.
  """
  try:
    return model.apply(variables, normalize(image, tuple(mean), tuple(std)), train=False)
  except (FlaxError, TypeError, ValueError) as error:
    raise WeightsError(
      f"the weights do not fit the network {type(model).__name__} that their description names, "
      f"with inputs of {image.shape[1]}x{image.shape[2]} pixels: {' '.join(str(error).split())}"
    ) from error

"""Features of faces from a network whose weights stay as they are."""

from collections.abc import Callable, Iterable

import jax
import numpy as np
from jaxtyping import Float, UInt8

from ferjax.compiler_options import compiler_options
from ferjax.data.classification.views import center_view
from ferjax.inference.base import batched, stack_padded
from ferjax.inference.forward import forward
from ferjax.models import create_model
from ferjax.trained import TrainedNetwork

View = UInt8[np.ndarray, "s s c"]


def view_of(weights: TrainedNetwork) -> Callable[[UInt8[np.ndarray, "_ _ 3"]], View]:
  """The preprocessing of a classifier: an RGB image of any size -> the network's input."""
  meta = weights.meta
  channels = 1 if meta["grey"] else 3

  def view(image: UInt8[np.ndarray, "_ _ 3"]) -> View:
    square = center_view(image, meta["image_size"], resize=meta["resize"], grey=meta["grey"])
    return square[..., :channels]

  return view


def network_features(
  weights: TrainedNetwork, views: Iterable[View], *, batch_size: int = 64
) -> Float[np.ndarray, "n c"]:
  """The inputs of the last layer, the mean of each image and its mirror image.

  Args:
    weights: of a classifier.
    views: from `view_of`; read one batch at a time.
    batch_size: images per batch.

  Raises:
    ValueError: the weights are for another task, or there is no image.
  """
  weights.check_task("classification")
  model, variables = weights.build_model(create_model), jax.device_put(weights.variables())
  mean, std = weights.meta["mean"], weights.meta["std"]

  def features(variables, image):
    return forward(model, variables, image, mean, std).features

  run, rows = jax.jit(features, compiler_options=compiler_options()), []
  for batch in batched(views, batch_size):
    pixels = stack_padded(batch, batch_size)
    both = [run(variables, x) for x in (pixels, pixels[:, :, ::-1])]
    rows.append(np.mean(jax.device_get(both), axis=0)[: len(batch)])
  if not rows:
    raise ValueError("there is no image to compute features of")
  return np.concatenate(rows)

"""Classifies face images with a trained network.

Preprocessing (`ferjax.data.classification.views.center_view`) and post-processing
(`ClassificationTask.postprocess`) are those of evaluation, so predictions match the measured
accuracy.
"""

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from ferjax.compiler_options import compiler_options
from ferjax.data.classification.views import center_view, short_side
from ferjax.data.image import IMAGENET_MEAN, IMAGENET_STD
from ferjax.inference.base import (
  ImagePredictor,
  Prepared,
  batched,
  check_count,
  stack_padded,
)
from ferjax.inference.results import Face
from ferjax.models import create_model
from ferjax.ops.normalize import normalize
from ferjax.tasks.classification.task import ClassificationTask
from ferjax.trained import TrainedNetwork
from ferjax.typing import Classifications
from ferjax.weights.opening import Step, open_weights
from ferjax.weights.settings import Margin, check_margin


class ExpressionClassifier(ImagePredictor[np.ndarray]):
  """Classifies the expression of face images with a trained network.

  Every image gives one `Face` without a box: the image is treated as a cropped face, resized, and
  its central square is classified.

  Attributes (besides those of `ImagePredictor`):
    image_size: side of the model's input, pixels.
    crop_margin: (left, top, right, bottom) of the weights' crops around a detected face; None if
      they have none. See `ferjax.weights.settings.check_margin`.
  """

  crop_margin: Margin | None = None

  def __init__(
    self,
    checkpoint: str | os.PathLike | TrainedNetwork,
    *,
    step: Step = None,
    batch_size: int = 8,
  ):
    """Loads the model, class names, preprocessing and weights.

    Args:
      checkpoint: the name of known weights, a weights file, a training workdir, one checkpoint in
        it, or an open one; see `ferjax.weights.open_weights`.
      step: of a checkpoint: a number, "best", "latest", or None for the best, or the latest if none
        was evaluated.
      batch_size: images per batch.

    Raises:
      FileNotFoundError: the checkpoint does not exist, and is not the name of known weights.
      ValueError: the batch size is not positive, the model is for another task, or this version
        cannot read the checkpoint.
    """
    check_count("batch_size", batch_size)
    opened = open_weights(checkpoint, step=step)
    opened.check_task("classification")
    meta = opened.meta
    self.step = opened.step
    if (margin := opened.settings.get("crop_margin")) is not None:
      self.crop_margin = check_margin(margin)
    self._build(
      opened.build_model(create_model),
      opened.variables(),
      meta["class_names"],
      meta["image_size"],
      batch_size=batch_size,
      mean=meta["mean"],
      std=meta["std"],
      grey=meta["grey"],
      resize=meta["resize"],
    )

  @classmethod
  def from_model(
    cls,
    model: nn.Module,
    variables: dict[str, Any],
    class_names: Sequence[str],
    image_size: int,
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    grey: bool = False,
    resize: int = 0,
    batch_size: int = 8,
  ) -> "ExpressionClassifier":
    """Like the constructor, with a model and its variables instead of a checkpoint.

    `class_names` are in the order of the model's outputs; `image_size` is the side of the
    model's input in pixels; the others are as in `ferjax.config.DataConfig`.
    """
    check_count("batch_size", batch_size)
    short_side(image_size, resize)
    classifier = cls.__new__(cls)
    classifier.step = None
    classifier._build(
      model,
      variables,
      class_names,
      image_size,
      mean=mean,
      std=std,
      grey=grey,
      resize=resize,
      batch_size=batch_size,
    )
    return classifier

  def _build(
    self,
    model: nn.Module,
    variables: dict[str, Any],
    class_names: Sequence[str],
    image_size: int,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    grey: bool,
    resize: int,
    batch_size: int,
  ) -> None:
    self.class_names = tuple(class_names)
    self.image_size = image_size
    self.batch_size = batch_size
    self.settings = {}
    self._mean, self._std, self._grey, self._resize = mean, std, grey, resize
    self._normalize = functools.partial(normalize, mean=tuple(mean), std=tuple(std))
    task = ClassificationTask(self.class_names)

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def classify(variables: dict[str, Any], image: UInt8[Array, "b h w c"]) -> Classifications:
      output: Any = model.apply(variables, self._normalize(image), train=False)
      return task.postprocess(output)

    self._classify = classify
    self._model = model
    self._variables = jax.device_put(variables)

  def _inputs(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "s s 3"]:
    return center_view(image, self.image_size, resize=self._resize, grey=self._grey)

  def _faces(self, batch: list[Prepared[np.ndarray]]) -> list[tuple[Face, ...]]:
    return [(face,) for face in self._classify_views(prepared.inputs for prepared in batch)]

  def classify_crops(self, crops: Iterable[UInt8[np.ndarray, "_ _ 3"]]) -> Iterator[Face]:
    """Yields the prediction for each RGB crop of any size; reads one batch at a time."""
    yield from self._classify_views(map(self._inputs, crops))

  def _classify_views(self, views: Iterable[UInt8[np.ndarray, "s s 3"]]) -> Iterator[Face]:
    for batch in batched(views, self.batch_size):
      pixels = stack_padded(batch, self.batch_size)
      if self._grey:
        pixels = pixels[..., :1]  # all channels are equal; a third of the bytes to copy
      probabilities, labels = jax.device_get(self._classify(self._variables, pixels))
      for row in range(len(batch)):
        yield self._face(probabilities[row], labels[row])

  def _face(self, probabilities: Float[np.ndarray, "k"], label: np.integer) -> Face:
    return Face(
      box=None,
      score=float(probabilities[label]),
      expression=self.class_names[label],
      scores=dict(zip(self.class_names, probabilities.tolist(), strict=True)),
    )

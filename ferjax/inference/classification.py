"""Classifies face images with a trained network.

Preprocessing (`ferjax.data.classification.views.center_view`) and post-processing
(`ClassificationTask.postprocess`) are those of evaluation, so predictions match the measured
accuracy.
"""

import abc
import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from ferjax.compiler_options import compiler_options
from ferjax.config import LossConfig
from ferjax.data.classification.views import center_view, short_side
from ferjax.data.image import IMAGENET_MEAN, IMAGENET_STD
from ferjax.inference.base import (
  ImagePredictor,
  Prepared,
  batched,
  check_count,
  stack_padded,
)
from ferjax.inference.forward import forward
from ferjax.inference.results import Face
from ferjax.models import create_model
from ferjax.ops.normalize import normalize
from ferjax.tasks.classification.task import ClassificationTask, log_prior
from ferjax.trained import TrainedNetwork
from ferjax.typing import Classifications
from ferjax.weights.opening import Step, open_weights
from ferjax.weights.settings import Margin, check_margin, check_temperature

# Settings of prediction, and what they are unless weights or callers say otherwise.
DEFAULTS: dict[str, Any] = {"flip": False, "logit_adjustment": 0.0, "temperature": 1.0}


def classification_program(
  model: nn.Module,
  class_names: Sequence[str],
  *,
  mean: Sequence[float],
  std: Sequence[float],
  flip: bool,
  logit_adjustment: float,
  temperature: float,
  class_prior: Sequence[float],
) -> Callable[..., Classifications]:
  """The program of prediction, from bytes to probabilities.

  Arguments are as for `ExpressionClassifier.from_model`.

  Returns:
    A function (variables, image u8[b h w c]) -> `Classifications`.

  Raises:
    ValueError: the adjustment is not finite, or needs frequencies that are not known; the
      temperature is not above 0 and finite.
  """
  task = ClassificationTask(tuple(class_names), LossConfig(class_prior=tuple(class_prior)))
  if not math.isfinite(logit_adjustment):
    raise ValueError(f"logit_adjustment is {logit_adjustment}; expected a finite number")
  check_temperature(temperature)
  if logit_adjustment:
    log_prior(task.loss_config)  # raises an error if it is not known

  def classify(variables: dict[str, Any], image: UInt8[Array, "b h w c"]) -> Classifications:
    if flip:
      image = jnp.stack([image, jnp.flip(image, axis=2)], axis=1).reshape(-1, *image.shape[1:])
    output = forward(model, variables, image, mean, std)
    if flip:
      output = task.merge_views(output, 2, probabilities=True)
    return task.postprocess(output, logit_adjustment=logit_adjustment, temperature=temperature)

  return classify


class FaceClassifier(ImagePredictor[np.ndarray]):
  """A predictor that classifies whole images.

  Every image gives one `Face` without a box: the image is treated as a cropped face, resized, and
  its central square is classified.

  Attributes (besides those of `ImagePredictor`):
    image_size: side of the model's input, pixels.
    resize, grey: as in `ferjax.config.DataConfig`.
    crop_margin: (left, top, right, bottom) of the weights' crops around a detected face; None if
      they have none. See `ferjax.weights.settings.check_margin`.
  """

  image_size: int
  resize: int
  grey: bool
  crop_margin: Margin | None = None

  @abc.abstractmethod
  def _classifications(self, views: UInt8[np.ndarray, "b s s c"]) -> Classifications:
    """The classes of a batch of `batch_size` views, as NumPy arrays."""

  def _inputs(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "s s 3"]:
    return center_view(image, self.image_size, resize=self.resize, grey=self.grey)

  def _faces(self, batch: list[Prepared[np.ndarray]]) -> list[tuple[Face, ...]]:
    return [(face,) for face in self._classify_views(prepared.inputs for prepared in batch)]

  def classify_crops(self, crops: Iterable[UInt8[np.ndarray, "_ _ 3"]]) -> Iterator[Face]:
    """Yields the prediction for each RGB crop of any size; reads one batch at a time."""
    yield from self._classify_views(map(self._inputs, crops))

  def _classify_views(self, views: Iterable[UInt8[np.ndarray, "s s 3"]]) -> Iterator[Face]:
    for batch in batched(views, self.batch_size):
      pixels = stack_padded(batch, self._padded_size(len(batch)))
      if self.grey:
        pixels = pixels[..., :1]  # all channels are equal; a third of the bytes to copy
      probabilities, labels = map(np.asarray, self._classifications(pixels))
      for row in range(len(batch)):
        yield self._face(probabilities[row], labels[row])

  def _face(self, probabilities: Float[np.ndarray, "k"], label: np.integer) -> Face:
    return Face(
      box=None,
      score=float(probabilities[label]),
      expression=self.class_names[label],
      scores=dict(zip(self.class_names, probabilities.tolist(), strict=True)),
    )


class ExpressionClassifier(FaceClassifier):
  """Classifies the expression of face images with a trained network."""

  def __init__(
    self,
    checkpoint: str | os.PathLike | TrainedNetwork,
    *,
    step: Step = None,
    batch_size: int = 8,
    flip: bool | None = None,
    logit_adjustment: float | None = None,
    temperature: float | None = None,
  ):
    """Loads the model, class names, preprocessing and weights.

    Args:
      checkpoint: the name of known weights, a weights file, a training workdir, one checkpoint in
        it, or an open one; see `ferjax.weights.open_weights`.
      step: of a checkpoint: a number, "best", "latest", or None for the best, or the latest if none
        was evaluated.
      batch_size: images per batch.
      flip: averages the probabilities of an image and its mirror image; takes twice as long.
      logit_adjustment: times the logarithm of the classes' frequencies in training, which is
        subtracted from the logits: makes rare classes more probable.
      temperature: divides the logits after that: below 1, scores become more certain; labels stay.
        For these three, None is the weights' own setting, or False, 0 and 1.

    Raises:
      FileNotFoundError: the checkpoint does not exist, and is not the name of known weights.
      ValueError: the batch size is not positive, the model is for another task, this version cannot
        read the checkpoint, or it does not know the frequencies for an adjustment.
    """
    check_count("batch_size", batch_size)
    opened = open_weights(checkpoint, step=step)
    opened.check_task("classification")
    meta = opened.meta
    self.step, self.digest = opened.step, opened.digest
    if (margin := opened.settings.get("crop_margin")) is not None:
      self.crop_margin = check_margin(margin)
    given = {"flip": flip, "logit_adjustment": logit_adjustment, "temperature": temperature}
    own = {name: opened.settings.get(name, default) for name, default in DEFAULTS.items()}
    settings = own | {name: value for name, value in given.items() if value is not None}
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
      class_prior=meta.get("class_prior", ()),
      **settings,
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
    flip: bool = False,
    logit_adjustment: float = 0.0,
    temperature: float = 1.0,
    class_prior: Sequence[float] = (),
  ) -> "ExpressionClassifier":
    """Like the constructor, with a model and its variables instead of a checkpoint.

    `class_names` are in the order of the model's outputs; `image_size` is the side of the
    model's input in pixels; `class_prior` are the classes' frequencies in training; the others are
    as in `ferjax.config.DataConfig`, or as for the constructor.
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
      flip=flip,
      logit_adjustment=logit_adjustment,
      temperature=temperature,
      class_prior=class_prior,
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
    flip: bool,
    logit_adjustment: float,
    temperature: float,
    class_prior: Sequence[float],
  ) -> None:
    self.class_names = tuple(class_names)
    self.image_size = image_size
    self.batch_size = batch_size
    settings = {"flip": flip, "logit_adjustment": logit_adjustment, "temperature": temperature}
    self.settings = {name: x for name, x in settings.items() if x != DEFAULTS[name]}
    self.grey, self.resize = grey, resize
    self._mean, self._std = mean, std
    self._normalize = functools.partial(normalize, mean=tuple(mean), std=tuple(std))
    classify = classification_program(
      model,
      class_names,
      mean=mean,
      std=std,
      flip=flip,
      logit_adjustment=logit_adjustment,
      temperature=temperature,
      class_prior=class_prior,
    )
    self._classify = jax.jit(classify, compiler_options=compiler_options())
    self._model = model
    self._variables = jax.device_put(variables)

  def _classifications(self, views) -> Classifications:
    return jax.device_get(self._classify(self._variables, views))

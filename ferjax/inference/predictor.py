"""Faces and their expressions in photographs, from a checkpoint.

Preprocessing is that of evaluation (`ferjax.data.image`) and so is post-processing
(`DetectionTask.postprocess`), so that predictions and measured accuracy cannot disagree.
"""

import dataclasses
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from ferjax.data.image import IMAGENET_MEAN, IMAGENET_STD, ImageError, decode, letterbox, normalize
from ferjax.models import create_model
from ferjax.tasks.detection import DetectionTask
from ferjax.training.checkpoint import Step, check_task, load_meta, load_variables
from ferjax.typing import Detections

_DECODING_THREADS = 4


@dataclasses.dataclass(frozen=True)
class Face:
  """One face of an image.

  `box` is (x1, y1, x2, y2) in pixels of the upright original image; `scores` is, for each class
  name, objectness times the probability of the class (0..1); `expression` is the name of the
  largest of these, and `score` is that one.
  """

  box: tuple[float, float, float, float]
  score: float
  expression: str
  scores: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Prediction:
  """The faces of one image by falling score; `image` is its path, or None if it was an array."""

  image: str | None
  width: int
  height: int
  faces: tuple[Face, ...]


class _Prepared:
  """A decoded image, and the model's input made from it."""

  def __init__(self, path: str | None, image: UInt8[np.ndarray, "h w 3"], size: int):
    self.path = path
    self.image = image
    self.pixels, self.placement = letterbox(image, size)


class Predictor:
  """Finds faces and their expressions with the model of a checkpoint.

  One program of a fixed batch shape is compiled, on the first call; a last, smaller batch is
  padded. An image's result does not depend on the images it shares a batch with.

  Attributes:
    class_names: in the order of the scores.
    image_size: side of the model's input, pixels.
    step: of the checkpoint; None for a predictor made by `from_model`.
  """

  def __init__(
    self,
    checkpoint: str | os.PathLike,
    *,
    step: Step = None,
    batch_size: int = 8,
    score_threshold: float = 0.3,
    iou_threshold: float = 0.3,
    max_detections: int = 100,
  ):
    """Loads model, class names, image size and weights.

    Args:
      checkpoint: the folder that training wrote, or one checkpoint in it.
      step: a number, "best", "latest", or None for the best where one was evaluated.
      batch_size: images that the model sees at once.
      score_threshold: faces below this score are left out (0..1).
      iou_threshold: of two faces with the same expression whose boxes overlap by more than this,
        the one with the smaller score is left out (0..1).
      max_detections: faces kept per image, at most.

    Raises:
      FileNotFoundError: there is no such checkpoint.
      ValueError: a setting is out of its range, or the model is for another task or was trained
        on images normalised in another way.
    """
    _check_settings(batch_size, score_threshold, iou_threshold, max_detections)
    meta = load_meta(checkpoint, step=step)
    check_task(meta, "detection")
    _check_normalisation(meta)
    class_names = tuple(meta["class_names"])
    self.step = meta["step"]
    self._prepare(
      create_model(num_classes=len(class_names), **meta["model"]),
      load_variables(checkpoint, step=step),
      class_names,
      meta["image_size"],
      batch_size=batch_size,
      score_threshold=score_threshold,
      iou_threshold=iou_threshold,
      max_detections=max_detections,
    )

  @classmethod
  def from_model(
    cls,
    model: nn.Module,
    variables: dict[str, Any],
    class_names: Sequence[str],
    image_size: int,
    *,
    batch_size: int = 8,
    score_threshold: float = 0.3,
    iou_threshold: float = 0.3,
    max_detections: int = 100,
  ) -> "Predictor":
    """As the constructor, with a model and its variables instead of a checkpoint.

    `class_names` are in the order of the model's outputs; `image_size` is the side of the
    model's input in pixels.
    """
    _check_settings(batch_size, score_threshold, iou_threshold, max_detections)
    predictor = cls.__new__(cls)
    predictor.step = None
    predictor._prepare(
      model,
      variables,
      tuple(class_names),
      image_size,
      batch_size=batch_size,
      score_threshold=score_threshold,
      iou_threshold=iou_threshold,
      max_detections=max_detections,
    )
    return predictor

  def _prepare(
    self,
    model: nn.Module,
    variables: dict[str, Any],
    class_names: tuple[str, ...],
    image_size: int,
    *,
    batch_size: int,
    **postprocessing: Any,
  ) -> None:
    self.class_names = class_names
    self.image_size = image_size
    self.batch_size = batch_size
    task = DetectionTask(class_names)

    @jax.jit
    def detect(
      variables: dict[str, Any], image: Float[Array, "b h w 3"], placement: Float[Array, "b 6"]
    ) -> Detections:
      output: Any = model.apply(variables, image, train=False)
      return task.postprocess(output, image_size=image_size, placement=placement, **postprocessing)

    self._detect = detect
    self._variables = jax.device_put(variables)

  def predict(self, images: Iterable[str | os.PathLike | np.ndarray]) -> list[Prediction]:
    """Predictions for image files, or for RGB arrays u8[h w 3], in the order given.

    Raises:
      ImageError: a file cannot be read; the message names it.
      TypeError, ValueError: an array is not u8[h w 3].
    """
    if isinstance(images, str | bytes | os.PathLike) or getattr(images, "ndim", 4) == 3:
      raise TypeError(f"predict takes a list of images, not one {type(images).__name__}: [image]")
    return [prediction for prediction, _ in self._predict(images, on_bad_image=None)]

  def predict_files(
    self,
    paths: Iterable[str | os.PathLike],
    *,
    on_bad_image: Callable[[str, ImageError], None] | None = None,
  ) -> Iterator[tuple[Prediction, UInt8[np.ndarray, "h w 3"]]]:
    """Yields the prediction and the upright RGB pixels of each file, in the order given.

    Files are decoded in threads while the model runs; at most two batches are in memory.

    Args:
      paths: image files; may be a generator.
      on_bad_image: called with the path and the error of a file that cannot be read, which is
        then left out; without it, the error is raised.
    """
    yield from self._predict(paths, on_bad_image=on_bad_image)

  def _predict(self, images, *, on_bad_image) -> Iterator[tuple[Prediction, np.ndarray]]:
    batch: list[_Prepared] = []
    for prepared in self._read_ahead(images, on_bad_image):
      batch.append(prepared)
      if len(batch) == self.batch_size:
        yield from self._predict_batch(batch)
        batch = []
    if batch:
      yield from self._predict_batch(batch)

  def _read_ahead(self, images, on_bad_image) -> Iterator[_Prepared]:
    """Yields the images in order, while threads prepare the next ones."""
    with ThreadPoolExecutor(_DECODING_THREADS) as pool:
      waiting = deque()
      try:
        for image in images:
          waiting.append((image, pool.submit(self._read, image)))
          if len(waiting) > self.batch_size:
            yield from _take(waiting, on_bad_image)
        while waiting:
          yield from _take(waiting, on_bad_image)
      finally:
        for _, future in waiting:
          future.cancel()

  def _read(self, image: str | os.PathLike | np.ndarray) -> _Prepared:
    if not isinstance(image, np.ndarray):
      return _Prepared(os.fspath(image), decode(image), self.image_size)
    if image.dtype != np.uint8:
      raise TypeError(f"an image array has dtype {image.dtype}; expected uint8 RGB, 0..255")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
      raise ValueError(f"an image array has shape {image.shape}; expected (height, width, 3), RGB")
    return _Prepared(None, image, self.image_size)

  def _predict_batch(self, batch: list[_Prepared]) -> Iterator[tuple[Prediction, np.ndarray]]:
    padded = batch + [batch[-1]] * (self.batch_size - len(batch))
    pixels = normalize(np.stack([prepared.pixels for prepared in padded]))
    placement = np.stack([prepared.placement for prepared in padded])
    detections = jax.device_get(self._detect(self._variables, pixels, placement))
    for row, prepared in enumerate(batch):
      one = jax.tree.map(lambda rows, row=row: rows[row], detections)
      height, width = prepared.image.shape[:2]
      yield Prediction(prepared.path, width, height, self._faces(one)), prepared.image

  def _faces(self, detections: Detections) -> tuple[Face, ...]:
    return tuple(
      Face(
        box=tuple(detections.boxes[row].tolist()),
        score=float(detections.scores[row]),
        expression=self.class_names[detections.labels[row]],
        scores=dict(zip(self.class_names, detections.class_scores[row].tolist(), strict=True)),
      )
      for row in np.flatnonzero(detections.mask)
    )


def _take(waiting: deque, on_bad_image) -> Iterator[_Prepared]:
  """Yields the first image that waits, or nothing if it is bad and this is to be tolerated."""
  image, future = waiting.popleft()
  try:
    prepared = future.result()
  except ImageError as error:
    if on_bad_image is None:
      raise
    on_bad_image(os.fspath(image), error)
  else:
    yield prepared


def _check_normalisation(meta: dict[str, Any]) -> None:
  trained, ours = (*meta["mean"], *meta["std"]), (*IMAGENET_MEAN, *IMAGENET_STD)
  if not np.allclose(trained, ours):
    raise ValueError(
      f"the checkpoint's images were normalised with mean {meta['mean']} and std {meta['std']}; "
      f"expected {IMAGENET_MEAN} and {IMAGENET_STD}, which `ferjax.data.image.normalize` uses"
    )


def _check_settings(
  batch_size: int, score_threshold: float, iou_threshold: float, max_detections: int
) -> None:
  for name, count in (("batch_size", batch_size), ("max_detections", max_detections)):
    if count < 1:
      raise ValueError(f"{name} is {count}; expected at least 1")
  for name, value in (("score_threshold", score_threshold), ("iou_threshold", iou_threshold)):
    if not 0 <= value <= 1:
      raise ValueError(f"{name} is {value}; expected 0..1")

"""Explains the predictions of a trained network."""

import abc
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from ferjax.data.classification.views import center_placement
from ferjax.inference.base import Image, OnBadImage, Prepared, read_ahead
from ferjax.inference.classification import ExpressionClassifier
from ferjax.inference.detection import Predictor
from ferjax.inference.explanation.maps import (
  Explanation,
  compose,
  input_to_image,
  transformer_to_input,
  visible_region,
)
from ferjax.inference.explanation.saliency import (
  apply_capturing,
  default_layer,
  hirescam,
  unfrozen,
)
from ferjax.inference.loading import load_predictor
from ferjax.inference.results import Face
from ferjax.inference.two_stage import DetectAndClassify
from ferjax.models.registry import spec_of
from ferjax.tasks.detection.task import DetectionTask, decode
from ferjax.trained import TrainedNetwork
from ferjax.weights.opening import Step, open_weights

_IMAGES_AHEAD = 4
_MAX_FACES = 6
_PREDICTED = -1  # stands for the predicted class instead of a class index


class ExplainedImage(NamedTuple):
  """`path` is None for an array; `pixels` is upright RGB.

  One explanation per face, in the order of the predictor.
  """

  path: str | None
  pixels: UInt8[np.ndarray, "h w 3"]
  explanations: tuple[Explanation, ...]


class Explainer(abc.ABC):
  """The interface of all explainers. The network's input is that of the predictor.

  Attributes:
    predictor: the predictor whose predictions are explained.
    target: the class to explain; None for the predicted one.
  """

  def __init__(
    self, predictor: Predictor | ExpressionClassifier | DetectAndClassify, target: str | None
  ):
    names = predictor.class_names
    if target is not None and target not in names:
      raise ValueError(f"unknown class {target!r}; known: {', '.join(names)}")
    self.predictor = predictor
    self.target = target

  def explain(
    self, images: Iterable[Image], *, on_bad_image: OnBadImage = None
  ) -> Iterator[ExplainedImage]:
    """Yields the explanations of image files or RGB arrays u8[h w 3], in input order.

    Args:
      images: may be a generator.
      on_bad_image: called with the path and the error of an unreadable file, which is then
        skipped; if None, the error is raised.

    Raises:
      ImageError: a file cannot be read; the message names it.
      TypeError, ValueError: an array is not u8[h w 3].
    """
    if isinstance(images, str | bytes | os.PathLike) or getattr(images, "ndim", 4) == 3:
      raise TypeError(f"explain takes a list of images, not one {type(images).__name__}: [image]")
    ahead = read_ahead(
      images, self.predictor._inputs, images_ahead=_IMAGES_AHEAD, on_bad_image=on_bad_image
    )
    for prepared in ahead:
      yield ExplainedImage(prepared.path, prepared.image, self._explain(prepared))

  @abc.abstractmethod
  def _explain(self, prepared: Prepared[Any]) -> tuple[Explanation, ...]:
    """One explanation per face."""


class ClassifierExplainer(Explainer):
  """Explains the logit of a class, and records where a spatial transformer sampled.

  The face is the predictor's, so its scores have the predictor's flips, logit adjustment and
  temperature. The map is of the logit for the image alone.

  Attributes (besides those of `Explainer`):
    layer: path of the submodule that returns the feature map [b h w c].
  """

  predictor: ExpressionClassifier

  def __init__(
    self, predictor: ExpressionClassifier, *, target: str | None = None, layer: str | None = None
  ):
    """Selects the feature map; compiles on the first image.

    Args:
      predictor: the predictor whose predictions are explained.
      target: the class to explain; None for the predicted one.
      layer: path of the submodule that returns the map; None for that of
        `ferjax.inference.explanation.saliency.default_layer`.

    Raises:
      ValueError: an unknown class, or a missing layer for a network without a default one.
    """
    super().__init__(predictor, target)
    model = unfrozen(predictor._model)
    layer = default_layer(model, predictor.image_size) if layer is None else layer
    spec = spec_of(model)
    transformer = (
      () if spec is None or spec.spatial_transformer is None else spec.spatial_transformer
    )
    self.layer, self._transformer = layer, transformer

    @jax.jit
    def explain(variables: dict[str, Any], image: UInt8[Array, "1 s s 3"], label: Int[Array, ""]):
      image = predictor._normalize(image)
      _, captured = apply_capturing(model, variables, image, (layer, *transformer))

      def logit(features):
        output, _ = apply_capturing(model, variables, image, [layer], replaced={layer: features})
        return output.logits[0, label]

      cells = hirescam(captured[layer], jax.grad(logit)(captured[layer]))[0]
      return cells, {path: captured[path] for path in transformer}

    self._program = explain

  def _explain(self, prepared: Prepared[UInt8[np.ndarray, "s s 3"]]) -> tuple[Explanation, ...]:
    (face,) = self.predictor._classify_views([prepared.inputs])
    return (self._explain_face(prepared, face),)

  def _explain_face(
    self, prepared: Prepared[UInt8[np.ndarray, "s s 3"]], face: Face
  ) -> Explanation:
    """Explains `face`, which is the prediction for the image."""
    predictor, target = self.predictor, self.target or face.expression
    label = np.int32(predictor.class_names.index(target))
    cells, captured = jax.device_get(
      self._program(predictor._variables, prepared.inputs[None], label)
    )
    height, width = prepared.image.shape[:2]
    size = predictor.image_size
    placement = center_placement(width, height, size, resize=predictor.resize)
    affine, transformed = input_to_image(placement, size), {}
    if self._transformer:
      affine_map, resampled = (captured[path] for path in self._transformer)
      theta = affine_map.reshape(2, 3).astype(np.float64)
      affine = compose(affine, transformer_to_input(theta, size))
      resampled = _to_pixels(resampled[0], predictor._mean, predictor._std)
      transformed = {"theta": theta, "resampled": resampled}
    return Explanation(
      face=face,
      target=target,
      layer=self.layer,
      cells=cells,
      to_image=affine,
      view=visible_region(placement, size),
      **transformed,
    )


class DetectorExplainer(Explainer):
  """Explains the log-score of a class, at the cell that detected each face.

  The feature map is the head's input at that cell's level.

  Attributes (besides those of `Explainer`):
    layer: path of the submodule that returns the maps of all levels.
  """

  predictor: Predictor

  def __init__(
    self,
    predictor: Predictor,
    *,
    target: str | None = None,
    layer: str | None = None,
    max_faces: int | None = None,
  ):
    """Compiles on the first image.

    Args:
      predictor: the predictor whose predictions are explained, at most `max_detections` faces.
      target: the class to explain; None for the predicted one.
      layer: path of the submodule that returns the maps of all levels; None for that of
        `ferjax.inference.explanation.saliency.default_layer`.
      max_faces: to explain, by decreasing score; None for all.

    Raises:
      ValueError: an unknown class, or a missing layer for a network without a default one.
    """
    super().__init__(predictor, target)
    model = unfrozen(predictor._model)
    layer = default_layer(model, predictor.image_size) if layer is None else layer
    self.layer = layer
    self._class = np.int32(_PREDICTED if target is None else predictor.class_names.index(target))
    size, most = predictor.image_size, predictor.settings["max_detections"]
    most = most if max_faces is None else min(most, max_faces)
    per_class_nms = predictor.settings["per_class_nms"]
    task = DetectionTask(predictor.class_names)

    @jax.jit
    def explain(
      variables: dict[str, Any],
      image: UInt8[Array, "1 s s 3"],
      placement: Float[Array, "1 6"],
      target: Int[Array, ""],
      score_threshold: Float[Array, ""],
      iou_threshold: Float[Array, ""],
    ):
      image = predictor._normalize(image)
      output, captured = apply_capturing(model, variables, image, [layer])
      detections, cells = task.postprocess_cells(
        output,
        image_size=size,
        placement=placement,
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
        max_detections=most,
        per_class_nms=per_class_nms,
      )
      detections, cells = jax.tree.map(lambda rows: rows[0], (detections, cells))
      classes = jnp.where(target == _PREDICTED, detections.labels, target)

      def log_scores(maps):
        output, _ = apply_capturing(model, variables, image, [layer], replaced={layer: maps})
        _, objectness, logits = decode(output, size)
        # Log-sigmoids keep gradients from vanishing if a probability rounds to 1.
        return jax.nn.log_sigmoid(objectness[0])[:, None] + jax.nn.log_sigmoid(logits[0])

      scores, pull_back = jax.vjp(log_scores, captured[layer])

      def explain_face(cell_and_class):
        (gradients,) = pull_back(jnp.zeros_like(scores).at[cell_and_class].set(1))
        return [hirescam(*pair)[0] for pair in zip(captured[layer], gradients, strict=True)]

      return detections, cells, jax.lax.map(explain_face, (cells, classes))

    self._program = explain

  def _explain(self, prepared: Prepared[tuple[np.ndarray, np.ndarray]]) -> tuple[Explanation, ...]:
    predictor = self.predictor
    square, placement = prepared.inputs
    detections, cells, maps = jax.device_get(
      self._program(
        predictor._variables, square[None], placement[None], self._class, *predictor._thresholds
      )
    )
    affine = input_to_image(placement, predictor.image_size)
    view = visible_region(placement, predictor.image_size)
    ends = np.cumsum([level[0].size for level in maps])
    explanations = []
    for row, face in enumerate(predictor._faces_of(detections)):
      level = int(np.searchsorted(ends, cells[row], side="right"))
      explanations.append(
        Explanation(
          face=face,
          target=self.target or face.expression,
          layer=f"{self.layer}/{level}",
          cells=maps[level][row],
          to_image=affine,
          view=view,
        )
      )
    return tuple(explanations)


def load_explainer(
  checkpoint: str | os.PathLike | TrainedNetwork,
  *,
  step: Step = None,
  target: str | None = None,
  score_threshold: float | None = None,
  iou_threshold: float | None = None,
  max_detections: int | None = None,
  per_class_nms: bool | None = None,
  image_size: int | None = None,
) -> Explainer:
  """A `ClassifierExplainer` or a `DetectorExplainer`, depending on the task.

  Args:
    checkpoint, step, score_threshold, iou_threshold, per_class_nms, image_size: as for
      `ferjax.load_predictor`.
    target: the class to explain; None for the predicted one.
    max_detections: detectors only: maximum number of faces to explain, by decreasing score; None
      for 6.

  Raises:
    FileNotFoundError: the checkpoint does not exist.
    ValueError: an unknown class, or a setting is out of range or does not apply here.
  """
  checkpoint = open_weights(checkpoint, step=step)
  if max_detections is None and checkpoint.meta["task"] == "detection":
    max_detections = _MAX_FACES
  predictor = load_predictor(
    checkpoint,
    batch_size=1,
    score_threshold=score_threshold,
    iou_threshold=iou_threshold,
    max_detections=max_detections,
    per_class_nms=per_class_nms,
    image_size=image_size,
  )
  if isinstance(predictor, Predictor):
    return DetectorExplainer(predictor, target=target)
  return ClassifierExplainer(cast(ExpressionClassifier, predictor), target=target)


def _to_pixels(
  image: Float[np.ndarray, "h w 3"], mean: Sequence[float], std: Sequence[float]
) -> UInt8[np.ndarray, "h w 3"]:
  """The inverse of `ferjax.ops.normalize`, rounded."""
  return np.clip(np.rint((image * np.array(std) + np.array(mean)) * 255), 0, 255).astype(np.uint8)

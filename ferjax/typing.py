"""The letters of array dimensions, and the types passed between the stages.

  b  examples in a batch            m  boxes of an image, padded      l  positions of a sequence
  h  rows, w  columns of a map      d  detections kept per image      p  scan paths
  c  channels                       a  cells of all levels together   n  state size of the scan
  k  classes                        g  ground-truth boxes of one image

Images are NHWC, RGB. Boxes are `xyxy` in pixels of the model's input. Class ids are 0-based in
the order of the model's class names; there is no background class. The class id of a box that
nobody labelled is `ferjax.expressions.UNLABELLED`. Padding is a boolean mask.
"""

from typing import Any, NamedTuple, TypedDict

from jaxtyping import Array, Bool, Float, Int, UInt8, UInt32

# The size of an axis: an int, or a symbolic size when a program is exported for all sizes
# (`jax.export.symbolic_shape`). JAX has no public name for the latter's type.
DimSize = Any


class Batch(TypedDict):
  """The fields of a batch for every task.

  `image` has one channel if it is grey, else three; the step normalises it. `mask` is False for
  padding examples of the last batch and for skipped records; `skipped` is True only for the latter,
  and `index` is the record's number in its source.
  """

  image: UInt8[Array, "b *views h w c"]
  mask: Bool[Array, "b"]
  skipped: Bool[Array, "b"]
  index: Int[Array, "b"]


class ClassificationBatch(Batch):
  """A batch of the input pipeline for a classifier.

  Several views of an image are an axis after the first: [b views h w c].
  `label` is a distribution over the classes (one-hot if hard). With mixup or CutMix, a training
  batch also has `mixing`: `PairMixing`.
  """

  label: Float[Array, "b k"]


class PairMixing(TypedDict):
  """How the pairs of a training batch are mixed, drawn for each example.

  `weight` is that of the example's own image and label; `box` is left, top, right and bottom of the
  rectangle that a pair exchanges, empty if there is none.
  """

  weight: Float[Array, "b"]
  box: Int[Array, "b 4"]


class StoredViews(TypedDict):
  """The parameters of training views of images that are on the devices.

  `number` is of the training example and seeds its noise; `size` is the width and height of the
  resized image. `matrix` maps a position (u, v, 1) of the view to one in the resized image.
  `flipped` is horizontally and vertically; `gains` are of brightness and contrast; `erased` is
  left, top, width and height of a rectangle, with a width of 0 if there is none.
  """

  number: UInt32[Array, "b"]
  size: Int[Array, "b 2"]
  matrix: Float[Array, "b 2 3"]
  flipped: Bool[Array, "b 2"]
  gains: Float[Array, "b 2"]
  noisy: Bool[Array, "b"]
  erased: Int[Array, "b 4"]


class StoredBatch(TypedDict):
  """A `ClassificationBatch` whose images the step makes from those on the devices, by `index`."""

  view: StoredViews
  label: Float[Array, "b k"]
  mask: Bool[Array, "b"]
  skipped: Bool[Array, "b"]
  index: Int[Array, "b"]


class DetectionBatch(Batch):
  """A batch of the input pipeline for a detector.

  `placement` maps original pixels to input pixels, as `ferjax.data.image.letterbox` returns it:
  (scale_x, scale_y, left, top, original width, original height).
  """

  boxes: Float[Array, "b m 4"]
  label: Int[Array, "b m"]
  box_mask: Bool[Array, "b m"]
  placement: Float[Array, "b 6"]


class DetectorOutput(NamedTuple):
  """Raw maps, finest first; channels are (x, y, w, h, objectness, classes...), all logits."""

  levels: tuple[Float[Array, "b _ _ c"], ...]


class ClassifierOutput(NamedTuple):
  """`features` is the input of the last Dense layer.

  `attention` is the input of EmoNeXt's regulariser: weights that sum to one over the last axis. It
  is only set in training.
  """

  logits: Float[Array, "b k"]
  features: Float[Array, "b c"]
  attention: Float[Array, "*g t t"] | None = None


class Classifications(NamedTuple):
  """`probabilities` sum to one over the classes; `labels` are their argmax."""

  probabilities: Float[Array, "b k"]
  labels: Int[Array, "b"]


class Detections(NamedTuple):
  """Boxes kept by non-maximum suppression, in order of decreasing score, padded to a fixed number.

  `boxes` are xyxy pixels of the original image (of the model's input if no placement was given),
  `scores` is objectness times the probability of the best class, `class_scores` is
  objectness times each class probability. Rows with `mask` False are zeros.
  """

  boxes: Float[Array, "*b d 4"]
  scores: Float[Array, "*b d"]
  labels: Int[Array, "*b d"]
  class_scores: Float[Array, "*b d k"]
  mask: Bool[Array, "*b d"]

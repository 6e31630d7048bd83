"""Intervals of a detector's metrics, and differences of two detectors, from resampled images.

Average precision ranks the detections of all images, so it has no value per image that could be
averaged. A resample draws images with replacement, and ranks their detections again. An image that
is drawn twice counts twice: its detections and boxes have the weight 2.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from ferjax.tasks.detection.metrics import FACE_AP, DetectionMetrics, expression_hits
from ferjax.tasks.detection.voc import ImageResult
from ferjax.tasks.resampling import NUM_RESAMPLES, Estimate, estimate

_CELLS = 5_000_000  # weights in memory at once
_PIXELS = 0.05  # by which the rounding of a placement moves a box

Values = dict[str, Float[np.ndarray, "r"]]


def intervals(
  metrics: DetectionMetrics, *, resamples: int = NUM_RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
  """`map50`, `ap50/<class>`, `face_ap50` and `expression_accuracy`, named as in `compute`.

  Raises:
    ValueError: there is no image.
  """
  return _estimates([metrics], lambda values: values[0], resamples, seed)


def differences(
  first: DetectionMetrics,
  second: DetectionMetrics,
  *,
  resamples: int = NUM_RESAMPLES,
  seed: int = 0,
) -> dict[str, Estimate]:
  """`second` minus `first`, for the metrics of `intervals`; a resample takes the same images.

  Raises:
    ValueError: other classes, other images, or other true boxes.
  """
  if first.class_names != second.class_names:
    raise ValueError(
      f"the classes are {', '.join(first.class_names)} and {', '.join(second.class_names)}; "
      "expected the same, in the same order"
    )
  a, b = first.arrays(), second.arrays()
  for name in ("index", "num_truth", "truth_labels"):
    if not np.array_equal(a[name], b[name]):
      raise ValueError(f"the two have different images (their {name} differs); expected the same")
  # Boxes went through the placement of each network's input size.
  if not np.allclose(a["truth_boxes"], b["truth_boxes"], rtol=0, atol=_PIXELS):
    raise ValueError("the two have different true boxes; expected the same")
  pair = [DetectionMetrics.from_arrays(first.class_names, x) for x in (a, b)]
  return _estimates(
    pair, lambda x: {name: x[1][name] - x[0][name] for name in x[0]}, resamples, seed
  )


def _estimates(
  several: Sequence[DetectionMetrics],
  combine: Callable[[list[Values]], Values],
  resamples: int,
  seed: int,
) -> dict[str, Estimate]:
  number = len(several[0].images)
  if number == 0:
    raise ValueError("there are no images to resample")
  measures = [_Measures.of(metrics) for metrics in several]
  point = combine([x.values(np.ones((1, number), np.int32)) for x in measures])
  size = max(number, *(len(ranking.image) for x in measures for ranking in x.rankings.values()))
  drawn = [
    combine([x.values(weights) for x in measures])
    for weights in _weights(number, resamples, max(1, _CELLS // size), seed)
  ]
  return {
    name: estimate(float(value[0]), np.concatenate([part[name] for part in drawn]))
    for name, value in point.items()
  }


def _weights(
  number: int, resamples: int, chunk: int, seed: int
) -> Iterator[Int[np.ndarray, "r n"]]:
  """How often each image was drawn, for at most `chunk` resamples at a time."""
  rng = np.random.default_rng(seed)
  for start in range(0, resamples, chunk):
    count = min(chunk, resamples - start)
    drawn = rng.integers(number, size=(count, number))
    drawn += number * np.arange(count)[:, None]
    yield np.bincount(drawn.ravel(), minlength=count * number).reshape(count, number)


@dataclasses.dataclass(frozen=True)
class _Ranking:
  """Detections of all images by decreasing score: their image, and whether they are correct."""

  image: Int[np.ndarray, "d"]
  correct: Bool[np.ndarray, "d"]
  boxes: Int[np.ndarray, "n"]  # true boxes of each image

  @classmethod
  def of(cls, images: Sequence[ImageResult]) -> "_Ranking":
    scores = np.concatenate([image.scores for image in images])
    correct = np.concatenate([image.match() >= 0 for image in images])
    counts = [len(image.scores) for image in images]
    order = np.argsort(-scores, kind="stable")
    number = np.repeat(np.arange(len(images)), counts)
    boxes = np.array([len(image.truth_labels) for image in images])
    return cls(number[order], correct[order], boxes)

  def average_precision(self, weights: Int[np.ndarray, "r n"]) -> Float[np.ndarray, "r"]:
    """Area under the interpolated curve of each resample; nan if it has no box.

    Precision is highest at the correct detections, so the curve is only needed there.
    """
    boxes = weights @ self.boxes
    places = np.flatnonzero(self.correct)
    area = np.zeros(len(weights))
    if len(places):
      hits = weights[:, self.image[places]]
      # The detections up to each correct one: sums over the stretches between them.
      starts = np.concatenate([[0], places[:-1] + 1])
      ranked = np.add.reduceat(weights[:, self.image[: places[-1] + 1]], starts, axis=1)
      precision = np.cumsum(hits, axis=1) / np.maximum(np.cumsum(ranked, axis=1), 1)
      best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
      area = np.sum(hits * best, axis=1) / np.maximum(boxes, 1)
    return np.where(boxes > 0, area, np.nan)


@dataclasses.dataclass(frozen=True)
class _Measures:
  """What the metrics of a resample are computed from."""

  rankings: dict[str, _Ranking]  # by the name of the metric
  found: Int[np.ndarray, "n"]  # faces with a label that were found, of each image
  hits: Int[np.ndarray, "n"]  # those of them with the correct expression

  @classmethod
  def of(cls, metrics: DetectionMetrics) -> "_Measures":
    faces, missing = metrics.faces(), metrics.classes_without_boxes
    rankings = {
      f"ap50/{name}": _Ranking.of([image.of_class(label) for image in metrics.images])
      for label, name in enumerate(metrics.class_names)
      if name not in missing
    }
    counts = np.array([expression_hits(image) for image in faces]).reshape(-1, 2)
    return cls({**rankings, FACE_AP: _Ranking.of(faces)}, counts[:, 0], counts[:, 1])

  def values(self, weights: Int[np.ndarray, "r n"]) -> Values:
    """The metrics of each resample."""
    values = {name: x.average_precision(weights) for name, x in self.rankings.items()}
    classes = [value for name, value in values.items() if name != FACE_AP]
    found = weights @ self.found
    accuracy = np.where(found > 0, weights @ self.hits / np.maximum(found, 1), np.nan)
    return {"map50": _mean(classes, len(weights)), **values, "expression_accuracy": accuracy}


def _mean(rows: Sequence[Float[np.ndarray, "r"]], number: int) -> Float[np.ndarray, "r"]:
  """The mean of the defined values of each resample; nan without any."""
  if not rows:
    return np.full(number, np.nan)
  table = np.stack(rows)
  defined = ~np.isnan(table)
  total, count = np.where(defined, table, 0).sum(axis=0), defined.sum(axis=0)
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)

"""The part of a report about a detector's predictions."""

import dataclasses
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from ferjax.expressions import UNKNOWN, UNLABELLED
from ferjax.reports.page import element, note, section, table, thumbnail
from ferjax.reports.predictions import Records
from ferjax.reports.sections import drawn, interval, metric_table
from ferjax.tasks.detection.metrics import FACE_AP, DetectionMetrics
from ferjax.tasks.detection.resampling import intervals
from ferjax.tasks.detection.voc import ImageResult
from ferjax.tasks.resampling import Estimate

_SAMPLES, _WORST = 9, 9  # images
_SIDE = 320  # pixels of an image
_FOUND, _TRUE = "#D55E00", "#009E73"
_ORDER = ("map50", FACE_AP, "expression_accuracy")


def headline(estimates: dict[str, Estimate]) -> list[tuple[str, float, str]]:
  """Name, value and interval of the metrics over all classes, as far as they are defined."""
  defined = [x for x in _ORDER if not np.isnan(estimates[x].value)]
  return [(x, estimates[x].value, interval(*estimates[x][1:])) for x in defined]


def sections(
  metrics: DetectionMetrics, values: Mapping[str, float], source: Records
) -> list[ET.Element]:
  """Metrics, classes, curves, confusion, samples and misses.

  Args:
    metrics: with the predictions on `source`, and their records; not empty.
    values: the metrics computed from them.
    source: the evaluated records.
  """
  # Plots need Matplotlib, and the command `compare` only sometimes plots.
  from ferjax.tasks.detection.plots import plot_precision_recall
  from ferjax.tasks.plots import plot_confusion

  estimates = intervals(metrics)
  counts = {name: values[f"num_{name}"] for name in ("images", "boxes", "unlabelled")}
  others = [(x, values[x], "") for x in ("map", "precision50", "recall50") if x in values]
  faces = metrics.faces()
  errors = sorted(
    (_Errors.of(number, image, metrics) for number, image in enumerate(faces)),
    key=lambda x: -x.severity,
  )
  plots = element(
    "div",
    drawn(lambda path: plot_precision_recall(metrics, path), "precision and recall"),
    drawn(
      lambda path: plot_confusion(metrics.confusion_matrix(), metrics.class_names, path),
      "confusion matrix",
    ),
    class_="plots",
  )
  worst = [x for x in errors[:_WORST] if x.severity > 0]
  chosen = np.sort(np.random.default_rng(0).permutation(len(faces))[:_SAMPLES])
  by_number = {x.number: x for x in errors}
  return [
    section(
      "Metrics",
      metric_table([*headline(estimates), *others], counts),
      note("Intervals: bootstrap over the images. Average precision at an IoU of 0.5."),
    ),
    section("Classes", _class_table(metrics, estimates)),
    section("Precision, recall and confusion", plots),
    _images(
      "Sample detections",
      f"{len(chosen)} of the {len(faces):,} images, at random.",
      [by_number[int(i)] for i in chosen],
      metrics,
      source,
    ),
    _images(
      "Worst misses",
      "Images with the most missed faces, and the most confident wrong detections.",
      worst,
      metrics,
      source,
    ),
  ]


def _class_table(metrics: DetectionMetrics, estimates: dict[str, Estimate]) -> ET.Element:
  labels = np.concatenate([image.truth_labels for image in metrics.images])
  rows = []
  for label, name in enumerate(metrics.class_names):
    found = estimates.get(f"ap50/{name}")
    cells = ("", "") if found is None else (f"{found.value:.3f}", interval(*found[1:]))
    rows.append((name, f"{np.count_nonzero(labels == label):,}", *cells))
  return table(("class", "boxes", "AP50", "95 % interval"), rows, numbers=3)


@dataclasses.dataclass(frozen=True)
class _Errors:
  """The faces of an image as they were found, and what is wrong.

  Attributes:
    number: of the image in the metrics.
    found: detections above the threshold, one for a face.
    lines: text of each detection, and whether it is wrong; then of each missed face.
    severity: scores of the wrong detections, and 1 for each missed face.
  """

  number: int
  found: ImageResult
  lines: Sequence[tuple[str, bool]]
  severity: float

  @classmethod
  def of(cls, number: int, image: ImageResult, metrics: DetectionMetrics) -> "_Errors":
    found = image.select(image.scores >= metrics.score_threshold)
    matches, lines, severity = found.match(), [], 0.0
    for place, (match, label, score) in enumerate(
      zip(matches, found.labels, found.scores, strict=True), 1
    ):
      truth = None if match < 0 else int(found.truth_labels[match])
      wrong = truth not in (int(label), UNLABELLED)
      expected = "no face" if truth is None else _name(truth, metrics)
      text = f"{place}: {_name(int(label), metrics)} {score:.2f}"
      lines.append((f"{text}, true: {expected}" if wrong else text, wrong))
      severity += float(score) * wrong
    missed = np.delete(found.truth_labels, matches[matches >= 0])
    lines += [(f"missed: {_name(int(label), metrics)}", True) for label in missed]
    return cls(number, found, lines, severity + len(missed))


def _name(label: int, metrics: DetectionMetrics) -> str:
  return UNKNOWN if label == UNLABELLED else metrics.class_names[label]


def _images(
  title: str,
  text: str,
  chosen: Sequence[_Errors],
  metrics: DetectionMetrics,
  source: Records,
) -> ET.Element:
  legend = (
    f"Numbered boxes were found with a score of at least {metrics.score_threshold:g}; the others "
    "are the true ones."
  )
  cells = (_scene(errors, metrics.index[errors.number], source) for errors in chosen)
  return section(title, note(f"{text} {legend}"), element("div", *cells, class_="scenes"))


def _scene(errors: _Errors, index: int, source: Records) -> ET.Element:
  """An image with its boxes, and a line for each."""
  try:
    image = _with_boxes(source[index]["image"], errors.found)
  except (OSError, ValueError) as error:  # the file is not there any more
    image = element("div", str(error), class_="warning")
  lines = [element("div", text, class_="wrong" if wrong else "") for text, wrong in errors.lines]
  origin = element("div", source.origin(index), class_="origin")
  return element("figure", image, element("figcaption", *lines, origin))


def _with_boxes(image: np.ndarray, found: ImageResult) -> "ET.Element | str":
  """A small copy with the boxes, whose lines are equally wide on images of any size."""
  picture = Image.fromarray(image)
  picture.thumbnail((_SIDE, _SIDE))
  scale = picture.width / image.shape[1]
  draw = ImageDraw.Draw(picture)
  for box in found.truth_boxes:
    draw.rectangle(tuple((box * scale).tolist()), outline=_TRUE, width=2)
  for place, box in enumerate(found.boxes, 1):
    corners = tuple((box * scale).tolist())
    draw.rectangle(corners, outline=_FOUND, width=2)
    place_of_text = (corners[0] + 4, corners[1] + 1)
    draw.text(
      place_of_text, str(place), fill=_FOUND, stroke_width=2, stroke_fill="white", font_size=15
    )
  return thumbnail(picture, _SIDE)

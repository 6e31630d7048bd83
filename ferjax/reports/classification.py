"""The part of a report about a classifier's predictions."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence

import numpy as np

from ferjax.reports.page import element, note, section, table, thumbnail
from ferjax.reports.predictions import Records
from ferjax.reports.sections import drawn, interval, metric_table
from ferjax.tasks.classification.metrics import ClassificationMetrics

_SAMPLES, _MISTAKES = 12, 24  # images
_HEADLINE = ("accuracy", "balanced_accuracy", "macro_f1")


def headline(values: Mapping[str, float]) -> list[tuple[str, float, str]]:
  """Name, value and interval of the metrics of all records."""
  rows = [(x, values[x], interval(values[f"{x}_low"], values[f"{x}_high"])) for x in _HEADLINE]
  return [*rows, ("ece", values["ece"], "")]


def sections(
  metrics: ClassificationMetrics, values: Mapping[str, float], source: Records
) -> list[ET.Element]:
  """Metrics, classes, confusion, reliability, samples and mistakes.

  Args:
    metrics: with the predictions on `source`; not empty.
    values: the metrics computed from them.
    source: the evaluated records.
  """
  # Plots need Matplotlib, and the command `compare` only sometimes plots.
  from ferjax.tasks.classification.plots import plot_reliability
  from ferjax.tasks.plots import plot_confusion

  matrix, names = metrics.confusion_matrix(), metrics.class_names
  plots = element(
    "div",
    drawn(lambda path: plot_confusion(matrix, names, path), "confusion matrix"),
    drawn(lambda path: plot_reliability(metrics, path), "reliability diagram"),
    class_="plots",
  )
  return [
    section(
      "Metrics",
      metric_table(headline(values), {"records": len(metrics)}),
      note("Intervals: bootstrap over the records. ece: expected calibration error."),
    ),
    section("Classes", _class_table(values, names)),
    section("Confusion and reliability", plots),
    _samples(metrics, source),
    _mistakes(metrics, source),
  ]


def _class_table(values: Mapping[str, float], names: Sequence[str]) -> ET.Element:
  rows = []
  for name in names:
    cells = [
      f"{values[key]:.3f}" if (key := f"{column}/{name}") in values else ""
      for column in ("precision", "recall", "f1")
    ]
    bounds = [values.get(f"recall_{end}/{name}", np.nan) for end in ("low", "high")]
    rows.append((name, f"{values[f'count/{name}']:,.0f}", *cells, interval(*bounds)))
  header = ("class", "records", "precision", "recall", "F1", "95 % interval of recall")
  return table(header, rows, numbers=5)


def _samples(metrics: ClassificationMetrics, source: Records) -> ET.Element:
  arrays = metrics.arrays()
  number = len(metrics)
  chosen = np.sort(np.random.default_rng(0).permutation(number)[:_SAMPLES])
  columns = [arrays[x][chosen].tolist() for x in ("index", "truth", "predicted", "probability")]
  rows = zip(*columns, strict=True)
  return section(
    "Sample predictions",
    note(f"{len(chosen)} of the {number:,} records, at random."),
    element("div", *(_face(metrics, source, *row) for row in rows), class_="faces"),
  )


def _mistakes(metrics: ClassificationMetrics, source: Records) -> ET.Element:
  mistakes = metrics.mistakes(_MISTAKES)
  total = len(metrics) - int(np.trace(metrics.confusion_matrix()))
  return section(
    "Worst mistakes",
    note(f"The {len(mistakes)} most confident of {total:,} wrong predictions."),
    element("div", *(_face(metrics, source, *mistake) for mistake in mistakes), class_="faces"),
  )


def _face(
  metrics: ClassificationMetrics,
  source: Records,
  index: int,
  truth: int,
  predicted: int,
  probability: float,
) -> ET.Element:
  """An image with its true class, its predicted class and where it is from."""
  true_name, name = metrics.class_names[truth], metrics.class_names[predicted]
  try:
    image = thumbnail(source[index]["image"])
  except (OSError, ValueError) as error:  # the file is not there any more
    image = element("div", str(error), class_="warning")
  return element(
    "figure",
    image,
    element(
      "figcaption",
      element("div", f"{name} {probability:.2f}", class_="" if truth == predicted else "wrong"),
      element("div", f"true: {true_name}"),
      element("div", source.origin(index), class_="origin"),
    ),
  )

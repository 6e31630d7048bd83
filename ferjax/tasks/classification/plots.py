"""Plots of a classifier's evaluation, as PNG files."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from ferjax.fonts import lettering_with_warning
from ferjax.tasks.base import Examples
from ferjax.tasks.classification.metrics import NUM_BINS, ClassificationMetrics
from ferjax.tasks.plots import save_figure

_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#888888"
_COLUMNS = 6  # of the sheet of mistakes
_THUMBNAIL = 192  # pixels


def plot_reliability(metrics: ClassificationMetrics, path: str | os.PathLike[str]) -> None:
  """Plots accuracy and number of predictions in bins of their probability.

  Raises:
    ValueError: no example was added.
  """
  error = metrics.calibration_error()
  count, confidence, accuracy = metrics.reliability()
  edges = np.arange(NUM_BINS) / NUM_BINS
  filled = count > 0
  figure = Figure(figsize=(6, 7), layout="constrained")
  upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
  bars = {"width": 1 / NUM_BINS, "align": "edge", "edgecolor": "white"}
  upper.bar(edges, accuracy, color=_BLUE, label="accuracy", **bars)
  upper.plot(
    confidence[filled],
    confidence[filled],
    linestyle="none",
    marker="D",
    markersize=5,
    color=_ORANGE,
    label="mean probability",
  )
  upper.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1, zorder=1)
  upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
  upper.set_title(f"Reliability: ECE {error:.3f} over {count.sum():,} examples")
  upper.legend(loc="upper left", framealpha=0.9)
  lower.bar(edges, count, color=_GREY, **bars)
  lower.set(xlabel="probability of the predicted class", ylabel="examples")
  for axes in (upper, lower):
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
  save_figure(figure, path)


def plot_mistakes(
  metrics: ClassificationMetrics, source: Examples, path: str | os.PathLike[str], *, count: int = 24
) -> None:
  """Plots a sheet of the most confident wrong predictions.

  Args:
    metrics: with the predictions of a model.
    source: the evaluated records: `source[index]["image"]` is u8[h w 3].
    path: of the PNG file.
    count: maximum number of images on the sheet.
  """
  mistakes = metrics.mistakes(count)
  total = len(metrics) - int(np.trace(metrics.confusion_matrix()))
  title = f"Errors: the {len(mistakes)} most confident of {total:,}, with their probability"
  faces = [
    Captioned(source[x.index]["image"], x.truth, x.predicted, f"{x.probability:.3f}")
    for x in mistakes
  ]
  plot_faces(faces, metrics.class_names, title if mistakes else "No errors", path)


class Captioned(NamedTuple):
  """A face of a sheet: two class ids, and a text next to the name of the second."""

  image: UInt8[np.ndarray, "_ _ 3"]
  truth: int
  predicted: int
  text: str


def plot_faces(
  faces: Sequence[Captioned],
  class_names: Sequence[str],
  title: str,
  path: str | os.PathLike[str],
  *,
  truth: str = "true",
) -> None:
  """Plots a sheet of faces with their two classes.

  Args:
    faces: in the order of the sheet.
    class_names: in the order of the class ids.
    title: of the sheet.
    path: of the PNG file.
    truth: the word before the first class.
  """
  letters = lettering_with_warning(class_names)
  rows = max(-(-len(faces) // _COLUMNS), 1)
  figure = Figure(
    figsize=(_COLUMNS * 1.75, rows * 2.3 + 0.6), layout=ConstrainedLayoutEngine(h_pad=0.08)
  )
  cells = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
  figure.suptitle(title)
  for axes in cells:
    axes.set_axis_off()
  for axes, face in zip(cells, faces, strict=False):
    _show(axes, face.image)
    first, second = (letters.names[class_names[i]] for i in (face.truth, face.predicted))
    _caption(axes, f"{truth}: {first}", 4)
    _caption(axes, f"{second}  {face.text}", 17, color=_ORANGE)
  save_figure(figure, path, letters)


def _show(axes: Axes, image: np.ndarray) -> None:
  """Draws an image of any shape, centred in a square."""
  thumbnail = Image.fromarray(image)
  thumbnail.thumbnail((_THUMBNAIL, _THUMBNAIL))
  side = max(thumbnail.size)
  square = Image.new("RGB", (side, side), "white")
  square.paste(thumbnail, ((side - thumbnail.width) // 2, (side - thumbnail.height) // 2))
  axes.imshow(square)


def _caption(axes: Axes, text: str, points: int, color: str = "black") -> None:
  """A line of text, `points` below the axes."""
  axes.annotate(
    text,
    (0.5, 0),
    xycoords="axes fraction",
    xytext=(0, -points),
    textcoords="offset points",
    ha="center",
    va="top",
    fontsize=9,
    color=color,
  )

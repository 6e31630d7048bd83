"""Figures of an evaluation, as PNG files.

Drawn with Matplotlib's objects on an Agg canvas, not with `pyplot`: nothing is shared between
threads, no display is needed, and nothing stays in memory.
"""

import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ferjax.tasks.metrics import DetectionMetrics
from ferjax.tasks.voc import average_precision, interpolate

# Okabe and Ito's colours, distinguishable by colour-blind readers; dashes tell the rest apart.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", ":", "-.")


def plot_precision_recall(metrics: DetectionMetrics, path: str | os.PathLike[str]) -> None:
  """Interpolated precision over recall at IoU 0.5; the area below each line is its class's AP.

  Classes without ground truth have no line.
  """
  figure = Figure(figsize=(8, 5), layout="constrained")
  axes = figure.add_subplot()
  for number, (name, (recall, precision)) in enumerate(metrics.curves().items()):
    # From recall 0, so that a class with a single hit, or with none, shows as a line too.
    steps = interpolate(precision)
    first = steps[:1] if len(steps) else [0]
    axes.plot(
      np.concatenate([[0], recall]),
      np.concatenate([first, steps]),
      drawstyle="steps-pre",
      color=_COLORS[number % len(_COLORS)],
      linestyle=_DASHES[number // len(_COLORS) % len(_DASHES)],
      label=f"{name}  {average_precision(recall, precision):.3f}",
    )
  axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
  axes.set_title("Precision (interpolated) and recall at IoU 0.5")
  axes.grid(alpha=0.3)
  if axes.get_lines():
    axes.legend(title="class, AP50", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
  _save(figure, path)


def plot_confusion(
  matrix: Int[np.ndarray, "n n"], class_names: Sequence[str], path: str | os.PathLike[str]
) -> None:
  """Counts, coloured by their share of the row (true class).

  `matrix` is over the classes, or over the classes and the background as
  `DetectionMetrics.confusion_matrix` returns it.

  Raises:
    ValueError: the matrix does not fit the number of names.
  """
  names = list(class_names)
  background = len(matrix) == len(names) + 1
  if background:
    names.append("background")
  if len(matrix) != len(names):
    raise ValueError(
      f"A confusion matrix of shape {matrix.shape} does not fit {len(names)} class names; "
      f"expected {len(names)} or {len(names) + 1} rows."
    )
  share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
  side = 2.6 + 0.72 * len(names)
  figure = Figure(figsize=(side + 0.8, side), layout="constrained")
  axes = figure.add_subplot()
  image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
  for row, column in np.ndindex(*matrix.shape):
    if matrix[row, column] == 0:
      continue
    axes.text(
      column,
      row,
      f"{matrix[row, column]}\n{share[row, column]:.0%}",
      ha="center",
      va="center",
      fontsize=8,
      color="white" if share[row, column] > 0.5 else "black",
    )
  axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
  axes.set_yticks(range(len(names)), names)
  axes.set(xlabel="predicted", ylabel="true")
  figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
  _save(figure, path)


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
  """Writes beside the target and renames, so that a reader never sees half a file."""
  partial = f"{os.fspath(path)}.partial"
  FigureCanvasAgg(figure).print_png(partial)
  os.replace(partial, path)

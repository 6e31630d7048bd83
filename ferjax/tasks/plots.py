"""Plots for both tasks: the confusion matrix, and writing PNG files.

They use Matplotlib's objects on an Agg canvas instead of `pyplot`: no state is shared between
threads, no display is needed, and nothing stays in memory.
"""

import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ferjax.fonts import Lettering, apply_lettering, lettering_with_warning


def plot_confusion(
  matrix: Int[np.ndarray, "n n"], class_names: Sequence[str], path: str | os.PathLike[str]
) -> None:
  """Counts, coloured by their fraction of the row (true class).

  `matrix` is over the classes, or over the classes and the background as from
  `DetectionMetrics.confusion_matrix`.

  Raises:
    ValueError: the size of the matrix does not match the number of names.
  """
  letters = lettering_with_warning(class_names)
  names = [letters.names[name] for name in class_names]
  background = len(matrix) == len(names) + 1
  if background:
    names.append("background")
  if len(matrix) != len(names):
    raise ValueError(
      f"A confusion matrix of shape {matrix.shape} does not match {len(names)} class names; "
      f"expected {len(names)} or {len(names) + 1} rows."
    )
  fraction = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
  side = 2.6 + 0.72 * len(names)
  figure = Figure(figsize=(side + 0.8, side), layout="constrained")
  axes = figure.add_subplot()
  image = axes.imshow(fraction, cmap="Blues", vmin=0, vmax=1)
  for row, column in np.ndindex(*matrix.shape):
    if matrix[row, column] == 0:
      continue
    axes.text(
      column,
      row,
      f"{matrix[row, column]}\n{fraction[row, column]:.0%}",
      ha="center",
      va="center",
      fontsize=8,
      color="white" if fraction[row, column] > 0.5 else "black",
    )
  axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
  axes.set_yticks(range(len(names)), names)
  axes.set(xlabel="predicted", ylabel="true")
  figure.colorbar(image, ax=axes, shrink=0.8, label="fraction of the true class")
  save_figure(figure, path, letters)


def save_figure(
  figure: Figure, path: str | os.PathLike[str], letters: Lettering | None = None
) -> None:
  """Writes a PNG file; `letters` is the lettering of its class names.

  Writes to a temporary file and renames it, so no partial file is ever read.
  """
  if letters is not None:
    apply_lettering(figure, letters)
  partial = f"{os.fspath(path)}.partial"
  FigureCanvasAgg(figure).print_png(partial)
  os.replace(partial, path)

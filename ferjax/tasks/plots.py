"""Shared by the plots of both tasks: the confusion matrix, and writing PNG files.

The plots use Matplotlib's objects on an Agg canvas, not `pyplot`: no state is shared between
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

  `matrix` is over the classes, or over the classes and the background as
  `DetectionMetrics.confusion_matrix` returns it.

  Raises:
    ValueError: the matrix does not fit the number of names.
  """
  letters = lettering_with_warning(class_names)
  names = [letters.names[name] for name in class_names]
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
  figure.colorbar(image, ax=axes, shrink=0.8, label="fraction of the true class")
  save_figure(figure, path, letters)


def save_figure(
  figure: Figure, path: str | os.PathLike[str], letters: Lettering | None = None
) -> None:
  """Writes a PNG file; `letters` are those of the class names in it.

  Writes to a temporary file and renames it, so a reader never sees a partial file.
  """
  if letters is not None:
    apply_lettering(figure, letters)
  partial = f"{os.fspath(path)}.partial"
  FigureCanvasAgg(figure).print_png(partial)
  os.replace(partial, path)

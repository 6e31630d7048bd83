"""Plots of a detector's evaluation, as PNG files."""

import os

import numpy as np
from matplotlib.figure import Figure

from ferjax.fonts import lettering_with_warning
from ferjax.tasks.detection.metrics import DetectionMetrics
from ferjax.tasks.detection.voc import average_precision, interpolate
from ferjax.tasks.plots import save_figure

# Okabe and Ito's colours, which colour-blind readers can distinguish; further classes have dashes.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", ":", "-.")


def plot_precision_recall(metrics: DetectionMetrics, path: str | os.PathLike[str]) -> None:
  """Plots interpolated precision over recall at IoU 0.5; the area under a line is the class's AP.

  Classes without ground truth have no line.
  """
  letters = lettering_with_warning(metrics.class_names)
  figure = Figure(figsize=(8, 5), layout="constrained")
  axes = figure.add_subplot()
  for number, (name, (recall, precision)) in enumerate(metrics.curves().items()):
    # Start at recall 0, so that a class with one match or none has a visible line.
    steps = interpolate(precision)
    first = steps[:1] if len(steps) else [0]
    axes.plot(
      np.concatenate([[0], recall]),
      np.concatenate([first, steps]),
      drawstyle="steps-pre",
      color=_COLORS[number % len(_COLORS)],
      linestyle=_DASHES[number // len(_COLORS) % len(_DASHES)],
      label=f"{letters.names[name]}  {average_precision(recall, precision):.3f}",
    )
  axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
  axes.set_title("Precision (interpolated) and recall at IoU 0.5")
  axes.grid(alpha=0.3)
  if axes.get_lines():
    axes.legend(title="class, AP50", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
  save_figure(figure, path, letters)

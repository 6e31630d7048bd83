"""The curves of one or several runs: loss, accuracy or average precision, learning rate."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ferjax.fonts import lettering_with_warning
from ferjax.reports.history import History
from ferjax.tasks.plots import save_figure

CURVES = "curves.png"
# Okabe and Ito's colours, which colour-blind readers can distinguish.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKED = 60  # evaluations, above which points would hide the line
_SCORES = ("accuracy", "balanced_accuracy", "macro_f1", "map50", "map", "face_ap50")


def plot_curves(
  runs: Mapping[str, History], path: str | os.PathLike[str], *, metric: str = ""
) -> None:
  """Plots a PNG file.

  Args:
    runs: label of a run -> its history. A run with the label "" is alone, and has several scores.
    path: of the file, which is replaced when the new one is complete.
    metric: selects checkpoints, and is marked where it is highest.
  """
  figure = Figure(figsize=(13, 3.8))
  # A computed layout would take as long as everything else.
  figure.subplots_adjust(left=0.05, right=0.99, bottom=0.13, top=0.92, wspace=0.2)
  loss, score, rate = figure.subplots(1, 3)
  scores = _shown_scores(runs, metric)
  letters = lettering_with_warning(list(runs))
  for number, (run, history) in enumerate(runs.items()):
    # Matplotlib leaves labels that start with an underscore out of the legend.
    label = f" {run}" if run.startswith("_") else letters.names[run]
    color = COLORS[number % len(COLORS)]
    _plot(loss, history, "train/loss", color, label or "training", linewidth=1, alpha=0.6)
    other = color if label else COLORS[1]
    _plot(loss, history, "eval/loss", other, f"{label} evaluation".strip(), marker="o")
    _plot(rate, history, "train/learning_rate", color, label)
    for place, name in enumerate(scores):
      shade = color if label else COLORS[place % len(COLORS)]
      _plot(score, history, f"eval/{name}", shade, label or name, marker="o")
    if scores:
      _mark_best(score, history, f"eval/{scores[0]}")
  loss.set(title="loss")
  score.set(title=scores[0] if len(scores) == 1 else "evaluation")
  rate.set(title="learning rate", ylim=(0, None))
  rate.ticklabel_format(axis="y", scilimits=(-2, 3))
  for axes in (loss, score, rate):
    axes.set(xlabel="step")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[1]:
      for text in axes.legend(fontsize=8, framealpha=0.8).get_texts():
        text.set_parse_math(False)
  _use_log_scale(loss)
  save_figure(figure, path, letters)


def _shown_scores(runs: Mapping[str, History], metric: str) -> Sequence[str]:
  """The metric first; of runs with labels, only that one."""
  known = set().union(*(history.names() for history in runs.values()))
  ordered = dict.fromkeys((metric, *_SCORES))
  found = [name for name in ordered if f"eval/{name}" in known]
  return found if "" in runs else found[:1]


def _plot(
  axes: Axes, history: History, name: str, color: str, label: str, marker: str = "", **style
) -> None:
  steps, values = history.series(name)
  if len(steps):
    marker = marker if len(steps) <= _MARKED else ""
    options = {"linewidth": 1.5, "markersize": 3, **style}
    axes.plot(steps, values, color=color, label=label or None, marker=marker, **options)


def _mark_best(axes: Axes, history: History, name: str) -> None:
  steps, values = history.series(name)
  if len(values) and not np.isnan(values).all():
    best = np.nanargmax(values)
    axes.plot(steps[best], values[best], marker="*", markersize=11, color="black", linestyle="")


def _use_log_scale(axes: Axes) -> None:
  """Uses a logarithmic axis if the values cover more than a factor of ten."""
  values = np.concatenate([np.empty(0), *(line.get_ydata() for line in axes.get_lines())])
  values = values[np.isfinite(values)]
  if values.size and values.min() > 0 and values.max() > 10 * values.min():
    axes.set_yscale("log")

"""Plots of model cards, in the style of the package's own."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cards import tables
from cards.changes import Change
from cards.photographs import LONDON_CREDIT
from ferjax.tasks.plots import save_figure

_COLORS = ("#0072B2", "#D55E00")  # of Okabe and Ito, as in the package's plots
_COLUMNS = 4


def plot_changes(
  rows: Sequence[Mapping[str, Any]],
  kinds: Mapping[str, Change],
  shown: Mapping[str, str],
  path: str | os.PathLike[str],
) -> None:
  """Plots a panel per kind of change: metrics with their intervals over the levels.

  Args:
    rows: with `change`, `level`, and the metrics: numbers with `_low` and `_high`, or proportions.
    kinds: name -> change.
    shown: key of a metric -> its name in the legend.
    path: of the PNG file.
  """
  lines = math.ceil(len(kinds) / _COLUMNS)
  figure = Figure(figsize=(3.2 * min(_COLUMNS, len(kinds)), 3 * lines + 0.4), layout="constrained")
  panels = figure.subplots(lines, min(_COLUMNS, len(kinds)), sharey=True, squeeze=False).ravel()
  for axes in panels[len(kinds) :]:
    axes.set_axis_off()
  for axes, (name, change) in zip(panels, kinds.items(), strict=False):
    own = [row for row in rows if row["change"] == name]
    places = np.arange(len(own))
    for color, (key, label) in zip(_COLORS, shown.items(), strict=False):
      value, low, high = np.transpose([_with_interval(row, key) for row in own])
      axes.plot(places, value, color=color, marker="o", markersize=4, label=label)
      axes.fill_between(places, low, high, color=color, alpha=0.15, linewidth=0)
    axes.set_xticks(places, [tables.level(row["level"]) for row in own])
    axes.set(title=name, xlabel=change.unit, ylim=(0, 1.02))
    axes.axvline(change.levels.index(change.unchanged), color="#888888", linestyle=":", zorder=0)
    axes.grid(alpha=0.3)
  handles, labels = panels[0].get_legend_handles_labels()
  figure.legend(handles, labels, loc="outside lower center", ncols=len(shown), frameon=False)
  save_figure(figure, path)


def _with_interval(row: Mapping[str, Any], key: str) -> tuple[float, float, float]:
  metric = row[key]
  if isinstance(metric, Mapping):
    return metric["value"], metric["low"], metric["high"]
  return metric, row[f"{key}_low"], row[f"{key}_high"]


def plot_thresholds(
  tables_by_part: Mapping[str, Sequence[Mapping[str, float]]],
  default: float,
  path: str | os.PathLike[str],
) -> None:
  """Plots recall on faces against false boxes per photograph without faces.

  Args:
    tables_by_part: name of the photographs -> rows of `counting.threshold_table`.
    default: threshold of the weights, which is marked at the nearest row.
    path: of the PNG file.
  """
  figure = Figure(figsize=(7, 4.2), layout="constrained")
  axes = figure.add_subplot()
  for color, (name, rows) in zip(_COLORS, tables_by_part.items(), strict=False):
    false = np.array([row["false boxes per background"] for row in rows])
    recall = np.array([row["recall"] for row in rows])
    thresholds = np.array([row["threshold"] for row in rows])
    axes.plot(false, recall, color=color, marker=".", label=name)
    nearest = int(np.abs(thresholds - default).argmin())
    axes.plot(false[nearest], recall[nearest], color=color, marker="o", markersize=9)
    axes.annotate(
      f"{thresholds[nearest]:.2f}",
      (false[nearest], recall[nearest]),
      xytext=(8, -12),
      textcoords="offset points",
      color=color,
    )
  axes.axvline(0.02, color="#888888", linestyle=":", zorder=0)
  axes.set_xscale("symlog", linthresh=0.01)
  axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
  axes.set_xlim(left=-0.0005)
  axes.set(ylim=(0, 1.02), xlabel="false boxes per photograph without faces", ylabel="recall")
  axes.set_title("Thresholds 0.05 to 0.95; large: near the default")
  axes.grid(alpha=0.3)
  axes.legend(loc="lower right", frameon=False)
  save_figure(figure, path)


def plot_portraits(
  pictures: Sequence[tuple[np.ndarray, str]], path: str | os.PathLike[str]
) -> None:
  """Writes a sheet of portraits of the London set, with captions and credit, as JPEG.

  Args:
    pictures: at least one RGB image with its caption.
    path: of the file.
  """
  lines = math.ceil(len(pictures) / _COLUMNS)
  figure = Figure(figsize=(2.4 * _COLUMNS, 2.75 * lines + 0.3), layout="constrained")
  cells = figure.subplots(lines, _COLUMNS, squeeze=False).ravel()
  for axes in cells:
    axes.set_axis_off()
  for axes, (image, caption) in zip(cells, pictures, strict=False):
    axes.imshow(image)
    axes.set_title(caption, fontsize=9)
  figure.supxlabel(LONDON_CREDIT, fontsize=8)
  partial = f"{os.fspath(path)}.partial"
  FigureCanvasAgg(figure).print_jpg(partial, pil_kwargs={"quality": 85})
  os.replace(partial, path)

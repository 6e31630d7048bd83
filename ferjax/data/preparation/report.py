"""The report of a preparation: `report.json` and plots of the set."""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from ferjax.data.datasets.entries import Entry
from ferjax.data.preparation.plan import UNLABELLED_NAME, Plan, label_counts
from ferjax.data.prepared import PreparedDetection, PreparedFaces
from ferjax.expressions import UNLABELLED
from ferjax.fonts import apply_lettering, lettering_with_warning
from ferjax.output import escaped

DUPLICATES = "duplicates.txt"
_COLORS = {"train": "#0072B2", "val": "#E69F00", "test": "#009E73"}
_DARK = "#222222"
_PER_CLASS = 10  # samples
_THUMBNAIL = 96  # pixels
_CONTEXT = 0.15  # margin shown around a face, as a fraction of its box


def write_report(
  folder: str | os.PathLike,
  summary: Mapping[str, Any],
  plan: Plan,
  sizes: Mapping[str, Sequence[Sequence[int]]],
  sources: Mapping[str, PreparedFaces | PreparedDetection],
) -> None:
  """Writes report.json, duplicates.txt, classes.png, sizes.png and samples.png.

  duplicates.txt lists the records that were dropped as duplicates; it is written only if there are
  any.

  Args:
    folder: created if missing.
    summary: content of the JSON file besides the written counts and the sizes; its "duplicates"
      are split -> a sentence about each dropped record.
    plan: its entries are the written ones.
    sizes: split -> width and height of each image, pixels.
    sources: split -> the prepared records, which the samples are read from.
  """
  path = pathlib.Path(folder)
  path.mkdir(parents=True, exist_ok=True)
  quantiles = {split: _quantiles(np.array(pairs)) for split, pairs in sizes.items()}
  names = plan.options.class_names
  written = {
    split: {"total": len(members), **label_counts(members, names)}
    for split, members in plan.entries.items()
  }
  content = {**summary, "written": written, "image_sizes": quantiles}
  (path / "report.json").write_text(json.dumps(content, indent=2))
  dropped = [line for lines in summary["duplicates"].values() for line in lines]
  if dropped:
    text = "".join(f"{line}\n" for line in dropped)
    (path / DUPLICATES).write_text(escaped(text), "utf-8")
  plot_classes(plan, path / "classes.png")
  plot_sizes(plan, sizes, path / "sizes.png")
  sheet = sample_sheet(plan, sources)
  _save(sheet, path / "samples.png")


def _quantiles(sizes: np.ndarray) -> dict[str, list[float]]:
  points = {"min": 0.0, "median": 0.5, "max": 1.0}
  return {name: np.quantile(sizes, q, axis=0).tolist() for name, q in points.items()}


def plot_classes(plan: Plan, path: str | os.PathLike) -> None:
  """Plots the number of labels of each class by split, as prepared."""
  counts_of = {
    split: label_counts(members, plan.options.class_names)
    for split, members in plan.entries.items()
  }
  names = list(dict.fromkeys(name for counts in counts_of.values() for name in counts))
  figure = Figure(figsize=(1.6 + 1.2 * len(names), 4.5), layout="constrained")
  axes = figure.subplots()
  width = 0.8 / len(plan.entries)
  for place, (split, members) in enumerate(plan.entries.items()):
    counts = [counts_of[split].get(name, 0) for name in names]
    x = np.arange(len(names)) + (place + 0.5) * width - 0.4
    bars = axes.bar(x, counts, width, color=_COLORS[split], label=f"{split} ({len(members):,})")
    axes.bar_label(bars, [f"{count:,}" for count in counts], fontsize=8, padding=2)
  letters = lettering_with_warning(names)
  axes.set_xticks(range(len(names)), [letters.names[name] for name in names], parse_math=False)
  axes.yaxis.set_major_locator(MaxNLocator(integer=True))
  axes.set_ylabel("labels")
  axes.margins(y=0.12)
  axes.set_title(f"{plan.data_set.title}: classes by split")
  axes.grid(axis="y", alpha=0.3)
  axes.set_axisbelow(True)
  figure.legend(loc="outside lower center", ncols=len(plan.entries))
  apply_lettering(figure, letters, axes)
  _save(figure, path)


def plot_sizes(
  plan: Plan, sizes: Mapping[str, Sequence[Sequence[int]]], path: str | os.PathLike
) -> None:
  """Plots the shorter sides of images; for a detector, also box sizes relative to the image."""
  is_detection = plan.options.task == "detection"
  figure = Figure(figsize=(11 if is_detection else 6, 4.5), layout="constrained")
  panels = np.atleast_1d(figure.subplots(1, 2 if is_detection else 1))
  shown: list[tuple[str, dict[str, np.ndarray]]] = [
    ("shorter side of the image (pixels)", {s: np.array(p).min(1) for s, p in sizes.items()})
  ]
  if is_detection:
    sides = {split: _box_sides(members, sizes[split]) for split, members in plan.entries.items()}
    shown.append(("square root of the box's area over the image's", sides))
  for axes, (quantity, values) in zip(panels, shown, strict=True):
    everything = np.concatenate(list(values.values()))
    if len(everything) == 0:
      continue
    edges = np.linspace(0.95 * everything.min(), 1.05 * everything.max(), 31)
    for split, numbers in values.items():
      # Outlines, because overlapping areas would mix colours.
      label = f"{split} ({len(numbers):,})"
      axes.hist(numbers, edges, histtype="step", linewidth=1.8, color=_COLORS[split], label=label)
    axes.set(xlabel=quantity, ylabel="number", yscale="log", ylim=(0.7, None))
    axes.grid(alpha=0.3)
    axes.legend()
  figure.suptitle(f"{plan.data_set.title}: sizes")
  _save(figure, path)


def _box_sides(members: Sequence[Entry], sizes: Sequence[Sequence[int]]) -> Float[np.ndarray, "m"]:
  sides = []
  for entry, (width, height) in zip(members, sizes, strict=True):
    for x1, y1, x2, y2 in entry.boxes or ():
      area = (x2 - x1) * (y2 - y1)
      sides.append(np.sqrt(area if entry.relative else area / (width * height)))
  return np.array(sides, np.float64)


def sample_sheet(plan: Plan, sources: Mapping[str, PreparedFaces | PreparedDetection]) -> Figure:
  """A row of faces for each class, and one for unlabelled faces if there are any.

  They are read back from the prepared records of train.
  """
  split = next(iter(sources))
  source = sources[split]
  names = plan.options.class_names
  rows = _choose(source, len(names))
  if rows[UNLABELLED]:
    names = (*names, UNLABELLED_NAME)
  letters = lettering_with_warning(names)
  figure = Figure(figsize=(1.4 + _PER_CLASS, 0.6 + 1.05 * len(names)), layout="constrained")
  grid = figure.subplots(len(names), _PER_CLASS, squeeze=False)
  for axes in grid.ravel():
    axes.set_axis_off()
  for name, row, faces in zip(names, grid, rows.values(), strict=False):
    row[0].set_axis_on()
    row[0].set(xticks=[], yticks=[])
    row[0].set_ylabel(
      letters.names[name], rotation=0, ha="right", va="center", color=_DARK, parse_math=False
    )
    for spine in row[0].spines.values():
      spine.set_visible(False)
    for axes, (index, box) in zip(row, faces, strict=False):
      axes.imshow(_thumbnail(source, index, box))
  figure.suptitle(f"{plan.data_set.title}: samples of {split}")
  apply_lettering(figure, letters)
  return figure


def _choose(
  source: PreparedFaces | PreparedDetection, num_classes: int
) -> dict[int, list[tuple[int, int]]]:
  """Some (record, box) pairs by class, `UNLABELLED` last, chosen at random with a fixed seed."""
  rng = np.random.default_rng(0)
  chosen: dict[int, list[tuple[int, int]]] = {c: [] for c in (*range(num_classes), UNLABELLED)}
  if isinstance(source, PreparedFaces):
    labels = source.labels.argmax(axis=1)
    for class_id in range(num_classes):
      members = rng.permutation(np.flatnonzero(labels == class_id))[:_PER_CLASS]
      chosen[class_id] = [(int(index), 0) for index in members]
    return chosen
  candidates = rng.permutation(len(source))[: 50 * num_classes]
  for index in candidates.tolist():
    for place, label in enumerate(source.labels_of(index)):
      if len(chosen[label]) < _PER_CLASS:
        chosen[label].append((index, place))
  return chosen


def _thumbnail(
  source: PreparedFaces | PreparedDetection, index: int, place: int
) -> UInt8[np.ndarray, "h w 3"]:
  example = source[index]
  image = Image.fromarray(example["image"])
  if "boxes" in example:
    x1, y1, x2, y2 = example["boxes"][place].tolist()
    dx, dy = _CONTEXT * (x2 - x1), _CONTEXT * (y2 - y1)
    left, top = max(0, round(x1 - dx)), max(0, round(y1 - dy))
    right, bottom = min(image.width, round(x2 + dx)), min(image.height, round(y2 + dy))
    image = image.crop((left, top, right, bottom))
  image.thumbnail((_THUMBNAIL, _THUMBNAIL))
  return np.asarray(image)


def _save(figure: Figure, path: str | os.PathLike) -> None:
  FigureCanvasAgg(figure)
  figure.savefig(path, dpi=110)

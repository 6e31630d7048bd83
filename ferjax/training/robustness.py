"""Metrics on distorted images, beside those on the images as they are.

Every pass is an evaluation by the same compiled step; see `ferjax.data.distortions`.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ferjax.data.distortions import (
  DISTORTIONS,
  STRENGTHS,
  DistortedSource,
  SampledSource,
  distortions_of,
)
from ferjax.data.sources import Source
from ferjax.output import atomic_writer
from ferjax.progress import Progress
from ferjax.tasks.plots import save_figure
from ferjax.training.evaluation import Evaluation
from ferjax.training.groups import format_interval

FILES = ("robustness.json", "robustness.md", "robustness.png")
_SHOWN = 2  # metrics in tables and plots, of those that training prints
_COLUMNS = 4  # of the plot
_COLOURS = ("#0072B2", "#D55E00")


@dataclasses.dataclass(frozen=True)
class Robustness:
  """Metrics by distortion.

  Attributes:
    clean: of the images as they are.
    rows: one for each distortion and strength: `distortion`, `strength` (1 to 5), `level`, the
      `unit` of the level, and `metrics`.
    images: the number of records in each pass.
    shown: names of the metrics for tables and plots.
  """

  clean: dict[str, float]
  rows: list[dict[str, Any]]
  images: int
  shown: tuple[str, ...]

  def table(self) -> str:
    """A table in Markdown for each shown metric, with 95 % intervals if there are any."""
    return "\n\n".join(self._table(name) for name in self.shown)

  def as_json(self) -> dict[str, Any]:
    """The metrics, as types of JSON."""
    return {"clean": self.clean, "rows": self.rows, "images": self.images}

  def write(self, folder: pathlib.Path) -> None:
    """Writes `FILES`.

    Raises:
      OSError: a file cannot be written.
    """
    with atomic_writer(folder / FILES[0]) as file:
      file.write(json.dumps(self.as_json(), indent=2) + "\n")
    with atomic_writer(folder / FILES[1]) as file:
      file.write(self.table() + "\n")
    plot_robustness(self, folder / FILES[2])

  def of(self, distortion: str) -> list[dict[str, float]]:
    """The metrics of the strengths 1 to 5."""
    return [row["metrics"] for row in self.rows if row["distortion"] == distortion]

  @property
  def distortions(self) -> list[str]:
    return list(dict.fromkeys(row["distortion"] for row in self.rows))

  def _table(self, name: str) -> str:
    strengths = " | ".join(map(str, STRENGTHS))
    lines = [
      f"{name}, clean: {format_interval(self.clean, name)}; {self.images:,} records",
      "",
      f"| distortion | levels | {strengths} |",
      f"| --- | --- |{' --- |' * len(STRENGTHS)}",
    ]
    for kind in self.distortions:
      levels = f"{DISTORTIONS[kind].unit}: {', '.join(f'{x:g}' for x in DISTORTIONS[kind].levels)}"
      cells = " | ".join(format_interval(metrics, name) for metrics in self.of(kind))
      lines.append(f"| {kind} | {levels} | {cells} |")
    return "\n".join(lines)


def measure_robustness(
  evaluation: Evaluation, clean: Mapping[str, float], *, images: int = 0
) -> Robustness:
  """Evaluates a source under every distortion that makes sense for its task.

  Args:
    evaluation: of the images as they are.
    clean: its metrics.
    images: the number of records of a sample, the same in all passes; 0 for all records.

  Raises:
    ValueError: a negative number of images.
  """
  source = evaluation.source
  if images < 0:
    raise ValueError(f"a sample of {images} images; expected at least 1, or 0 for all records")
  is_sample = 0 < images < len(source)
  passes = [(kind, strength) for kind in distortions_of(source.task) for strength in STRENGTHS]
  progress = Progress(
    len(passes), "evaluation", task="robustness", show=jax.process_index() == 0, keep=False
  )

  def run(records: Source) -> dict[str, float]:
    return evaluation.run(SampledSource(records, images) if is_sample else records)[0]

  try:
    unchanged = run(source) if is_sample else dict(clean)
    # Without labels of expressions, a detector's first ones do not exist.
    names = tuple(name for name in evaluation.task.shown_metrics if name in unchanged)[:_SHOWN]
    rows = []
    for kind, strength in passes:
      metrics, known = run(DistortedSource(source, kind, strength)), DISTORTIONS[kind]
      level = {"level": known.levels[strength - 1], "unit": known.unit}
      rows.append({"distortion": kind, "strength": strength, **level, "metrics": metrics})
      progress.update()
      figures = ", ".join(f"{name} {metrics[name]:.4f}" for name in names)
      progress.line(f"{kind}, strength {strength}: {figures}")
  finally:
    progress.close()
  return Robustness(unchanged, rows, images if is_sample else len(source), names)


def plot_robustness(robustness: Robustness, path: pathlib.Path) -> None:
  """Plots each metric against the strength, one panel a distortion, with intervals as bands."""
  kinds = robustness.distortions
  rows = -(-len(kinds) // _COLUMNS)
  figure = Figure(figsize=(_COLUMNS * 2.9, rows * 2.6 + 0.4), layout="constrained")
  panels = figure.subplots(rows, _COLUMNS, squeeze=False, sharey=True).ravel()
  for axes in panels[len(kinds) :]:
    axes.set_axis_off()
  for axes, kind in zip(panels, kinds, strict=False):
    _panel(axes, kind, robustness)
  for axes in panels[::_COLUMNS]:
    axes.set_ylabel("metric")
  lines, labels = panels[0].get_legend_handles_labels()
  figure.legend(lines, labels, loc="outside lower center", ncols=len(labels), frameon=False)
  save_figure(figure, path)


def _panel(axes: Axes, kind: str, robustness: Robustness) -> None:
  steps = (0, *STRENGTHS)
  levels = [f"{level:g}" for level in DISTORTIONS[kind].levels]
  for name, colour in zip(robustness.shown, _COLOURS, strict=False):
    series = [robustness.clean, *robustness.of(kind)]
    axes.plot(
      steps, [x[name] for x in series], color=colour, marker="o", markersize=3.5, label=name
    )
    if f"{name}_low" in robustness.clean:
      low, high = ([x[f"{name}_{end}"] for x in series] for end in ("low", "high"))
      axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
  axes.set_title(kind, fontsize=10)
  axes.set_xticks(steps, ["clean", *levels], fontsize=8)
  axes.set_xlabel(DISTORTIONS[kind].unit, fontsize=8)
  axes.set_ylim(0, 1)
  axes.grid(alpha=0.3)

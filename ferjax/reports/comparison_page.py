"""A comparison of runs as text, and as an HTML page."""

import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence

from ferjax.output import one_line
from ferjax.reports.comparison import METRICS, Comparison
from ferjax.reports.page import note, section, table, write_page
from ferjax.reports.sections import drawn, interval
from ferjax.tasks.resampling import Estimate

_UNIT = {"classification": "records", "detection": "images"}


def comparison_lines(comparison: Comparison) -> Iterator[str]:
  """The comparison for a terminal."""
  first = comparison.runs[0]
  number, unit = len(first.predictions.records), _UNIT[comparison.task]
  yield f"{number:,} {unit} of the {_split(comparison)} split"
  names = METRICS[comparison.task]
  yield ""
  yield from _columns(
    ["run", "step", *names],
    [
      [run.name, f"{run.predictions.step:,}", *(_shown(run.estimates[x]) for x in names)]
      for run in comparison.runs
    ],
  )
  yield ""
  yield f"Difference from {one_line(first.name)} on the same {unit}, with its 95 % interval"
  yield from _columns(
    ["run", "metric", "difference", "interval", ""], list(_difference_rows(comparison))
  )
  if comparison.config:
    yield ""
    yield from _columns(
      ["config", *(run.name for run in comparison.runs)], _config_rows(comparison)
    )


def write_comparison(path: str | os.PathLike, comparison: Comparison) -> None:
  """Writes the comparison, with all curves in one plot, as one HTML file.

  Raises:
    OSError: it cannot be written.
  """
  first, names = comparison.runs[0], METRICS[comparison.task]
  number, unit = len(first.predictions.records), _UNIT[comparison.task]
  metrics = table(
    ("run", "step", *names),
    [
      (run.name, f"{run.predictions.step:,}", *(_shown(run.estimates[x]) for x in names))
      for run in comparison.runs
    ],
    numbers=len(names) + 1,
  )
  notes = [run.predictions.selection for run in comparison.runs if run.predictions.selection]
  content = [
    section(
      "Metrics",
      note(f"On {number:,} {unit} of the {_split(comparison)} split, with 95 % intervals."),
      metrics,
      *(note(text, warning=True) for text in dict.fromkeys(notes)),
    ),
    section(
      "Differences",
      note(
        f"From {first.name}, on the same {unit}: a paired bootstrap. If the interval contains 0, "
        "the difference may be chance."
      ),
      table(
        ("run", "metric", "difference", "95 % interval", ""), list(_difference_rows(comparison))
      ),
    ),
    *_curves(comparison),
  ]
  if comparison.config:
    header = ("field", *(run.name for run in comparison.runs))
    content.append(section("Config", table(header, _config_rows(comparison))))
  title = f"Comparison of {len(comparison.runs)} runs"
  write_page(path, title, ", ".join(run.name for run in comparison.runs), content)


def _curves(comparison: Comparison) -> list[ET.Element]:
  runs = {run.name: run.files.history for run in comparison.runs if run.files.history.lines}
  if not runs:
    return []
  # Imported here because Matplotlib takes a second, and only the page has a plot.
  from ferjax.reports.curves import plot_curves

  metric = METRICS[comparison.task][0]
  image = drawn(lambda path: plot_curves(runs, path, metric=metric), "curves of all runs")
  return [section("Curves", image)]


def _split(comparison: Comparison) -> str:
  split = comparison.runs[0].predictions.split
  return {"val": "validation"}.get(split, split)


def _shown(estimate: Estimate) -> str:
  if estimate.value != estimate.value:
    return "-"
  return f"{estimate.value:.4f} ({interval(estimate.low, estimate.high)})"


def _difference_rows(comparison: Comparison) -> Iterator[list[str]]:
  for run, values in zip(comparison.runs[1:], comparison.differences, strict=True):
    for name in METRICS[comparison.task]:
      found = values[name]
      if found.value != found.value:
        yield [run.name, name, "-", "", "not defined"]
        continue
      verdict = "no difference shown"
      if found.excludes_zero:
        verdict = "better" if found.value > 0 else "worse"
      yield [
        run.name,
        name,
        f"{found.value:+.4f}",
        f"{found.low:+.4f} to {found.high:+.4f}",
        verdict,
      ]


def _config_rows(comparison: Comparison) -> list[list[str]]:
  return [[name, *map(str, values)] for name, values in comparison.config.items()]


def _columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
  """Left-aligned columns, each as wide as its longest cell."""
  cells = [[one_line(x) for x in row] for row in (header, *rows)]
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  for row in cells:
    yield "  ".join(x.ljust(width) for x, width in zip(row, widths, strict=True)).rstrip()

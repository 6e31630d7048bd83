"""Sections of a report that do not depend on the task."""

import pathlib
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ferjax.reports.files import RunFiles
from ferjax.reports.page import element, note, plot, section, table

_STRENGTHS = (1, 2, 3, 4, 5)
_ROBUST = ("accuracy", "map50", "face_ap50")  # the first that was measured is shown


def drawn(draw: Callable[[pathlib.Path], object], description: str) -> ET.Element:
  """The plot that `draw` writes to a PNG file."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "plot.png"
    draw(path)
    return plot(path.read_bytes(), description)


def interval(low: float, high: float) -> str:
  """The bounds of an interval; "" if they are not defined."""
  return "" if low != low else f"{low:.3f} to {high:.3f}"


def metric_table(
  rows: Sequence[tuple[str, float, str]], counts: Mapping[str, int | float]
) -> ET.Element:
  """Metrics with their intervals, then counts."""
  cells = [(name, f"{value:.4f}", text) for name, value, text in rows]
  cells += [(name, f"{value:,.0f}", "") for name, value in counts.items()]
  return table(("metric", "value", "95 % interval"), cells, numbers=2)


def config_section(files: RunFiles) -> list[ET.Element]:
  """The fields of the config: those that differ from the defaults, and all."""
  if not files.config:
    return []
  header = ("field", "value")
  everything = [(name, _shown(value)) for name, value in files.config.items()]
  changed = [(name, _shown(value)) for name, value in files.changed().items()]
  return [
    section(
      "Config",
      note("Fields that differ from the defaults of ferjax/config.py."),
      table(header, changed),
      element(
        "details", element("summary", f"All {len(everything)} fields"), table(header, everything)
      ),
    )
  ]


def environment_section(files: RunFiles) -> list[ET.Element]:
  """Versions and devices."""
  if not files.environment:
    return []
  rows = [(name, str(value)) for name, value in files.environment.items()]
  return [section("Environment", table(("what", "version"), rows))]


def summary_section(files: RunFiles) -> list[ET.Element]:
  """Network, devices and data of the training."""
  summary = files.summary
  if not summary:
    return []
  data = summary["data"]
  names = list(dict.fromkeys(name for x in data.values() for name in x.get("classes", ())))
  rows = [
    (
      split,
      f"{counts['records']:,}",
      *(f"{counts['classes'][n]:,}" if "classes" in counts else "" for n in names),
    )
    for split, counts in data.items()
  ]
  return [
    section(
      "Training",
      note(
        f"{' '.join(map(str, summary['model'].values()))}, {summary['parameters']:,} parameters; "
        f"{summary['steps']:,} steps on {summary['devices']} x {summary['device_kind']}, "
        f"hosts: {summary['hosts']}."
      ),
      *(
        note(
          f"Epochs {phase['epochs'][0]} to {phase['epochs'][1]} in batches of "
          f"{phase['batch_size']}, frozen parts: {phase['frozen']}."
        )
        for phase in summary["phases"]
      ),
      table(("split", "records", *names), rows, numbers=len(names) + 1),
    )
  ]


def robustness_section(robustness: Mapping[str, Any]) -> list[ET.Element]:
  """The metrics of distorted images beside those of clean ones.

  Args:
    robustness: {"clean": metrics, "rows": [{"distortion": name, "strength": 1..5, "metrics": ...}]}
      as in robustness.json; empty if it was not measured.

  Raises:
    ValueError: it does not have this form.
  """
  if not robustness:
    return []
  try:
    clean = robustness["clean"]
    metric = next(name for name in _ROBUST if name in clean)
    values = {(x["distortion"], x["strength"]): x["metrics"][metric] for x in robustness["rows"]}
  except (KeyError, TypeError, StopIteration) as error:
    raise ValueError(
      f"robustness.json does not have the expected form ({error!r}); delete it, or write it again "
      "with ferjax evaluate --robustness"
    ) from error
  rows = [
    (
      name,
      f"{clean[metric]:.3f}",
      *(f"{values[name, x]:.3f}" if (name, x) in values else "" for x in _STRENGTHS),
    )
    for name in dict.fromkeys(name for name, _ in values)
  ]
  return [
    section(
      "Robustness",
      note(f"{metric} on distorted images, by the strength of the distortion."),
      table(("distortion", "clean", *map(str, _STRENGTHS)), rows, numbers=len(_STRENGTHS) + 1),
    )
  ]


def _shown(value: object) -> str:
  if isinstance(value, list):
    return ", ".join(map(str, value))
  return repr(value) if value == "" else str(value)

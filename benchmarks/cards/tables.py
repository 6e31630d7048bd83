"""Markdown tables of measured figures."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cards.changes import Change


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1) -> str:
  """A table whose columns after the first ones are right-aligned."""
  align = ["---" if i < text_columns else "---:" for i in range(len(header))]
  return "\n".join("| " + " | ".join(row) + " |" for row in (header, align, *rows))


def interval(value: float, low: float, high: float, digits: int = 3) -> str:
  """A value with its interval."""
  return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def metric(values: Mapping[str, float], name: str) -> str:
  """A metric with its interval, by the package's names."""
  return interval(values[name], values[f"{name}_low"], values[f"{name}_high"])


def proportion(values: Mapping[str, Any]) -> str:
  """Hits of a total, and their quotient with its interval."""
  shown = interval(values["value"], values["low"], values["high"])
  return f"{values['hits']} of {values['total']}: {shown}"


def photographs(measured: Mapping[str, Any]) -> str:
  """The table of a detector on photographs."""
  faces, backgrounds = measured["faces"], measured["backgrounds"]
  rows = [
    ("faces of left-out persons: AP@0.5", metric(faces, "ap50")),
    ("the same by pycocotools (101 recalls)", f"{faces['coco_ap50']:.3f}"),
    ("found at the threshold", proportion(faces["recall"])),
    ("false boxes beside them", f"{faces['false_boxes']} in {faces['images']} photographs"),
  ]
  for iou, group in measured["groups"].items():
    name = f"groups of people, {iou.replace('iou', 'IoU at least')}"
    rows += [
      (f"{name}: faces found", proportion(group["found"])),
      (f"{name}: false boxes", str(group["false_boxes"])),
    ]
  rows += [
    ("photographs without faces that have a box", proportion(backgrounds["images_with_false"])),
    ("false boxes a photograph", f"{backgrounds['false_per_image']:.3f}"),
  ]
  london = measured["london"]
  missed = f"{london['no_box']} without a box, {london['several_boxes']} with several"
  happier = "pairs whose smiling portrait scores higher for happiness"
  rows += [
    ("portraits with one box, on the face", f"{proportion(london['found_once'])}; {missed}"),
    (f"{happier}, by the detector", proportion(london["smiling_is_happier"])),
  ]
  if "london_two_stage" in measured:
    two_stage = proportion(measured["london_two_stage"]["smiling_is_happier"])
    rows.append((f"{happier}, by {measured['classifier']}", two_stage))
  return table(("measured", "value"), rows)


def thresholds(measured: Mapping[str, Any]) -> str:
  """The table of thresholds, with the lowest one that has few false boxes."""
  backgrounds = measured["backgrounds"]
  rows = [
    (
      f"{row['threshold']:.2f}",
      f"{row['recall']:.3f}",
      f"{row['false boxes beside faces']:.0f}",
      f"{row['backgrounds with false boxes']:.0f}",
      f"{row['false boxes per background']:.3f}",
    )
    for row in measured["rows"]
  ]
  header = (
    "threshold",
    f"recall on {measured['faces']} photographs",
    "false boxes beside the faces",
    f"of {backgrounds} backgrounds, with false boxes",
    "false boxes a background",
  )
  lowest = measured["lowest"]
  found = "none of these" if lowest is None else f"{lowest:.2f}"
  note = f"The lowest threshold with false boxes in at most 1 of 50 backgrounds: {found}."
  return f"{table(header, rows, text_columns=0)}\n\n{note}"


def level(value: float | None) -> str:
  return "as it is" if value is None else f"{value:g}"


def changed(
  rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, Change], shown: Mapping[str, str]
) -> str:
  """One table per kind of change: levels as columns, metrics as rows.

  Args:
    rows: with `change`, `level`, and the metrics; a metric may be a proportion.
    kinds: name -> change.
    shown: key of a metric -> its name in the table.
  """
  parts = []
  for name, change in kinds.items():
    own = [row for row in rows if row["change"] == name]
    header = (f"{name}: {change.unit}", *(level(row["level"]) for row in own))
    lines = [(text, *(f"{_value(row[key]):.3f}" for row in own)) for key, text in shown.items()]
    parts.append(table(header, lines))
  return "\n\n".join(parts)


def _value(metric: float | Mapping[str, float]) -> float:
  return metric["value"] if isinstance(metric, Mapping) else metric

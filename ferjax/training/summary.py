"""What a run is about to do: devices, parameters, data, steps."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ferjax.config import Config
from ferjax.data.sources import LabelledSource, Source, class_counts
from ferjax.training.phases import Phase

FILE = "summary.json"


def summarise(
  config: Config,
  phases: Sequence[Phase],
  params: Mapping[str, Any],
  sources: Mapping[str, Source],
  mesh: jax.sharding.Mesh,
) -> dict[str, Any]:
  """Plain values, for a file.

  Args:
    config: of the run.
    phases: of the run.
    params: the trained arrays, or their shapes, by top-level group.
    sources: name of a split -> its records.
    mesh: the devices.
  """
  groups = {name: sum(np.size(x) for x in jax.tree.leaves(part)) for name, part in params.items()}
  return {
    "model": {k: x for k, x in dataclasses.asdict(config.model).items() if x},
    "parameters": sum(groups.values()),
    "frozen_parameters": sum(groups.get(x, 0) for x in phases[0].frozen.split("+")),
    "devices": mesh.size,
    "device_kind": mesh.devices.flat[0].device_kind,
    "hosts": jax.process_count(),
    "data": {name: _counts(source) for name, source in sources.items()},
    "teachers": list(config.train.teachers),
    "teacher_weight": config.train.teacher_weight if config.train.teachers else 0.0,
    "steps": phases[-1].end_step,
    "phases": [
      {
        "epochs": [phase.first_epoch, phase.end_epoch],
        "batch_size": phase.batch_size,
        "steps_per_epoch": phase.steps_per_epoch,
        "frozen": phase.frozen,
      }
      for phase in phases
    ],
  }


def summary_lines(summary: Mapping[str, Any], *, first_step: int) -> list[str]:
  """The summary for people; `first_step` is the number of steps already done."""
  frozen, teachers = summary["frozen_parameters"], ", ".join(summary["teachers"])
  rows = [
    ("network", " ".join(map(str, summary["model"].values()))),
    (
      "parameters",
      f"{summary['parameters']:,}" + (f", of which {frozen:,} are frozen at first" * bool(frozen)),
    ),
    ("devices", f"{summary['devices']} x {summary['device_kind']}, hosts: {summary['hosts']}"),
    *((name, _described(counts)) for name, counts in summary["data"].items()),
    *([("teachers", f"{teachers}; {summary['teacher_weight']:g} of the targets")] * bool(teachers)),
    ("steps", f"{summary['steps']:,}" + (f", from step {first_step:,}" * bool(first_step))),
    *(
      (
        "epochs",
        f"{phase['epochs'][0]}..{phase['epochs'][1]}: batches of {phase['batch_size']}, "
        f"{phase['steps_per_epoch']:,} an epoch, frozen: {phase['frozen']}",
      )
      for phase in summary["phases"]
    ),
  ]
  width = max(len(name) for name, _ in rows)
  return ["Training", *(f"  {name:<{width}}  {text}" for name, text in rows)]


def _counts(source: Source) -> dict[str, Any]:
  """The number of records, and by class that of records or boxes, if known without decoding."""
  found: list[int] | None = getattr(source, "box_counts", None)
  unit = "boxes"
  if source.task == "classification" and isinstance(source, LabelledSource):
    found, unit = class_counts(source.labels), "records"
  if found is None:
    return {"records": len(source)}
  classes = dict(zip(source.class_names, found, strict=True))
  return {"records": len(source), "classes": classes, "counted": unit}


def _described(counts: Mapping[str, Any]) -> str:
  text = f"{counts['records']:,} records"
  if "classes" not in counts:
    return text
  of = " of boxes" if counts["counted"] == "boxes" else ""
  shown = ", ".join(f"{name} {count:,}" for name, count in counts["classes"].items())
  return f"{text}; classes{of}: {shown}"


def examples_left(phases: Sequence[Phase], step: int) -> int:
  """Training examples that a run still sees after `step` steps."""
  return sum(
    (phase.end_step - max(step, phase.first_step)) * phase.batch_size
    for phase in phases
    if phase.end_step > step
  )

"""Metrics by group of records, such as by the age of the faces, and how far the groups differ."""

import dataclasses
import itertools
import json
import math
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from ferjax.output import atomic_writer
from ferjax.tasks.base import Metrics, RateMetrics, Task
from ferjax.training.gaps import LEAST, Gap, largest_gap

FILES = ("groups.json", "groups.md")
_MOST_VALUES = 20  # of a column of names
_MOST_NUMBERS = 8  # different numbers that are groups of their own
_BINS = 4  # of a column with more numbers
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")


@dataclasses.dataclass(frozen=True)
class Grouping:
  """The groups of a column.

  Attributes:
    column: its name.
    names: of the groups, in order: of numbers by size, otherwise by name.
    members: the group of each record; -1 if its value is unknown.
  """

  column: str
  names: tuple[str, ...]
  members: np.ndarray


def group_records(column: str, values: Sequence[str]) -> Grouping:
  """The groups of a column: its values, or, of many numbers, four ranges with as many records.

  Args:
    column: its name, for messages.
    values: of all records; "" is unknown.

  Raises:
    ValueError: too many different values that are not numbers, or none at all.
  """
  known = sorted({value for value in values if value}, key=_order)
  if not known:
    raise ValueError(f"the column {column!r} (data.group_columns) is empty in all records")
  numbers = [_number(value) for value in known]
  if None not in numbers and len(known) > _MOST_NUMBERS:
    return _ranges(column, [_number(value) if value else None for value in values])
  if len(known) > _MOST_VALUES:
    raise ValueError(
      f"the column {column!r} (data.group_columns) has {len(known):,} different values, such as "
      f"{', '.join(map(repr, known[:3]))}; expected at most {_MOST_VALUES}, or numbers, of which "
      "ranges are made"
    )
  index = {value: i for i, value in enumerate(known)}
  return Grouping(column, tuple(known), np.array([index.get(value, -1) for value in values]))


def _ranges(column: str, numbers: Sequence[float | None]) -> Grouping:
  """Quartiles; the last range includes its upper end."""
  known = np.array([x for x in numbers if x is not None])
  edges = np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)))
  values = np.array([math.nan if x is None else x for x in numbers])
  members = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
  names = tuple(f"{low:.4g} to {high:.4g}" for low, high in itertools.pairwise(edges))
  return Grouping(column, names, np.where(np.isnan(values), -1, members))


def _number(value: str) -> float | None:
  try:
    number = float(value)
  except ValueError:
    return None
  return number if math.isfinite(number) else None


def _order(value: str) -> tuple[float, str]:
  """By the number at its start, such as of "40-69"; other names last, in alphabetical order."""
  number = _NUMBER.match(value)
  return (float(number[0]) if number else math.inf, value)


class GroupedMetrics:
  """The metrics of each group, accumulated with those of the whole.

  Args:
    task: defines the metrics.
    attributes: column -> value of each record; see `ferjax.data.sources.AttributedSource`.
    named: whether the user named the columns; if not, those that make no groups are left out.

  Raises:
    ValueError: a named column that makes no groups.
  """

  def __init__(
    self,
    task: Task[Any, Any, Any, Any],
    attributes: Mapping[str, Sequence[str]],
    *,
    named: bool = True,
  ):
    self._groupings: list[Grouping] = []
    for column, values in attributes.items():
      try:
        self._groupings.append(group_records(column, values))
      except ValueError as error:
        if named:
          raise
        logging.info("no groups: %s", error)
    self._metrics: list[list[Metrics[Any]]] = [
      [task.metrics() for _ in grouping.names] for grouping in self._groupings
    ]
    self._shown = task.shown_metrics

  def add(self, predictions: Any, truth: Mapping[str, np.ndarray]) -> None:
    """Adds a batch to the groups of its records; see `ferjax.tasks.base.Metrics`."""
    for grouping, metrics in zip(self._groupings, self._metrics, strict=True):
      members = np.where(truth["mask"], grouping.members[truth["index"]], -1)
      for group in np.unique(members[members >= 0]):
        metrics[group].add(predictions, {**truth, "mask": members == group})

  def report(self) -> "GroupReport | None":
    """The metrics of all groups, without those that a group does not define; None: no groups."""
    columns = [
      _column(grouping, metrics)
      for grouping, metrics in zip(self._groupings, self._metrics, strict=True)
    ]
    return GroupReport(columns, self._shown) if columns else None


@dataclasses.dataclass(frozen=True)
class Column:
  """The groups of a column: `(name, number of records, metrics)`, and the largest gaps.

  `unknown` is the number of records without a value.
  """

  name: str
  groups: list[tuple[str, int, dict[str, float]]]
  gaps: list[Gap]
  unknown: int


def _column(grouping: Grouping, metrics: Sequence[Metrics[Any]]) -> Column:
  counts = np.bincount(grouping.members[grouping.members >= 0], minlength=len(grouping.names))
  groups, outcomes = [], {}
  for name, count, of_group in zip(grouping.names, counts.tolist(), metrics, strict=True):
    try:
      values = of_group.compute()
    except ValueError:  # no record of the group could be evaluated
      values = {}
    groups.append((name, count, values))
    if values and isinstance(of_group, RateMetrics):
      outcomes[name] = of_group.outcomes()
  rates = dict.fromkeys(rate for of_group in outcomes.values() for rate in of_group)
  found = [
    largest_gap(rate, {name: of_group[rate] for name, of_group in outcomes.items()})
    for rate in rates
  ]
  gaps = [gap for gap in found if gap is not None]
  return Column(grouping.column, groups, gaps, int(np.sum(grouping.members < 0)))


@dataclasses.dataclass(frozen=True)
class GroupReport:
  """Metrics by group, as files and text; `shown` are the metrics of the tables."""

  columns: list[Column]
  shown: tuple[str, ...]

  def summary(self) -> str:
    """A line for each gap that is larger than chance alone gives."""
    lines = [
      f"  by {column.name}, {gap.describe()}"
      for column in self.columns
      for gap in column.gaps
      if gap.gap > gap.chance
    ]
    names = ", ".join(column.name for column in self.columns)
    return "\n".join([f"groups by {names}: tables in {FILES[1]}", *lines])

  def tables(self) -> str:
    """A table in Markdown for each column, with 95 % intervals if there are any."""
    return "\n\n".join(map(self._table, self.columns))

  def as_json(self) -> list[dict[str, Any]]:
    """The columns, as types of JSON."""
    return [
      {
        "column": column.name,
        "unknown": column.unknown,
        "groups": [
          {"group": name, "records": count, "metrics": metrics}
          for name, count, metrics in column.groups
        ],
        "gaps": [dataclasses.asdict(gap) for gap in column.gaps],
      }
      for column in self.columns
    ]

  def write(self, folder: pathlib.Path) -> None:
    """Writes `FILES`.

    Raises:
      OSError: a file cannot be written.
    """
    with atomic_writer(folder / FILES[0]) as file:
      file.write(json.dumps(self.as_json(), indent=2) + "\n")
    with atomic_writer(folder / FILES[1]) as file:
      file.write(self.tables() + "\n")

  def _table(self, column: Column) -> str:
    known = {name for _, _, metrics in column.groups for name in metrics}
    shown = [name for name in self.shown if name in known]
    lines = [
      f"| {column.name} | records | {' | '.join(shown)} |",
      f"| --- | ---: |{' --- |' * len(shown)}",
      *(
        f"| {name} | {count:,} | {' | '.join(_cells(metrics, shown))} |"
        for name, count, metrics in column.groups
      ),
      "",
      *(f"{gap.describe()}  " for gap in column.gaps),
    ]
    if not column.gaps:
      lines.append(f"No gap: fewer than two groups have {LEAST} or more records.")
    if column.unknown:
      lines.append(f"{column.unknown:,} records have no value.")
    return "\n".join(lines)


def _cells(metrics: Mapping[str, float], names: Iterable[str]) -> list[str]:
  return [format_interval(metrics, name) for name in names]


def format_interval(metrics: Mapping[str, float], name: str) -> str:
  """A value and its interval, "0.812 (0.79-0.83)"; "-" if it is not defined."""
  if name not in metrics:
    return "-"
  value = f"{metrics[name]:.3f}"
  if f"{name}_low" not in metrics:
    return value
  return f"{value} ({metrics[f'{name}_low']:.2f}-{metrics[f'{name}_high']:.2f})"

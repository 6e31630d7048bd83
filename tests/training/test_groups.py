import json

import numpy as np
import pytest

from ferjax.config import LossConfig
from ferjax.tasks.classification.task import ClassificationTask
from ferjax.training.groups import FILES, GroupedMetrics, group_records
from ferjax.typing import Classifications

NAMES = ("neutral", "anger")


def test_numbers_become_quartiles():
  ages = [str(x) for x in range(1, 41)] + [""]
  grouping = group_records("age", ages)
  assert grouping.names == ("1 to 10.75", "10.75 to 20.5", "20.5 to 30.25", "30.25 to 40")
  assert np.bincount(grouping.members[:-1]).tolist() == [10] * 4
  assert grouping.members[-1] == -1
  assert grouping.members[39] == 3


def test_few_values_are_groups_in_their_natural_order():
  ages = group_records("age", ["70+", "4-19", "", "20-39", "0-3", "4-19"])
  assert ages.names == ("0-3", "4-19", "20-39", "70+")
  assert ages.members.tolist() == [3, 1, -1, 2, 0, 1]
  assert group_records("light", ["dim", "bright"]).names == ("bright", "dim")
  assert group_records("level", ["10", "9", "10"]).names == ("9", "10")


@pytest.mark.parametrize(
  ("values", "message"),
  [
    (
      [f"p{i}" for i in range(21)],
      "'person' .* has 21 different values, such as 'p0', 'p1',",
    ),
    (["", ""], "'person' .* is empty in all records"),
  ],
)
def test_columns_that_make_no_groups_are_refused(values, message):
  with pytest.raises(ValueError, match=message):
    group_records("person", values)


def test_columns_that_nobody_named_may_make_no_groups():
  attributes = {"person": [f"p{i}" for i in range(21)], "light": ["dim", "bright", "dim"] * 7}
  task = ClassificationTask(NAMES, LossConfig())
  with pytest.raises(ValueError, match=r"'person' .* has 21 different values"):
    GroupedMetrics(task, attributes)
  report = GroupedMetrics(task, attributes, named=False).report()
  assert [column.name for column in report.columns] == ["light"]
  del attributes["light"]
  assert GroupedMetrics(task, attributes, named=False).report() is None


@pytest.fixture
def report():
  """Group a has 40 of 50 right in two batches, b 20 of 40; one record is masked, two unknown."""
  task = ClassificationTask(NAMES, LossConfig())
  groups = ["a"] * 50 + ["b"] * 41 + [""] * 2
  right = np.array([1] * 40 + [0] * 10 + [1] * 20 + [0] * 21 + [1, 1], bool)
  mask = np.arange(93) != 90
  truth = np.arange(93) % 2
  grouped = GroupedMetrics(task, {"kind": groups})
  for rows in (np.arange(45), np.arange(45, 93)):
    predicted = np.where(right, truth, 1 - truth)[rows]
    probabilities = np.eye(2, dtype=np.float32)[predicted]
    batch = {"label": np.eye(2, dtype=np.float32)[truth[rows]], "mask": mask[rows], "index": rows}
    grouped.add(Classifications(probabilities, predicted.astype(np.int32)), batch)
  return grouped.report()


def test_groups_have_metrics_of_their_own(report):
  (column,) = report.columns
  (a, count_a, metrics_a), (b, count_b, metrics_b) = column.groups
  assert (a, count_a, b, count_b, column.unknown) == ("a", 50, "b", 41, 2)
  assert (metrics_a["accuracy"], metrics_b["accuracy"]) == (0.8, 0.5)
  assert (metrics_a["num_images"], metrics_b["num_images"]) == (50, 40)
  gap = column.gaps[0]
  assert (gap.metric, gap.highest, gap.gap) == ("accuracy", "a", pytest.approx(0.3))
  assert 0 < gap.low < 0.3 < gap.high


def test_report_is_written_and_shown(report, tmp_path):
  report.write(tmp_path)
  (column,) = json.loads((tmp_path / FILES[0]).read_text())
  assert (column["column"], column["unknown"]) == ("kind", 2)
  assert [group["metrics"]["accuracy"] for group in column["groups"]] == [0.8, 0.5]
  assert column["gaps"][0]["gap"] == pytest.approx(0.3)
  table = (tmp_path / FILES[1]).read_text()
  low, high = (column["groups"][0]["metrics"][f"accuracy_{end}"] for end in ("low", "high"))
  assert f"| a | 50 | 0.800 ({low:.2f}-{high:.2f}) |" in table
  assert "2 records have no value." in table
  assert (
    "groups by kind: tables in groups.md\n  by kind, largest gap of accuracy" in report.summary()
  )

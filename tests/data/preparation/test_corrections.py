"""Corrected labels of a plan."""

import pytest

from ferjax.data.datasets.entries import LayoutError, RecordError
from ferjax.data.preparation.corrections import corrected
from ferjax.data.preparation.plan import Splitting
from ferjax.data.preparation.prepare import variant
from ferjax.expressions import SEVEN_EXPRESSIONS


@pytest.fixture
def plan(make_layout, plan_of):
  """A table of 60 faces; image i has class i % 7, and every second image a new person."""
  root = make_layout("csv")
  return plan_of("csv", root, splitting=Splitting(0.2))


def _table(folder, *rows):
  path = folder / "corrections.csv"
  path.write_text("\n".join(["record,given,label,note", *rows]) + "\n")
  return path


def _labels(plan):
  return {x.key: (split, x.label) for split, members in plan.entries.items() for x in members}


def test_labels_change_and_splits_stay(plan, tmp_path):
  neutral, fear = SEVEN_EXPRESSIONS.index("neutral"), SEVEN_EXPRESSIONS.index("fear")
  given = {i: SEVEN_EXPRESSIONS[i % 7] for i in (0, 1, 2, 50)}
  table = _table(
    tmp_path,
    f"images/0.png,{given[0]},fear,seen",
    f"images/1.png,{given[1]},Unknown,",
    f"images/2.png,{given[2]},{given[2]},left as it is",
    f"images/50.png,{given[50]},Neutral,",
  )
  before, new = _labels(plan), corrected(plan, table)
  after = _labels(new)
  assert set(before) - set(after) == {"images/1.png"}
  assert after["images/0.png"] == (before["images/0.png"][0], fear)
  assert after["images/50.png"] == ("test", neutral)
  others = set(after) - {"images/0.png", "images/50.png"}
  assert {key: after[key] for key in others} == {key: before[key] for key in others}
  assert new.corrections == "corrections.csv: 2 labels corrected, 1 records left out"
  assert new.describe()["corrections"] == new.corrections
  assert "corrections" not in plan.describe()
  # Another folder than that of the uncorrected set.
  assert (variant(plan), variant(new)) == ("classification_7", "classification_7_corrected")
  assert variant(new, "all") == "classification_7_corrected_drop_all"


@pytest.mark.parametrize(
  ("rows", "error", "message"),
  [
    ([], LayoutError, "no rows; expected a row for each record"),
    (["images/0.png,neutral,"], RecordError, "csv:2: the column label is empty; expected a class"),
    (["images/0.png,neutral,joyful"], RecordError, "csv:2: class 'joyful' is not one of neutral"),
    (["images/0.png,fear,anger"], RecordError, "column given is fear, but the label .* neutral"),
    (["images/99.png,fear,anger"], RecordError, "csv:2: the set has no record 'images/99.png'"),
    (["images/0.png,neutral,fear"] * 2, RecordError, "csv:3: the record 'images/0.png' is in .*:2"),
  ],
)
def test_corrections_of_another_set_are_refused(plan, tmp_path, rows, error, message):
  with pytest.raises(error, match=message):
    corrected(plan, _table(tmp_path, *rows))


def test_a_split_must_keep_records(plan, tmp_path):
  rows = [f"images/{i}.png,{SEVEN_EXPRESSIONS[i % 7]},unknown" for i in range(46, 60)]
  with pytest.raises(LayoutError, match="all records of the split 'test' have the label unknown"):
    corrected(plan, _table(tmp_path, *rows))


def test_boxes_are_not_corrected(make_layout, plan_of, tmp_path):
  plan = plan_of("voc", make_layout("voc"))
  with pytest.raises(ValueError, match=r"corrects the labels of faces, but .* for detection;"):
    corrected(plan, tmp_path / "corrections.csv")

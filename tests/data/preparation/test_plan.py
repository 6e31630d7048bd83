"""Messages of a plan with too few records; its entries are tested with the layouts."""

import pytest

from ferjax.config import DataConfig
from ferjax.data.datasets.base import LayoutError
from ferjax.data.loading import load_source
from ferjax.data.preparation.plan import Splitting


def test_message_lists_the_errors_if_no_validation_can_be_taken(make_layout, plan_of):
  """One of 46 train records of a table can be read: the message lists the other 45."""
  root = make_layout("csv")
  for i in range(1, 46):
    (root / f"images/{i}.png").unlink()
  with pytest.raises(
    LayoutError, match=r"no validation split of 0.1 can be taken from 1"
  ) as caught:
    plan_of("csv", root)
  _, count, *named, more = str(caught.value).splitlines()
  assert count == "45 records could not be read:"
  assert [line.split(": ")[0] for line in named] == [
    f"  labels.csv:{i + 2} (images/{i}.png)" for i in range(1, 11)
  ]
  assert "image file not found" in named[0]
  assert more == "  ..."


def test_message_counts_the_records_left_out_by_rules(make_layout, plan_of):
  root = make_layout("affectnet_csv")
  lists = root / "Manually_Annotated_file_lists"
  (lists / "validation.csv").write_text((lists / "validation.csv").read_text().splitlines()[0])
  header, *rows = (lists / "training.csv").read_text().splitlines()
  (lists / "training.csv").write_text("\n".join([header, rows[0], rows[8]]) + "\n")  # 0 and "none"
  with pytest.raises(LayoutError) as caught:
    plan_of("affectnet_csv", root)
  assert str(caught.value).splitlines()[1:] == [
    "left out by the set's rules: 1 (expression 'none')"
  ]


def test_no_records_at_all(make_layout, plan_of):
  root = make_layout("csv")
  for path in (root / "images").iterdir():
    path.unlink()
  message = r"no valid records of the split 'train': all 46 records .* the first: labels.csv:2 "
  with pytest.raises(LayoutError, match=message):
    plan_of("csv", root)


def test_val_as_test_names_the_errors(make_layout, plan_of):
  root = make_layout("csv")
  (root / "images/1.png").unlink()
  message = r"set has train, test\n1 records could not be read:\n  labels.csv:3 \(images/1.png\): "
  with pytest.raises(LayoutError, match=message):
    plan_of("csv", root, splitting=Splitting(val_as_test=True))


def test_training_names_the_errors_too(make_layout):
  root = make_layout("csv")
  for i in range(1, 46):
    (root / f"images/{i}.png").unlink()
  config = DataConfig(source="csv", dir=str(root), csv="labels.csv", on_bad_record="skip")
  message = (
    r"no validation split .*\n45 records could not be read:\n  labels.csv:3 \(images/1.png\)"
  )
  with pytest.raises(LayoutError, match=message):
    load_source(config, "train")

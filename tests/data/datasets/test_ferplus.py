"""FERPlus from its tables, by the command, to the batches of FERMam's configuration."""

import importlib.util
import pathlib

import numpy as np
import pytest

from ferjax.commands.main import main
from ferjax.data.loading import load_source
from ferjax.data.pipeline import eval_dataset, train_dataset
from ferjax.expressions import EXPRESSIONS, FERPLUS_COLUMNS

CONFIG = pathlib.Path(__file__).parents[3] / "configs" / "fermam.py"
UNDECIDED = {2: "0,0,7,3", 22: "0,0,0,0,0,0,7,3"}  # rows of train and of validation


@pytest.fixture
def config(make_layout, tmp_path):
  """That of FERMam for FERPlus, with small pictures, on what the command wrote."""
  root = make_layout("ferplus")
  table = root / "fer2013new.csv"
  lines = table.read_text().splitlines()
  for row, votes in UNDECIDED.items():
    assert f",{votes}" in lines[1 + row]
    lines[1 + row] = lines[1 + row].replace("7,3", "5,5")
  table.write_text("\n".join(lines) + "\n")
  arguments = ["--source", str(root), "--out", str(tmp_path / "out"), "--rule", "probability"]
  assert main(["data", "prepare", "ferplus", *arguments]) == 0
  spec = importlib.util.spec_from_file_location("config_fermam", CONFIG)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config("ferplus")
  config.data.dir, config.data.image_size, config.data.num_workers = str(tmp_path / "out"), 32, 0
  return config


def votes_of(row):
  """As the miniature has them: 7 of 10 for one expression and 3 for the next, or 5 for each."""
  first, second = (FERPLUS_COLUMNS[(row + i) % 8] for i in (0, 1))
  share = 0.5 if row in UNDECIDED else 0.7
  return [share * (name == first) + (1 - share) * (name == second) for name in EXPRESSIONS]


def rows_of(source):
  """The row of the tables that each record comes from."""
  return [int(source.origin(i).split("(fer")[1].split(".")[0]) for i in range(len(source))]


def test_training_sees_the_votes_and_evaluation_the_majority(config):
  train = load_source(config.data, "train")
  batch = next(iter(train_dataset(train, config.data, batch_size=20, seed=0, epochs=1)))
  assert batch["image"].shape == (20, 32, 32, 3)
  rows = rows_of(train)
  assert rows == [row for row in range(21) if row != 3]
  expected = np.array([votes_of(rows[i]) for i in batch["index"]])
  np.testing.assert_allclose(batch["label"], expected, atol=1e-6)
  assert sorted(batch["index"]) == list(range(20))

  for split, kept in (("val", [21, *range(23, 28)]), ("test", [*range(28, 35)])):
    source = load_source(config.data, split)
    assert rows_of(source) == kept
    (batch,) = eval_dataset(source, config.data, batch_size=8)
    expected = [np.argmax(votes_of(row)) for row in kept]
    np.testing.assert_array_equal(batch["label"][: len(kept)], np.eye(8)[expected])
    assert batch["mask"].sum() == len(kept)


def test_the_rule_is_that_of_training(make_layout, plan_of):
  root = make_layout("ferplus")
  for rule, train in (("majority", 25045), ("probability", 27947)):
    counts = plan_of("ferplus", root, rule=rule).counts
    official = {count.split: count.official for count in counts if count.name == "total"}
    assert official == {"train": train, "val": 3191, "test": 3137}

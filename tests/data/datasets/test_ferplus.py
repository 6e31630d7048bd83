"""FERPlus from both releases, prepared by the command, to batches of FERMam's config."""

import importlib.util
import pathlib
import shutil

import numpy as np
import pytest

from ferjax.commands.main import main
from ferjax.data.datasets.base import LayoutError
from ferjax.data.examples import load
from ferjax.data.image import decode
from ferjax.data.loading import load_source
from ferjax.data.pipeline import eval_dataset, train_dataset
from ferjax.expressions import EXPRESSIONS, FERPLUS_COLUMNS

CONFIG = pathlib.Path(__file__).parents[3] / "configs" / "fermam.py"
UNDECIDED = {2: "0,0,7,3", 22: "0,0,0,0,0,0,7,3"}  # rows of train and of validation


@pytest.fixture
def config(make_layout, tmp_path):
  """FERMam's config for FERPlus, with small images, on the output of the command."""
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
  config = module.get_config("ferplus_published")
  config.data.dir, config.data.image_size, config.data.num_workers = str(tmp_path / "out"), 32, 0
  return config


def votes_of(row):
  """The miniature's votes: 7 of 10 for one expression and 3 for the next, or 5 for each."""
  first, second = (FERPLUS_COLUMNS[(row + i) % 8] for i in (0, 1))
  share = 0.5 if row in UNDECIDED else 0.7
  return [share * (name == first) + (1 - share) * (name == second) for name in EXPRESSIONS]


def rows_of(source):
  """The table row of each record."""
  return [int(source.origin(i).split("(fer")[1].split(".")[0]) for i in range(len(source))]


def test_training_uses_the_votes_and_evaluation_the_majority(config):
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


@pytest.mark.parametrize(
  ("layout", "release", "train", "others"),
  [
    ("ferplus", "table", {"majority": 25060, "probability": 27956}, {"val": 3199, "test": 3153}),
    (
      *("ferplus_folders", "folders"),
      *({"majority": 25045, "probability": 27947}, {"val": 3191, "test": 3137}),
    ),
  ],
)
def test_each_release_has_its_counts(make_layout, plan_of, layout, release, train, others):
  """The rule applies to training; validation and test use the majority."""
  root = make_layout(layout)
  for rule, number in train.items():
    plan = plan_of(layout, root, rule=rule)
    official = {count.split: count.official for count in plan.counts if count.name == "total"}
    assert official == {"train": number, **others}
    assert plan.release.name == release


@pytest.mark.parametrize("rule", ["majority", "probability"])
def test_the_releases_agree(make_layout, plan_of, rule):
  table = plan_of("ferplus", make_layout("ferplus"), rule=rule)
  root = make_layout("ferplus_folders")
  for folder in (root, root / "data"):
    folders = plan_of("ferplus_folders", folder, rule=rule)
    assert folders.problems == []
    for split, members in table.entries.items():
      assert len(members) == len(folders.entries[split])
      for a, b in zip(members, folders.entries[split], strict=True):
        assert (a.label, a.votes, a.crop) == (b.label, b.votes, b.crop)
        np.testing.assert_array_equal(decode(a.image.encode()), decode(b.image))
  origin = folders.entries["val"][1].origin
  assert origin == "FER2013Valid/label.csv:2 (fer0000022.png)"


def test_the_tables_are_read_if_both_releases_exist(make_layout, plan_of):
  root = make_layout("ferplus")
  shutil.copytree(make_layout("ferplus_folders") / "data", root / "data")
  assert plan_of("ferplus", root).release.name == "table"
  assert plan_of("ferplus", root / "data").release.name == "folders"


def test_a_name_may_occur_in_two_rows(make_layout, plan_of):
  """Like three names of Training; the authors' current program writes them to label.csv."""
  root = make_layout("ferplus")
  votes, pixels = root / "fer2013new.csv", root / "fer2013.csv"
  _repeat_line(votes, 5, 9)
  _repeat_line(pixels, 5, 9)
  plan = plan_of("ferplus", root)
  assert plan.problems == []
  first, second = (plan.entries["train"][i] for i in (3, 7))
  assert first.origin == "fer2013new.csv:6 (fer0000004.png)"
  assert second.origin == "fer2013new.csv:10 (fer0000004.png)"
  assert (first.image, first.label) == (second.image, second.label)
  assert first.key != second.key

  root = make_layout("ferplus_folders")
  labels = root / "data/FER2013Train/label.csv"
  labels.write_text(labels.read_text().replace('"(0, 0, 48, 48)",', ""))
  _repeat_line(labels, 3, 7)
  plan = plan_of("ferplus_folders", root)
  assert plan.problems == []
  first, second = (plan.entries["train"][i] for i in (3, 7))
  assert second.origin == "data/FER2013Train/label.csv:8 (fer0000004.png)"
  assert (first.image, first.label, first.votes) == (second.image, second.label, second.votes)


def test_images_are_cropped_to_their_box(make_layout, plan_of):
  root = make_layout("ferplus_folders")
  labels = root / "data/FER2013Train/label.csv"
  labels.write_text(labels.read_text().replace("(0, 0, 48, 48)", "(4, 8, 40, 48)", 1))
  first, second, *_ = plan_of("ferplus_folders", root).entries["train"]
  assert (first.crop, second.crop) == ((4, 8, 40, 48), None)
  assert load(first, overhang=2.0, margin=0.0).image.shape == (40, 36, 3)


def test_a_clone_without_images(make_layout, plan_of):
  """The repository has labels without images: the message states which program writes them."""
  root = make_layout("ferplus_folders")
  for path in (root / "data").rglob("*.png"):
    path.unlink()
  expected = r"found    .*Test/label.csv  \(name and.*\n  missing  .*Test/\*.png  \(images; gener"
  with pytest.raises(LayoutError, match=expected):
    plan_of("ferplus_folders", root)


def _repeat_line(path, source, target):
  """Replaces line `target` with a copy of line `source`, both 0-based."""
  lines = path.read_text().splitlines()
  lines[target] = lines[source]
  path.write_text("\n".join(lines) + "\n")

"""Every released layout is read to canonical labels."""

import collections

import numpy as np
import pytest

from ferjax.data.datasets.ferplus import majority, probability
from ferjax.data.preparation.plan import Splitting
from ferjax.expressions import EXPRESSIONS, FERPLUS_COLUMNS, SEVEN_EXPRESSIONS

# Layout -> number of records of each split, counted in the miniatures of conftest.py; if a set has
# no validation split, the rounded tenth of each class is taken from train.
SIZES = {
  "affectnet_csv": {"train": 24, "val": 8},
  "affectnet_npy": {"train": 24, "val": 8},
  "fer2013_csv": {"train": 21, "val": 7, "test": 7},
  "fer2013_folders": {"train": 63, "val": 7, "test": 70},
  "ferplus": {"train": 20, "val": 7, "test": 7},
  "ferplus_folders": {"train": 20, "val": 7, "test": 7},
  "sfew": {"train": 21, "val": 7},
  "voc": {"train": 20, "val": 7},
  "coco_json": {"train": 20, "val": 7},
  "yolo_txt": {"train": 20, "val": 7},
  "annotation_list": {"train": 20, "val": 7},
  "image_folder": {"train": 14, "val": 14},
}


def _names(plan, split):
  return collections.Counter(
    plan.options.class_names[c] for entry in plan.entries[split] for c in entry.classes
  )


@pytest.mark.parametrize("layout", sorted(SIZES))
def test_all_records_are_found(make_layout, plan_of, layout):
  plan = plan_of(layout, make_layout(layout))
  assert {split: len(members) for split, members in plan.entries.items()} == SIZES[layout]
  assert plan.problems == []


@pytest.mark.parametrize(
  ("layout", "origin", "expected"),
  [
    # Code 1 of RAF-DB, 3 of AffectNet, 3 of FER2013 and 3 of ExpW, by the table of the releases.
    ("raf_db", "(test_0001.jpg)", "surprise"),
    ("affectnet_csv", "training.csv:5 (0/training3.jpg)", "surprise"),
    ("affectnet_npy", "3_exp.npy (3.jpg)", "surprise"),
    ("fer2013_csv", "fer2013.csv:5", "happiness"),
    ("fer2013_folders", "train/happy/0030.png", "happiness"),
    ("sfew", "Val/Sad/Other_001535123_00000012.png", "sadness"),
    ("expw", "label.lst:4 (photo_1.jpg)", "happiness"),
  ],
)
def test_codes_become_canonical_names(make_layout, plan_of, layout, origin, expected):
  plan = plan_of(layout, make_layout(layout))
  entries = [e for members in plan.entries.values() for e in members if origin in e.origin]
  assert plan.options.class_names[entries[0].classes[0]] == expected


@pytest.mark.parametrize("layout", ["voc", "coco_json", "yolo_txt", "annotation_list"])
def test_generic_layouts_agree(make_layout, plan_of, layout):
  plan = plan_of(layout, make_layout(layout))
  entry = next(e for e in plan.entries["val"] if "val1.jpg" in str(e.image))
  scale = np.array([90, 60, 90, 60]) if entry.relative else 1
  np.testing.assert_allclose(
    np.array(entry.boxes) * scale, [[10, 5, 50, 45], [55, 8, 85, 48]], atol=1e-9
  )
  assert entry.classes == (1, 4)
  empty = next(e for e in plan.entries["train"] if "train9.jpg" in str(e.image))
  assert empty.boxes == ()


def test_affectnet_without_contempt(make_layout, plan_of):
  plan = plan_of("affectnet_csv", make_layout("affectnet_csv"), class_names=SEVEN_EXPRESSIONS)
  assert {split: len(members) for split, members in plan.entries.items()} == {"train": 21, "val": 7}
  assert plan.dropped == {
    "expression 'contempt'": 4,
    "expression 'none'": 4,
    "expression 'uncertain'": 4,
    "expression 'no face'": 4,
  }
  assert plan.entries["train"][0].crop == (10, 5, 40, 45)


def test_counts_are_listed_with_the_official_ones(make_layout, plan_of):
  root = make_layout("affectnet_csv")
  official = {(c.split, c.name): c.official for c in plan_of("affectnet_csv", root).counts}
  assert official["train", "total"] == 287651
  assert official["train", "contempt"] == 3750
  seven = plan_of("affectnet_csv", root, class_names=SEVEN_EXPRESSIONS).counts
  assert {(c.split, c.name): c.official for c in seven}["train", "total"] == 283901
  raf = {(c.split, c.name): c for c in plan_of("raf_db", make_layout("raf_db")).counts}
  assert raf["train", "happiness"].official == 4772
  assert raf["test", "total"].official == 3068
  assert raf["train", "total"].found == 40  # before validation is taken


def test_raf_db_for_both_tasks(make_layout, plan_of):
  root = make_layout("raf_db")
  faces, photographs = plan_of("raf_db", root), plan_of("raf_db", root, task="detection")
  assert faces.entries["test"][0].image.endswith("aligned/test_0001_aligned.jpg")
  assert photographs.entries["test"][0].boxes == ((10.5, 12, 70.25, 66),)
  # 40 images: 6 of the codes 1..5 and 5 of 6 and 7; rounded to even, 0.6 -> 1 and 0.5 -> 0.
  for plan in (faces, photographs):
    assert {s: len(m) for s, m in plan.entries.items()} == {"train": 35, "val": 5, "test": 7}
    assert "5 of 40 train records are the validation split" in plan.validation
  assert {e.key for e in faces.entries["val"]} == {e.key for e in photographs.entries["val"]}


def test_expw_keeps_photographs_together(make_layout, plan_of):
  root = make_layout("expw")
  plan = plan_of("expw", root, splitting=Splitting(fraction=0.2))
  train = {e.group for e in plan.entries["train"]}
  assert not train & {e.group for e in plan.entries["val"]}
  assert sum(map(len, plan.entries.values())) == 40
  assert "grouped by subject or clip" in plan.validation
  photographs = plan_of("expw", root, task="detection", splitting=Splitting(fraction=0.0))
  assert len(photographs.entries["train"]) == 20
  assert photographs.entries["train"][0].boxes == ((5, 10, 39, 60), (45, 10, 79, 60))
  assert photographs.entries["train"][0].classes == (6, 5)


def test_csv_groups_by_person(make_layout, plan_of):
  plan = plan_of("csv", make_layout("csv"), splitting=Splitting(fraction=0.25))
  assert not {e.group for e in plan.entries["train"]} & {e.group for e in plan.entries["val"]}
  assert len(plan.entries["test"]) == 14


def test_released_validation_can_be_the_test_split(make_layout, plan_of):
  root = make_layout("fer2013_csv")
  with pytest.raises(ValueError, match="without a test split; this set has train, val, test"):
    plan_of("fer2013_csv", root, splitting=Splitting(val_as_test=True))
  plan = plan_of(
    "affectnet_npy", make_layout("affectnet_npy"), splitting=Splitting(0.34, val_as_test=True)
  )
  assert {s: len(m) for s, m in plan.entries.items()} == {"train": 16, "val": 8, "test": 8}


def test_sfew_clips(make_layout, plan_of):
  entry = plan_of("sfew", make_layout("sfew")).entries["train"][0]
  assert entry.group == "Film0000_001530123"


@pytest.mark.parametrize(
  ("votes", "by_majority", "by_probability"),
  [
    # neutral, happiness, surprise, sadness, anger, disgust, fear, contempt, unknown, NF
    ((6, 4, 0, 0, 0, 0, 0, 0, 0, 0), {"neutral": 1}, {"neutral": 0.6, "happiness": 0.4}),
    # Single votes do not count: 5 of 5.
    ((5, 1, 1, 1, 1, 1, 0, 0, 0, 0), {"neutral": 1}, {"neutral": 1}),
    # Exactly half is not a majority; both are needed for three quarters.
    ((0, 5, 5, 0, 0, 0, 0, 0, 0, 0), None, {"happiness": 0.5, "surprise": 0.5}),
    # 8 of 10 exceed three quarters: the rest is not taken.
    ((0, 0, 0, 0, 8, 2, 0, 0, 0, 0), {"anger": 1}, {"anger": 1}),
    # Unknown comes first.
    ((2, 0, 0, 0, 0, 0, 0, 0, 8, 0), None, None),
    # Unknown comes second: it ends the list and is dropped; 6 of 10 are more than half.
    ((0, 0, 0, 6, 0, 0, 0, 0, 4, 0), {"sadness": 1}, {"sadness": 1}),
    # Four equals are too many.
    ((2, 2, 2, 2, 0, 0, 0, 0, 0, 0), None, None),
    # No two annotators agree.
    ((1, 1, 1, 1, 1, 1, 1, 1, 1, 1), None, None),
    # Three of 3, 3, 2, 2: 8 of 10.
    ((3, 3, 0, 0, 0, 0, 4, 0, 0, 0), None, {"neutral": 0.3, "happiness": 0.3, "fear": 0.4}),
  ],
)
def test_ferplus_rules(votes, by_majority, by_probability):
  for rule, expected in ((majority, by_majority), (probability, by_probability)):
    found = rule(votes)
    if expected is None:
      assert found is None
    else:
      wanted = [expected.get(name, 0) for name in FERPLUS_COLUMNS[:8]]
      np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_ferplus_keeps_votes_and_drops_removed_faces(make_layout, plan_of):
  plan = plan_of("ferplus", make_layout("ferplus"), rule="probability")
  entry = plan.entries["train"][1]  # 7 votes for happiness, 3 for surprise
  assert entry.votes == (0, 7, 3, 0, 0, 0, 0, 0, 0, 0)
  np.testing.assert_allclose(entry.label, [0, 0.7, 0, 0.3, 0, 0, 0, 0])
  assert plan.options.class_names == EXPRESSIONS
  assert plan.dropped == {"removed face (empty name)": 1}

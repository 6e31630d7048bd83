"""`prepare` without duplicates: the records, the report, and resuming."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from ferjax.data.datasets.entries import RecordError
from ferjax.data.image import decode
from ferjax.data.preparation import builders
from ferjax.data.preparation.checks import check_plan
from ferjax.data.preparation.plan import Splitting
from ferjax.data.preparation.prepare import prepare
from ferjax.data.prepared import open_prepared

# The miniature table has 46 records of train, then 14 of test; the class is the number modulo 7.
# Copies have the pixels of the first: the same class in train, another in train, and in test.
COPIES = {0: (7, 51), 3: (5, 8, 10), 20: (55,)}
BY_MODE = {
  "none": [],
  "across-splits": [0, 7, 20],
  # 20 has the same class in test; no record with the image of 3 is kept.
  "conflicting": [0, 3, 5, 7, 8, 10],
  "all": [0, 3, 5, 7, 8, 10, 20],
}


@pytest.fixture
def doubled(make_layout):
  root = make_layout("csv")
  for source, targets in COPIES.items():
    for target in targets:
      shutil.copy(root / f"images/{source}.png", root / f"images/{target}.png")
  return root


@pytest.fixture
def plan(doubled, plan_of):
  """Without a validation split, so that the records are known."""
  return plan_of("csv", doubled, splitting=Splitting(fraction=0.0))


def origin(number):
  return f"labels.csv:{number + 2} (images/{number}.png)"


def origins(out):
  """The origins of all written records, by split."""
  found = {}
  for split in ("train", "test"):
    source = open_prepared(out, split)
    found[split] = [source.origin(i) for i in range(len(source))]
  return found


@pytest.mark.usefixtures("small_shards")
def test_each_mode_has_its_own_folder(plan, doubled, tmp_path):
  for mode, numbers in BY_MODE.items():
    done = []
    prepared = prepare(plan, doubled, tmp_path / "out", drop_duplicates=mode, progress=done.append)
    suffix = "" if mode == "none" else f"_drop_{mode.replace('-', '_')}"
    folder = tmp_path / "out/csv" / f"classification_7{suffix}/1.0.0"
    assert prepared.folder == str(folder)
    assert origins(folder) == {
      "train": [origin(i) for i in range(46) if i not in numbers],
      "test": [origin(i) for i in range(46, 60)],
    }
    assert sum(done) == (60 if mode == "none" else 2 * 60)
    index = json.loads((folder / "ferjax.json").read_text())
    assert index["drop_duplicates"] == mode
    assert index["splits"]["train"]["duplicates"] == len(numbers)
    if mode != "none":
      assert {split: len(lines) for split, lines in prepared.duplicates.items()} == {
        "train": len(numbers),
        "test": 0,
      }


def test_leak_free(plan, doubled, tmp_path):
  """Train keeps its copies; test loses the images that train has."""
  prepared = prepare(plan, doubled, tmp_path / "out", drop_duplicates="leak-free")
  assert prepared.folder == str(tmp_path / "out/csv/classification_7_leak_free/1.0.0")
  assert origins(prepared.folder) == {
    "train": [origin(i) for i in range(46)],
    "test": [origin(i) for i in range(46, 60) if i not in (51, 55)],
  }
  assert prepared.duplicates["test"] == [
    f"test: {origin(51)} is the same image as train: {origin(0)}: across splits",
    f"test: {origin(55)} is the same image as train: {origin(20)}: across splits",
  ]


def test_the_report_lists_the_dropped_records(plan, doubled, tmp_path):
  prepared = prepare(plan, doubled, tmp_path / "out", drop_duplicates="across-splits")
  report = json.loads(pathlib.Path(prepared.folder, "report/report.json").read_text())
  assert report["drop_duplicates"] == "across-splits"
  assert report["duplicates"] == prepared.duplicates
  assert report["written"]["train"]["total"] == 46 - 3
  lines = pathlib.Path(prepared.folder, "report/duplicates.txt").read_text().splitlines()
  assert lines == [
    f"train: {origin(i)} is the same image as test: {origin(j)}: across splits"
    for i, j in ((0, 51), (7, 51), (20, 55))
  ]


@pytest.mark.usefixtures("small_shards")
def test_check_finds_no_duplicates_afterwards(plan, doubled, tmp_path):
  prepare(plan, doubled, tmp_path / "out", drop_duplicates="all")
  left = origins(tmp_path / "out")
  assert {f.kind for f in check_plan(plan)} >= {"duplicate", "label"}
  for split, entries in plan.entries.items():
    plan.entries[split] = [entry for entry in entries if entry.origin in left[split]]
  assert not {f.kind for f in check_plan(plan)} & {"duplicate", "label", "near"}


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize(
  ("reads", "left"),
  [
    (23, 40 + 57),  # while images are compared: four files of five are finished
    (82, 37),  # while shards are written: all 60 were compared, four shards of five are finished
  ],
)
def test_interrupted_run_resumes(plan, doubled, tmp_path, monkeypatch, reads, left):
  opened, load = [], builders.load

  def load_until_killed(entry, **options):
    opened.append(entry.origin)
    if len(opened) > reads:
      raise KeyboardInterrupt
    return load(entry, **options)

  monkeypatch.setattr(builders, "load", load_until_killed)
  with pytest.raises(KeyboardInterrupt):
    prepare(plan, doubled, tmp_path / "out", drop_duplicates="across-splits")
  again, done = [], []
  monkeypatch.setattr(builders, "load", lambda e, **o: again.append(e.origin) or load(e, **o))
  prepare(plan, doubled, tmp_path / "out", drop_duplicates="across-splits", progress=done.append)
  assert len(again) == left
  assert sum(done) == 2 * 60
  assert origins(tmp_path / "out")["train"] == [
    origin(i) for i in range(46) if i not in BY_MODE["across-splits"]
  ]
  source, train = open_prepared(tmp_path / "out", "train"), plan.entries["train"]
  np.testing.assert_array_equal(source[42]["image"], decode(train[45].image))


@pytest.mark.usefixtures("small_shards")
def test_images_that_cannot_be_read(doubled, plan_of, tmp_path):
  (doubled / "images/30.png").write_bytes(b"no image")
  plan = plan_of("csv", doubled, splitting=Splitting(fraction=0.0))
  with pytest.raises(RecordError, match=r"labels.csv:32 .*not an image.*--on-bad-record skip"):
    prepare(plan, doubled, tmp_path / "out", drop_duplicates="across-splits")
  prepared = prepare(
    plan, doubled, tmp_path / "out", drop_duplicates="across-splits", on_bad_record="skip"
  )
  assert prepared.records == {"train": 46 - 3 - 1, "test": 14}
  assert "labels.csv:32" in prepared.left_out["train"][0]


def test_a_split_that_is_a_copy_of_another(doubled, plan_of, tmp_path):
  for i in range(46):
    shutil.copy(doubled / "images/50.png", doubled / f"images/{i}.png")
  plan = plan_of("csv", doubled, splitting=Splitting(fraction=0.0))
  message = r"across-splits would empty the split 'train': all its 46 records .* labels.csv:2 "
  with pytest.raises(RecordError, match=message):
    prepare(plan, doubled, tmp_path / "out", drop_duplicates="across-splits")
  with pytest.raises(ValueError, match="unknown mode 'some' to drop duplicates; known: none, "):
    prepare(plan, doubled, tmp_path / "out", drop_duplicates="some")

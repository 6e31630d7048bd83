"""Records are written unchanged, and an interrupted run resumes where it stopped."""

import collections
import concurrent.futures
import io
import json
import os
import pathlib
import pickle
import shutil
import sys
import threading

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ferjax.data.datasets.base import Options
from ferjax.data.datasets.entries import LayoutError, RecordError
from ferjax.data.datasets.raf_db import RAF_DB
from ferjax.data.image import decode
from ferjax.data.preparation import builders
from ferjax.data.preparation.prepare import prepare, write_share
from ferjax.data.prepared import find_prepared, open_prepared
from ferjax.expressions import UNLABELLED

BOXED = ("voc", "coco_json", "yolo_txt", "annotation_list")


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize(
  "layout", ["affectnet_npy", "fer2013_csv", "ferplus", "ferplus_folders", "expw", "csv"]
)
def test_faces_are_read_back(make_layout, plan_of, tmp_path, layout):
  root = make_layout(layout)
  plan = plan_of(layout, root)
  prepared = prepare(plan, root, tmp_path / "out")
  for split, entries in plan.entries.items():
    source = open_prepared(tmp_path / "out", split, plan.options.class_names)
    assert len(source) == len(entries) == prepared.records[split]
    assert source.task == "classification"
    assert not hasattr(source, "max_boxes")  # which indicates detection
    labels = [entry.distribution(len(plan.options.class_names)) for entry in entries]
    np.testing.assert_array_equal(source.labels, labels)
    for index in {0, 4, 5, len(entries) - 1} & set(range(len(entries))):  # ends of shards
      entry, example = entries[index], source[index]
      np.testing.assert_array_equal(example["label"], source.labels[index])
      assert source.origin(index) == entry.origin
      assert source.group(index) == entry.group
      whole = decode(entry.image if isinstance(entry.image, str) else entry.image.encode())
      if entry.crop is None:
        np.testing.assert_array_equal(example["image"], whole)
      else:
        x1, y1, x2, y2 = map(int, entry.crop)
        expected = whole[y1:y2, x1:x2].astype(int)
        assert example["image"].shape == expected.shape
        assert np.abs(example["image"] - expected).mean() < 3  # encoded again


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("layout", BOXED)
def test_photographs_are_read_back(make_layout, plan_of, tmp_path, layout):
  root = make_layout(layout)
  plan = plan_of(layout, root)
  prepare(plan, root, tmp_path / "out")
  source = open_prepared(tmp_path / "out", "train")
  names = [str(entry.image).rsplit("/", 1)[1] for entry in plan.entries["train"]]
  example = source[names.index("train1.jpg")]
  np.testing.assert_allclose(example["boxes"], [[10, 5, 50, 45], [55, 8, 85, 48]], atol=1e-4)
  np.testing.assert_array_equal(example["label"], [1, 4])
  assert source[names.index("train9.jpg")]["boxes"].shape == (0, 4)
  assert source.max_boxes == 2
  again = pickle.loads(pickle.dumps(source))  # as for a worker, with shards already open
  np.testing.assert_array_equal(again[3]["image"], source[3]["image"])


def test_raf_db_boxes_are_clipped(make_layout, plan_of, tmp_path):
  root = make_layout("raf_db")
  (root / "basic/Annotation/boundingbox/test_0001_boundingbox.txt").write_text("-9 -9 99 70")
  prepare(plan_of("raf_db", root, task="detection"), root, tmp_path / "out")
  example = open_prepared(tmp_path / "out", "test")[0]
  np.testing.assert_array_equal(example["boxes"], [[0, 0, 90, 70]])


def test_votes_are_kept_and_tfds_reads_it(make_layout, plan_of, tmp_path):
  root = make_layout("ferplus")
  prepared = prepare(plan_of("ferplus", root), root, tmp_path / "out")
  builder = tfds.builder_from_directory(prepared.folder)
  record = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})[1]
  np.testing.assert_array_equal(record["votes"], [0, 7, 3, 0, 0, 0, 0, 0, 0, 0])
  assert Image.open(io.BytesIO(record["image"])).format == "PNG"
  assert builder.info.splits["train"].num_examples == 20
  assert builder.info.full_name == "ferplus/classification_8_majority/1.0.0"


def test_a_builder_works_without_the_command(make_layout, tmp_path):
  """As a tfds user would call it."""
  config = builders.Config("mine", options=Options(task="detection"))
  builder = builders.builder_of(RAF_DB)(data_dir=tmp_path / "out", config=config)
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir=make_layout("raf_db"))
  )
  assert {s: i.num_examples for s, i in builder.info.splits.items()} == {
    "train": 35,
    "val": 5,
    "test": 7,
  }
  assert set(builder.as_data_source("val")[0]) == {"image", "boxes", "labels", "origin", "group"}


@pytest.mark.usefixtures("small_shards")
def test_interrupted_run_resumes(make_layout, plan_of, tmp_path, monkeypatch):
  root = make_layout("csv")
  plan = plan_of("csv", root)
  opened = []
  load = builders.load

  def load_until_killed(entry, **options):
    opened.append(entry.origin)
    if len(opened) > 23:
      raise KeyboardInterrupt
    return load(entry, **options)

  monkeypatch.setattr(builders, "load", load_until_killed)
  with pytest.raises(KeyboardInterrupt):
    prepare(plan, root, tmp_path / "out")
  unfinished = tmp_path / "out/csv/classification_7/1.0.0.unfinished"
  whole = {path.name for path in unfinished.iterdir() if path.suffix not in (".json", ".txt")}
  partial = {name for name in whole if name.endswith(".writing")}
  assert partial
  assert len(whole - partial) >= 2
  with pytest.raises(ValueError, match=r"no prepared data set in .*no file ferjax.json"):
    open_prepared(tmp_path / "out", "train")

  # A killed run also leaves tfds's folder, possibly with all files.
  rest = unfinished.parent / "incomplete.ABCDEF_1.0.0"
  rest.mkdir()
  (rest / "ferjax.json").write_text("{}")
  with pytest.raises(ValueError, match="no prepared data set in"):
    open_prepared(tmp_path / "out", "train")

  again = []
  monkeypatch.setattr(builders, "load", lambda e, **o: again.append(e.origin) or load(e, **o))
  done = []
  prepare(plan, root, tmp_path / "out", progress=done.append)
  assert len(again) == 60 - 5 * len(whole - partial)
  assert sum(done) == 60
  assert [path.name for path in unfinished.parent.iterdir()] == ["1.0.0"]
  monkeypatch.undo()
  prepare(plan, root, tmp_path / "other")
  for split in plan.entries:
    a, b = (open_prepared(tmp_path / name, split) for name in ("out", "other"))
    assert [a.origin(i) for i in range(len(a))] == [b.origin(i) for i in range(len(b))]
    np.testing.assert_array_equal(a.labels, b.labels)
    assert a._record(len(a) - 1)["image"] == b._record(len(b) - 1)["image"]


@pytest.mark.usefixtures("small_shards")
def test_changed_source_starts_over(make_layout, plan_of, tmp_path, monkeypatch):
  root = make_layout("csv")
  (root / "images/40.png").write_bytes(b"no image")
  with pytest.raises(RecordError, match=r"labels.csv:42 \(images/40.png\): not an image"):
    prepare(plan_of("csv", root), root, tmp_path / "out")
  Image.new("RGB", (30, 30), "red").save(root / "images/40.png")
  opened, load = [], builders.load
  monkeypatch.setattr(builders, "load", lambda e, **o: opened.append(e) or load(e, **o))
  prepare(plan_of("csv", root), root, tmp_path / "out")
  assert len(opened) == 60


def test_bad_records_can_be_left_out(make_layout, plan_of, tmp_path):
  root = make_layout("csv")
  (root / "images/50.png").write_bytes(b"no image")  # in the test split
  with open(root / "labels.csv", "a") as table:
    table.write("images/1.png,joyous,train,p0\n")
  with pytest.raises(LayoutError, match=r"labels.csv:62 .*\nFix them, or leave them out"):
    prepare(plan_of("csv", root), root, tmp_path / "out")
  prepared = prepare(plan_of("csv", root), root, tmp_path / "out", on_bad_record="skip")
  assert prepared.records["test"] == 13
  source = open_prepared(tmp_path / "out", "test")
  assert [source.origin(i) for i in (3, 4)] == [
    "labels.csv:51 (images/49.png)",
    "labels.csv:53 (images/51.png)",
  ]
  np.testing.assert_array_equal(source.labels[4], source[4]["label"])
  assert len(source.skipped) == 1
  assert "labels.csv:52" in source.skipped[0]
  report = json.loads((find_prepared(tmp_path / "out") / "report/report.json").read_text())
  assert "joyous" in report["problems"][0]
  assert "labels.csv:52" in report["left_out"]["test"][0]
  assert report["image_sizes"]["train"]["median"] == [60, 50]
  # Two of each class in 14 test records, except for the unreadable happiness.
  test = {"neutral": 2, "happiness": 1, "sadness": 2, "surprise": 2, "fear": 2, "disgust": 2}
  assert report["written"]["test"] == {"total": 13, **test, "anger": 2}


def test_report_files(make_layout, plan_of, tmp_path):
  root = make_layout("voc")
  unlabelled = root / "Annotations/train0.xml"
  unlabelled.write_text(unlabelled.read_text().replace("neutral", "unknown"))
  plan = plan_of("voc", root)
  prepared = prepare(plan, root, tmp_path / "out")
  assert [count.found for count in plan.counts if count.name == "unlabelled"] == [1]
  report = json.loads((find_prepared(tmp_path / "out") / "report/report.json").read_text())
  assert report["written"]["train"]["unlabelled"] == 1
  assert "unlabelled" not in report["written"]["val"]
  source = open_prepared(tmp_path / "out", "train")
  names = [str(entry.image).rsplit("/", 1)[1] for entry in plan.entries["train"]]
  assert source[names.index("train0.jpg")]["label"].tolist() == [UNLABELLED, 3]
  assert source.labelled_boxes == sum(c >= 0 for e in plan.entries["train"] for c in e.classes)
  for name in ("classes.png", "sizes.png", "samples.png"):
    with Image.open(f"{prepared.folder}/report/{name}") as image:
      assert np.asarray(image.convert("L")).std() > 10
  with pytest.raises(ValueError, match="is already prepared; use it, delete it"):
    prepare(plan_of("voc", root), root, tmp_path / "out")


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes are Linux's")
def test_names_that_are_not_utf8_are_escaped(make_layout, plan_of, tmp_path):
  root = make_layout("image_folder")
  image = next((root / "train" / "fear").iterdir())
  image.rename(image.with_name(os.fsdecode(b"caf\xe9.png")))
  prepare(plan_of("image_folder", root), root, tmp_path / "out")
  source = open_prepared(tmp_path / "out", "train")
  origins = [source.origin(i) for i in range(len(source))]
  assert "train/fear/caf\\udce9.png" in origins
  assert source[origins.index("train/fear/caf\\udce9.png")]["image"].any()


def test_class_names_of_any_script_are_rendered(make_layout, plan_of, tmp_path):
  """Warnings are errors here: Matplotlib warns about every letter that it cannot render."""
  root = make_layout("image_folder")
  names = ("中性", "\U0010fffd")  # the second is in a private plane, which no font has
  for split in ("train", "val"):
    for folder in sorted((root / split).iterdir())[2:]:
      shutil.rmtree(folder)
    for folder, name in zip(sorted((root / split).iterdir()), names, strict=True):
      folder.rename(folder.with_name(name))
  prepared = prepare(plan_of("image_folder", root, class_names=names), root, tmp_path / "out")
  for name in ("classes.png", "samples.png"):
    with Image.open(f"{prepared.folder}/report/{name}") as image:
      assert np.asarray(image.convert("L")).std() > 5


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("mode", ["none", "all"])
def test_shares_of_several_processes_are_one_set(make_layout, plan_of, tmp_path, monkeypatch, mode):
  """Three threads write shares, and one completes the set: the records of a single process."""
  root = make_layout("csv")
  plan = plan_of("csv", root)
  whole = prepare(plan, root, tmp_path / "whole", drop_duplicates=mode)
  together, opened, load = threading.Barrier(3, timeout=60), collections.Counter(), builders.load

  def counted(entry, **options):
    opened[entry.origin] += 1
    return load(entry, **options)

  monkeypatch.setattr(builders, "load", counted)

  def share(index):
    options = {"index": index, "count": 3, "wait": together.wait, "drop_duplicates": mode}
    write_share(plan, tmp_path / "out", **options)

  with concurrent.futures.ThreadPoolExecutor(3) as pool:
    list(pool.map(share, range(3)))
  done = []
  shared = prepare(plan, root, tmp_path / "out", drop_duplicates=mode, progress=done.append)
  rounds = 1 if mode == "none" else 2
  assert opened.total() == sum(done) - sum(map(len, whole.duplicates.values()))
  assert len(opened) == sum(map(len, plan.entries.values())) == sum(done) // rounds
  assert shared.records == whole.records
  assert shared.duplicates == whole.duplicates
  files = sorted(path.name for path in pathlib.Path(whole.folder).iterdir())
  assert sorted(path.name for path in pathlib.Path(shared.folder).iterdir()) == files
  for split in plan.entries:
    a, b = (open_prepared(x.folder, split) for x in (shared, whole))
    np.testing.assert_equal(*([x._record(i) for i in range(len(x))] for x in (a, b)))
    np.testing.assert_array_equal(a.labels, b.labels)

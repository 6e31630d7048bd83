"""Every data set that a config can name, and the errors if it cannot be read."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from ferjax.config import DataConfig
from ferjax.data.datasets.base import SPLITS, Options
from ferjax.data.datasets.catalog import DATA_SETS, find_data_set
from ferjax.data.loading import load_source, should_open_prepared, source_names
from ferjax.data.preparation import prepare as preparation
from ferjax.data.preparation.prepare import prepare
from ferjax.data.prepared import open_prepared
from ferjax.data.sources import LabelledSource, ReleasedDetection, ReleasedFaces, Source
from ferjax.expressions import EXPRESSIONS


def _config(**changes):
  return dataclasses.replace(DataConfig(image_size=64), **changes)


@pytest.mark.parametrize("name", ["synthetic", "synthetic_faces"])
def test_synthetic_splits_differ_and_depend_on_the_seed(name):
  config = _config(source=name, train_examples=3, val_examples=2, test_examples=4)
  splits = [load_source(config, split, seed=1) for split in SPLITS]
  assert [len(source) for source in splits] == [3, 2, 4]
  assert all(isinstance(source, Source) for source in splits)
  assert {source.class_names for source in splits} == {config.class_names}
  again = load_source(config, "train", seed=1)[0]["image"]
  np.testing.assert_array_equal(again, splits[0][0]["image"])
  # Neither splits nor seeds share an image, not even close seeds.
  images = {
    load_source(config, split, seed=seed)[0]["image"].tobytes()
    for split in SPLITS
    for seed in range(4)
  }
  assert len(images) == 12


def test_tasks_of_the_sources():
  for name, task in (("synthetic", "detection"), ("synthetic_faces", "classification")):
    assert load_source(_config(source=name, train_examples=1), "train").task == task


def test_synthetic_faces_have_the_size_before_cropping():
  config = _config(source="synthetic_faces", train_examples=1)
  assert load_source(config, "train")[0]["image"].shape == (64, 64, 3)
  config = dataclasses.replace(config, resize=70)
  assert load_source(config, "train")[0]["image"].shape == (70, 70, 3)


def test_faces_by_split(tmp_path):
  for split, count in (("train", 2), ("dev", 1), ("test", 3)):
    (tmp_path / split / "fear").mkdir(parents=True)
    for i in range(count):
      Image.new("RGB", (32, 32)).save(tmp_path / split / "fear" / f"{i}.png")
  config = _config(source="image_folder", dir=str(tmp_path), val="dev")
  sources = [load_source(config, split) for split in SPLITS]
  assert [(type(source), len(source)) for source in sources] == [
    (ReleasedFaces, 2),
    (ReleasedFaces, 1),
    (ReleasedFaces, 3),
  ]
  (tmp_path / "faces.csv").write_text(
    "image,label,split\ntrain/fear/0.png,fear,train\ndev/fear/0.png,fear,dev\n"
    "test/fear/0.png,fear,test\ntest/fear/1.png,fear,test\n"
  )
  config = dataclasses.replace(config, source="csv", csv="faces.csv")
  sources = [load_source(config, split) for split in SPLITS]
  assert [(type(source), len(source)) for source in sources] == [
    (ReleasedFaces, 1),
    (ReleasedFaces, 1),
    (ReleasedFaces, 2),
  ]
  with pytest.raises(ValueError, match=r"column split dev in .*faces.csv .* is not a split; exp"):
    load_source(dataclasses.replace(config, val=""), "val")


def test_annotation_list_by_split(tmp_path):
  Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
  (tmp_path / "t.txt").write_text("a.png 1,2,30,31,0\n")
  (tmp_path / "v.txt").write_text("a.png\na.png\n")
  config = _config(
    source="annotation_list", dir=str(tmp_path), train="t.txt", val="v.txt", test="v.txt"
  )
  assert isinstance(load_source(config, "train"), ReleasedDetection)
  assert isinstance(load_source(config, "train"), Source)
  assert [len(load_source(config, split)) for split in SPLITS] == [1, 2, 2]
  # One line is too little to take a validation split from.
  with pytest.raises(ValueError, match=r"no validation split of 0.1 can be taken from 1 records"):
    load_source(dataclasses.replace(config, val=""), "val")
  with pytest.raises(ValueError, match=r"missing  .*test.txt  \(annotation list of the test split"):
    load_source(dataclasses.replace(config, test=""), "test")


def test_voc_and_raf_db_read_the_named_split(tmp_path):
  main = tmp_path / "ImageSets" / "Main"
  main.mkdir(parents=True)
  config = _config(source="voc", dir=str(tmp_path))
  with pytest.raises(ValueError, match=r"missing  .*train\.txt"):
    load_source(config, "val")  # it would be taken from train
  with pytest.raises(ValueError, match=r"missing  .*test\.txt"):
    load_source(config, "test")
  with pytest.raises(ValueError, match=r"image set dev of the split val not found in .*Main"):
    load_source(dataclasses.replace(config, val="dev"), "val")
  with pytest.raises(ValueError, match="unknown split 'dev' of RAF-DB"):
    load_source(dataclasses.replace(config, source="raf_db", val="dev"), "val")


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"source": "coco"},
      "unknown data.source .coco.; known: synthetic, synthetic_faces, raf_db, .*, csv, prepared",
    ),
    (
      {"source": "raf_db"},
      r"data.dir is empty.*Request it from its authors.*--config.data.dir=DIR.*no data",
    ),
    (
      {"source": "voc"},
      r"data.dir is empty.*JPEGImages.*--config.data.dir=DIR.*'synthetic' needs no data",
    ),
    (
      {"source": "annotation_list"},
      r"data.dir is empty.*--config.data.dir=DIR.*'synthetic' needs no data",
    ),
    ({"source": "image_folder"}, r"data.dir is empty.*<split>/<class>.*'synthetic_faces' needs no"),
    ({"source": "csv"}, r"data.dir is empty.*--config.data.dir=DIR.*data.csv.*'synthetic_faces'"),
    ({}, r"data.train_examples \(0\) must be positive"),
    ({"source": "synthetic_faces"}, r"data.train_examples \(0\) must be .* 'synthetic_faces'"),
    (
      {"source": "synthetic_faces", "train_examples": 1, "resize": 48},
      r"resize \(48\) must be at least .* \(64\)",
    ),
  ],
)
def test_invalid_configs_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    load_source(_config(**changes), "train")


def test_unknown_split_is_refused():
  with pytest.raises(ValueError, match="unknown split 'dev'; known: train, val, test"):
    load_source(_config(train_examples=1), "dev")


# Layout -> its configuration, besides folder and name.
LAYOUTS = {
  "affectnet_csv": {"class_names": EXPRESSIONS, "margin": 0.2},
  "affectnet_npy": {"class_names": EXPRESSIONS},
  "ferplus": {"class_names": EXPRESSIONS, "rule": "probability"},
  "ferplus_folders": {"class_names": EXPRESSIONS},
}


@pytest.fixture
def set_of(layout_sets):
  """Layout -> its data set and its tasks."""

  def find(layout):
    return find_data_set(layout_sets[layout])

  return find


_USES = [
  *(("raf_db", task) for task in ("classification", "detection")),
  *(("expw", task) for task in ("classification", "detection")),
  *((name, "classification") for name in ("affectnet_csv", "affectnet_npy", "fer2013_csv")),
  *(
    (name, "classification")
    for name in ("fer2013_folders", "ferplus", "ferplus_folders", "sfew", "csv")
  ),
  ("image_folder", "classification"),
  *((name, "detection") for name in ("voc", "coco_json", "yolo_txt", "annotation_list")),
]


@pytest.mark.parametrize(("layout", "task"), _USES)
def test_every_set_is_read_as_released_and_as_prepared(
  make_layout, plan_of, set_of, monkeypatch, tmp_path, layout, task
):
  """The same records with the same origins in the same splits."""
  monkeypatch.setattr(preparation, "write_report", lambda *args: None)
  root = make_layout(layout).rename(tmp_path / "released [x] *")  # not a glob pattern
  data_set = set_of(layout)
  changes = LAYOUTS.get(layout, {})
  plan = plan_of(layout, root, task=task, **changes)
  folder = prepare(plan, root, tmp_path / "out [1]").folder
  config = _config(source=data_set.name, dir=str(root), **changes)
  options = Options(task=task)
  assert not should_open_prepared(data_set, root, options)
  places = (folder, tmp_path / "out [1]")
  assert all(should_open_prepared(data_set, place, options) for place in places)
  for split in plan.entries:
    released = load_source(config, split, task=task)
    others = [
      load_source(dataclasses.replace(config, dir=str(places[0])), split, task=task),
      load_source(dataclasses.replace(config, dir=str(places[1]), source="prepared"), split),
    ]
    assert isinstance(released, LabelledSource if task == "classification" else Source)
    assert released.task == task
    origins = [entry.origin for entry in plan.entries[split]]
    for source in (released, *others):
      assert [source.origin(i) for i in range(len(source))] == origins
      assert source.class_names == released.class_names
    last = len(released) - 1
    for i in (0, last):
      a, b = released[i], others[0][i]
      assert np.abs(a["image"].astype(int) - b["image"]).mean() < 3  # cropped faces become JPEG
      assert a.keys() == b.keys()
      for key in a.keys() - {"image"}:
        np.testing.assert_array_equal(a[key], b[key])
    if task == "classification":
      np.testing.assert_array_equal(released.labels, others[0].labels)
    else:
      assert released.max_boxes >= others[0].max_boxes


def test_prepared_data_of_another_kind_are_refused(make_layout, plan_of, tmp_path, monkeypatch):
  monkeypatch.setattr(preparation, "write_report", lambda *args: None)
  root = make_layout("ferplus")
  folder = prepare(plan_of("ferplus", root), root, tmp_path / "out").folder
  config = _config(source="ferplus", dir=folder, class_names=EXPRESSIONS)
  assert len(load_source(config, "train")) == 20
  for changes, message in (
    (
      {"source": "affectnet"},
      r"contains FERPlus \(ferplus\) for classification, but data.source is 'affectnet'",
    ),
    ({"rule": "probability"}, "prepared with rule 'majority', but data.rule is 'probability'"),
    ({"val": "dev"}, "has no split 'dev'; existing splits: train, val, test"),
    ({"class_names": EXPRESSIONS[:7]}, "was prepared for the classes neutral"),
  ):
    with pytest.raises(ValueError, match=message):
      load_source(dataclasses.replace(config, **changes), "val")
  with pytest.raises(ValueError, match="but the task of the model is 'detection'"):
    open_prepared(folder, "train", task="detection")


def test_name_and_task_select_among_prepared_sets(make_layout, plan_of, tmp_path, monkeypatch):
  monkeypatch.setattr(preparation, "write_report", lambda *args: None)
  for layout, task in (("raf_db", "classification"), ("raf_db", "detection"), ("csv", "")):
    root = tmp_path / layout
    root = root if root.exists() else make_layout(layout)
    prepare(plan_of(layout, root, task=task), root, tmp_path / "out")
  config = _config(source="raf_db", dir=str(tmp_path / "out"))
  for task in ("classification", "detection"):
    assert load_source(config, "train", task=task).task == task
  assert len(load_source(dataclasses.replace(config, source="csv"), "test")) == 14
  with pytest.raises(ValueError, match="3 prepared data sets below"):
    load_source(dataclasses.replace(config, source="prepared"), "train")
  with pytest.raises(ValueError, match="2 prepared data sets below"):
    load_source(config, "train")
  with pytest.raises(ValueError, match=r"out does not have the layout of ExpW:"):
    load_source(dataclasses.replace(config, source="expw"), "train")


def test_options_that_do_not_apply_are_refused(make_layout):
  config = _config(source="csv", dir=str(make_layout("csv")))
  with pytest.raises(ValueError, match=r"but does not apply to CSV table; .* data.rule"):
    load_source(dataclasses.replace(config, rule="probability"), "train")
  with pytest.raises(ValueError, match=r"for faces that are cropped from photographs.*data.margin"):
    load_source(dataclasses.replace(config, margin=0.5), "train")


def test_user_defined_data_keep_all_of_train_without_validation(make_layout):
  config = _config(source="csv", dir=str(make_layout("csv")))
  assert [len(load_source(config, split)) for split in SPLITS] == [40, 6, 14]
  assert len(load_source(config, "train", validates=False)) == 46
  config = _config(source="raf_db", dir=str(make_layout("raf_db")))
  sizes = [len(load_source(config, "train", validates=value)) for value in (True, False)]
  assert sizes == [35, 35]


def test_sources_by_task():
  both = {"raf_db", "expw", "csv", "prepared"}
  detection, classification = map(source_names, ("detection", "classification"))
  assert set(detection) & set(classification) == both
  assert {*detection, *classification} == {
    *DATA_SETS,
    *both,
    "synthetic",
    "synthetic_faces",
    "composed_scenes",
  }

"""No split is guessed: every name that is not a split, and every split without records."""

import pytest

from ferjax.data.datasets.entries import LayoutError


def _replace(path, old, new):
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new, 1))


SPLITS = [
  ("voc", "ImageSets/Main/val.txt", "ImageSets/Main/dev.txt", "dev"),
  ("coco_json", "annotations/val.json", "annotations/valid set.json", "annotations/valid set.json"),
  ("yolo_txt", "images/val", "images/Val", "Val"),
  ("annotation_list", "val.txt", "valid.txt", "valid.txt"),
  ("image_folder", "val", "testing", "testing"),
]


@pytest.mark.parametrize(("layout", "name", "other", "option"), SPLITS)
def test_name_that_is_not_a_split(make_layout, plan_of, layout, name, other, option):
  root = make_layout(layout)
  (root / "notes").mkdir()
  train = {"coco_json": "annotations/train.json", "annotation_list": "train.txt"}.get(
    layout, "train"
  )
  quoted = f"'{option}'" if " " in option else option
  (root / name).rename(root / other)
  if layout == "yolo_txt":
    (root / "labels/val").rename(root / "labels" / option)
  with pytest.raises(LayoutError, match=r"is not a split; expected .*train.*val.*test") as caught:
    plan_of(layout, root)
  start, there = str(caught.value).split("; existing: ")
  there, fix = there.split(". Rename it, move it away, ")
  assert option in start
  assert {option, train} == set(there.split(", "))
  assert fix.endswith(f"--file val={quoted}, or --config.data.val={quoted}")
  plan = plan_of(layout, root, files={"val": option})
  assert plan.validation == ""
  assert len(plan.entries["val"]) == (14 if layout == "image_folder" else 7)
  with pytest.raises(LayoutError, match=r"gone of the split train not found in .*; existing: "):
    plan_of(layout, root, files={"train": "gone", "val": option})


def test_names_of_all_splits_that_are_not_splits(make_layout, plan_of):
  """The error names a missing split, such as train."""
  root = make_layout("coco_json")
  for split in ("train", "val"):
    (root / f"annotations/{split}.json").rename(root / f"annotations/instances_{split}2017.json")
  with pytest.raises(LayoutError, match=r"--file train=annotations/instances_train2017\.json, or "):
    plan_of("coco_json", root)


def test_value_of_the_split_column_that_is_not_a_split(make_layout, plan_of):
  root = make_layout("csv")
  _replace(root / "labels.csv", ",train,p1\n", ",training,p1\n")
  with pytest.raises(
    LayoutError,
    match=r"split training in .*labels.csv .*'training' from line 4 on.* is not a",
  ):
    plan_of("csv", root)
  plan = plan_of("csv", root, files={"val": "training"})
  assert [entry.origin for entry in plan.entries["val"]] == ["labels.csv:4 (images/2.png)"]
  with pytest.raises(LayoutError, match=r"dev of the split val not found.*; existing: .*training"):
    plan_of("csv", root, files={"train": "training", "val": "dev"})


def test_class_folders_next_to_a_release_without_validation(make_layout, plan_of):
  root = make_layout("fer2013_folders")
  (root / "validation" / "happy").mkdir(parents=True)
  with pytest.raises(LayoutError, match=r"validation contains class folders, but is not a split"):
    plan_of("fer2013_folders", root)


@pytest.mark.parametrize(
  ("layout", "images", "where"),
  [
    ("raf_db", "basic/Image/aligned/test_*", "list_patition_label.txt"),
    ("affectnet_csv", "Manually_Annotated_Images/*/validation*", "validation.csv"),
    ("voc", "JPEGImages/val*", "val.txt"),
    ("coco_json", "images/val*", "val.json"),
    ("yolo_txt", "images/val/*", "images/val"),
    ("annotation_list", "images/val*", "val.txt"),
    ("csv", "images/5?.png", "labels.csv"),
  ],
)
def test_split_whose_images_are_all_lost(make_layout, plan_of, layout, images, where):
  root = make_layout(layout)
  for path in root.glob(images):
    path.unlink()
  if layout == "csv":
    _replace(root / "labels.csv", "split", "kind")
    _replace(root / "labels.csv", "person", "split")
    lines = (root / "labels.csv").read_text().splitlines()
    rows = [line.rsplit(",", 2)[0] for line in lines[1:]]
    names = ["test" if "images/5" in row and "/5." not in row else "train" for row in rows]
    rows = [f"{row},x,{name}" for row, name in zip(rows, names, strict=True)]
    (root / "labels.csv").write_text("\n".join([lines[0], *rows]) + "\n")
  empty = (
    rf"{where}.*: (empty; no images|no valid records of the split .* all \d+ records are bad or)"
  )
  with pytest.raises(LayoutError, match=empty):
    plan_of(layout, root)

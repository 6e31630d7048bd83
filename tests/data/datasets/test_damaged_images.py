"""Damage found when images are opened or compared: the message names file and row."""

import csv
import json
import re
import shutil

import pytest
from PIL import Image

from ferjax.data.preparation.checks import check_plan
from ferjax.data.preparation.plan import Splitting

RAF_LIST = "basic/EmoLabel/list_patition_label.txt"
AFFECTNET = "Manually_Annotated_file_lists/training.csv"


def _replace(path, old, new):
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
  ("layout", "image", "row"),
  [
    ("raf_db", "basic/Image/aligned/train_00005_aligned.jpg", rf"{RAF_LIST}:5 \(train_00005.jpg\)"),
    ("affectnet_npy", "val_set/images/3.jpg", r"val_set/annotations/3_exp.npy"),
    ("affectnet_csv", "Manually_Annotated_Images/2/training2.jpg", rf"{AFFECTNET}:4 "),
    ("expw", "image/origin/photo_19.jpg", r"label.lst:39 \(photo_19.jpg\)"),
    ("voc", "JPEGImages/train3.jpg", r"Annotations/train3.xml"),
    ("coco_json", "images/train3.jpg", r"annotations/train.json: image 503 \(train3.jpg\)"),
    ("yolo_txt", "images/train/train3.jpg", r"labels/train/train3.txt"),
    ("annotation_list", "images/train3.jpg", r"train.txt:4 \(images/train3.jpg\)"),
    ("ferplus_folders", "data/FER2013Valid/fer0000022.png", r"data/FER2013Valid/label.csv:2 "),
    ("csv", "images/9.png", r"labels.csv:11 \(images/9.png\)"),
  ],
)
def test_missing_and_broken_image(make_layout, plan_of, layout, image, row):
  root = make_layout(layout)
  whole = (root / image).read_bytes()
  (root / image).unlink()
  problems = plan_of(layout, root).problems
  assert re.search(rf"{row}.*: image file not found: {re.escape(str(root / image))}", problems[0])
  (root / image).write_bytes(whole[: len(whole) // 2])
  findings = [f for f in check_plan(plan_of(layout, root)) if f.kind == "image"]
  assert findings
  broken = rf"(cannot be read, damaged|not an image).*: {re.escape(str(root / image))}"
  assert re.search(rf"{row}.*: {broken}", findings[0].message)


@pytest.mark.parametrize(
  ("layout", "image"),
  [
    ("fer2013_folders", "train/happy/0031.png"),
    ("sfew", "Train/Sad/Film0016_001530123_00000012.png"),
    ("image_folder", "val/fear/0022.png"),
  ],
)
def test_broken_image_in_a_class_folder(make_layout, plan_of, layout, image):
  root = make_layout(layout)
  whole = (root / image).read_bytes()
  for content in (b"", b"no image", whole[: len(whole) // 2]):
    (root / image).write_bytes(content)
    (finding,) = [f for f in check_plan(plan_of(layout, root)) if f.kind == "image"]
    assert finding.message.startswith(f"{image}: ")


@pytest.mark.parametrize(
  ("layout", "file", "old", "new", "row"),
  [
    ("raf_db", "basic/Annotation/boundingbox/train_00001_boundingbox.txt", "10.5 12 70", "91 12 99",
     rf"{RAF_LIST}:1 .*outside the image of 90x80"),
    ("affectnet_csv", AFFECTNET, ",10,5,30", ",70,5,30", rf"{AFFECTNET}:2 .*outside the image of"),
    ("expw", "label/label.lst", "10 5 39", "10 95 139", r"label.lst:1 .*outside the image of"),
    ("voc", "Annotations/train0.xml", "<xmax>50", "<xmax>95", r"train0.xml .*5 pixels beyond the"),
    # x and y of both corners swapped, as in an image with swapped width and height.
    ("annotation_list", "train.txt", "55,8,85,48", "8,55,48,85", r"train.txt:1 .*25 pixels beyond"),
  ],
)  # fmt: skip
def test_box_outside_the_image(make_layout, plan_of, layout, file, old, new, row):
  root = make_layout(layout)
  _replace(root / file, old, new)
  task = "detection" if layout == "raf_db" else ""
  (finding,) = [f for f in check_plan(plan_of(layout, root, task=task)) if f.kind == "image"]
  assert re.search(row, finding.message)


def test_swapped_width_and_height(make_layout, plan_of):
  root = make_layout("voc")
  _replace(
    root / "Annotations/train5.xml", "<width>90</width><height>60<", "<width>60</width><height>90<"
  )
  (finding,) = [f for f in check_plan(plan_of("voc", root)) if f.kind == "image"]
  assert re.search(
    r"train5.xml .*for 60x90 pixels, but .* has 90x60: width and height are swapped",
    finding.message,
  )
  root = make_layout("coco_json")
  content = json.loads((root / "annotations/train.json").read_text())
  content["images"][5].update(width=60, height=90)
  content["annotations"][0]["bbox"] = [10, 5, 50, 45]  # x2, y2 = 60, 50: still inside
  content["annotations"][1]["bbox"] = [55, 8, 85, 48]  # corners where size is expected
  content["annotations"].append({"image_id": 1, "category_id": 10, "bbox": [0, 0, 5, 5]})
  (root / "annotations/train.json").write_text(json.dumps(content))
  plan = plan_of("coco_json", root)
  assert re.search(
    r"train.json: annotations\[\d+\]: image_id 1 is not the id of an image", plan.problems[0]
  )
  messages = [f.message for f in check_plan(plan) if f.kind == "image"]
  assert len(messages) == 2
  assert re.search(r"image 500 .*box .* extends 50 pixels beyond the image", messages[0])
  assert re.search(r"image 505 .*swapped", messages[1])


def test_one_image_listed_twice(make_layout, plan_of):
  root = make_layout("csv")
  with open(root / "labels.csv", "a") as table:
    table.write("images/0.png,neutral,test,p0\n")
  (problem,) = plan_of("csv", root).problems
  assert re.search(
    r"labels.csv:62 \(images/0.png\) \(test\): already listed at labels.csv:2 .*\(train\)", problem
  )
  root = make_layout("raf_db")
  with open(root / RAF_LIST, "a") as lines:
    lines.write("train_00001.jpg 2\n")
  (problem,) = plan_of("raf_db", root).problems
  assert re.search(rf"{RAF_LIST}:48 .*already listed at {RAF_LIST}:1 ", problem)
  root = make_layout("voc")
  with open(root / "ImageSets/Main/val.txt", "a") as names:
    names.write("train0\n")
  (problem,) = plan_of("voc", root).problems
  assert re.search(r"train0.xml .*\(val\): already listed at .*train0.xml .*\(train\)", problem)
  root = make_layout("annotation_list")
  with open(root / "val.txt", "a") as lines:
    lines.write("images/train0.jpg\n")
  (problem,) = plan_of("annotation_list", root).problems
  assert re.search(r"val.txt:8 .*\(val\): already listed at train.txt:1 .*\(train\)", problem)
  root = make_layout("coco_json")
  content = json.loads((root / "annotations/val.json").read_text())
  content["images"].append({"id": 1, "file_name": "train0.jpg"})
  (root / "annotations/val.json").write_text(json.dumps(content))
  (problem,) = plan_of("coco_json", root).problems
  assert re.search(
    r"val.json: image 1 .*\(val\): already listed at .*train.json: image 500", problem
  )


# Layout -> start of the origins of its records.
ORIGINS = {
  "raf_db": RAF_LIST,
  "affectnet_csv": "Manually_Annotated_file_lists/(training|validation).csv",
  "affectnet_npy": "(train|val)_set/annotations/.*_exp.npy",
  "fer2013_csv": "fer2013.csv",
  "fer2013_folders": "(train|test)/.*.png",
  "ferplus": "fer2013new.csv",
  "ferplus_folders": "data/FER2013(Train|Test)/label.csv",
  "sfew": "(Train|Val)/.*.png",
  "expw": "label/label.lst",
  "voc": "Annotations/.*.xml",
  "coco_json": "annotations/(train|val).json",
  "yolo_txt": "labels/(train|val)/.*.txt",
  "annotation_list": "(train|val).txt",
  "image_folder": "(train|val)/.*.png",
  "csv": "labels.csv",
}


def _copy_picture(root, source, target):
  """Replaces the image of one record with another's."""
  if isinstance(source.image, str):
    shutil.copy(source.image, target.image)
    return
  with open(root / "fer2013.csv", newline="") as file:
    rows = list(csv.reader(file))
  old, new = (" ".join(map(str, entry.image.values)) for entry in (target, source))
  with open(root / "fer2013.csv", "w", newline="") as file:
    csv.writer(file).writerows([a, new if b == old else b, c] for a, b, c in rows)


@pytest.mark.parametrize("layout", ORIGINS)
def test_duplicate_across_splits(make_layout, plan_of, layout):
  root = make_layout(layout)
  entries = plan_of(layout, root).entries
  (split, others), (first, *_) = list(entries.items())[-1], entries["train"]
  # On the same side of their photographs, from which faces are cropped.
  last = [entry for entry in others if entry.crop == first.crop][-1]
  _copy_picture(root, first, last)
  messages = [f.message for f in check_plan(plan_of(layout, root)) if f.kind == "duplicate"]
  expected = f"{split}: {last.origin} is the same image as train: {first.origin}: across splits"
  assert expected in messages
  assert len(messages) == (2 if layout == "expw" else 1)  # two faces in a photograph
  assert re.match(rf"{split}: {ORIGINS[layout]}\b.* as train: {ORIGINS[layout]}\b", expected)


def test_duplicates_and_groups_across_splits(make_layout, plan_of):
  root = make_layout("csv")
  shutil.copy(root / "images/0.png", root / "images/50.png")  # train neutral, test surprise? 50 % 7
  image = Image.open(root / "images/2.png")
  image.resize((57, 47), Image.Resampling.BICUBIC).save(root / "images/55.png", "PNG")
  _replace(root / "labels.csv", "images/59.png,surprise,test,p29", "images/59.png,surprise,test,p3")
  plan = plan_of("csv", root, splitting=Splitting(fraction=0.0))
  found = {}
  for finding in check_plan(plan):
    found.setdefault(finding.kind, []).append(finding.message)
  (duplicate,) = found["duplicate"]
  assert re.search(
    r"test: labels.csv:52 .* is the same image as train: labels.csv:2 .*: across splits", duplicate
  )
  assert found["label"] == [f"{duplicate}, with another label"]
  (near,) = found["near"]
  assert re.search(r"test: labels.csv:57 .* looks like train: labels.csv:4 .*across splits", near)
  (group,) = found["group"]
  assert re.search(r"'p3' is in several splits: train: labels.csv:8 .*, test: labels.csv:61", group)
  assert "image" not in found
  assert "annotation" not in found

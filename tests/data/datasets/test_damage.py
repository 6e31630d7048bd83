"""Each kind of damage in turn: the message names file and row."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from ferjax.data.checks import check_plan
from ferjax.data.datasets.layout import LayoutError, Options
from ferjax.data.datasets.plan import Splitting

RAF_LIST = "basic/EmoLabel/list_patition_label.txt"
AFFECTNET = "Manually_Annotated_file_lists/training.csv"


def _replace(path, old, new):
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
  ("layout", "path"),
  [
    ("raf_db", RAF_LIST),
    ("raf_db", "basic/Image/aligned"),
    ("affectnet_csv", AFFECTNET),
    ("affectnet_npy", "val_set/annotations"),
    ("fer2013_csv", "fer2013.csv"),
    ("fer2013_folders", "test"),
    ("ferplus", "fer2013new.csv"),
    ("sfew", "Val"),
    ("expw", "label/label.lst"),
    ("voc", "ImageSets/Main/train.txt"),
    ("coco_json", "annotations/train.json"),
    ("yolo_txt", "labels/train"),
    ("annotation_list", "train.txt"),
    ("image_folder", "train"),
    ("csv", "labels.csv"),
  ],
)
def test_missing_part_of_the_layout(make_layout, plan_of, layout, path):
  root = make_layout(layout)
  target = root / path
  shutil.rmtree(target) if target.is_dir() else target.unlink()
  with pytest.raises(LayoutError, match=rf"missing  {re.escape(str(target))}"):
    plan_of(layout, root)


def test_what_is_there_is_said_too(make_layout, plan_of):
  root = make_layout("raf_db")
  shutil.rmtree(root / "basic/Annotation")
  with pytest.raises(LayoutError) as caught:
    plan_of("raf_db", root, task="detection")
  assert str(caught.value).splitlines() == [
    f"{root} is not RAF-DB:",
    f"  found    {root / RAF_LIST}  (the list of images and codes)",
    f"  found    {root / 'basic/Image/original'}  (original photographs)",
    f"  missing  {root / 'basic/Annotation/boundingbox'}  (a file for each face box)",
  ]
  with pytest.raises(LayoutError, match=r"folder not found: .*nowhere.*must be requested"):
    plan_of("raf_db", root / "nowhere")


# (layout, file, old text, new text, message of the problem)
ROWS = [
  ("raf_db", RAF_LIST, "train_00002.jpg 2", "train_00002.jpg 8", rf"{RAF_LIST}:2 .*expected "),
  ("raf_db", RAF_LIST, "train_00003.jpg 3", "train_00003.jpg", rf"{RAF_LIST}:3 "),
  ("affectnet_csv", AFFECTNET, "4,1,0.1", "4,11,0.1", rf"{AFFECTNET}:3 .*: code '11'"),
  ("affectnet_csv", AFFECTNET, ",10,5,30", ",10,5,-30", rf"{AFFECTNET}:2 .*has no area"),
  ("affectnet_csv", AFFECTNET, ",10,5,30", ",10,,30", rf"{AFFECTNET}:2 .*face_y is ''; exp"),
  ("fer2013_csv", "fer2013.csv", "\n3,", "\n7,", r"fer2013.csv:5: code '7' .* 0 anger, 1 disgust"),
  ("fer2013_csv", "fer2013.csv", ",Training", " 12,Training", r"fer2013.csv:2: 2305 pixels; expec"),
  ("fer2013_csv", "fer2013.csv", ",Training", ",Train", r"fer2013.csv:2: Usage is 'Train'; exp"),
  ("ferplus", "fer2013new.csv", "Training,", "PublicTest,", r"fer2013new.csv:2 .*'Training' in f"),
  ("ferplus", "fer2013new.csv", "png,7,3", "png,7,x", r"fer2013new.csv:2 .*happiness has 'x'"),
  ("expw", "label/label.lst", "97.5 2", "97.5 7", r"label.lst:3 \(photo_1.jpg\): code '7'"),
  ("expw", "label/label.lst", " 97.5 2", " 2", r"label.lst:3 .*7 fields; expected"),
  ("voc", "Annotations/train1.xml", ">happiness<", ">joyful<", r"train1.xml .*object 1: unknown"),
  ("voc", "Annotations/train1.xml", "</object>", "", r"train1.xml: malformed XML"),
  ("yolo_txt", "labels/train/train2.txt", "\n", " 4\n", r"labels/train/train2.txt:1 .*6 f"),
  ("yolo_txt", "labels/train/train2.txt", "2 0", "7 0", r"train2.txt:1 .*class '7'; exp"),
  ("yolo_txt", "labels/train/train2.txt", "2 0", "2 9", r"train2.txt:1 .*no box inside the image"),
  ("annotation_list", "train.txt", "45,3", "45,9", r"train.txt:4 .*class 9 is not one of"),
  ("annotation_list", "train.txt", "10,5,50", "60,5,50", r"train.txt:1 .*has no area"),
  ("csv", "labels.csv", "1.png,happiness", "1.png,joyous", r"labels.csv:3 .*class 'joyous'"),
  ("csv", "labels.csv", ",train,p1\n", ",training,p1\n", r"labels.csv:4 .*split 'training'"),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "file", "old", "new", "message"), ROWS)
def test_damaged_row(make_layout, plan_of, layout, file, old, new, message):
  root = make_layout(layout)
  _replace(root / file, old, new)
  plan = plan_of(layout, root)
  assert len(plan.problems) == 1
  assert re.search(message, plan.problems[0])
  with pytest.raises(LayoutError, match=r"1 bad records:\n .*\nMend them, or leave"):
    plan.require_no_problems("error")
  plan.require_no_problems("skip")


@pytest.mark.parametrize(
  ("layout", "table", "column"),
  [
    ("affectnet_csv", AFFECTNET, "face_width"),
    ("fer2013_csv", "fer2013.csv", "pixels"),
    ("ferplus", "fer2013new.csv", "disgust"),
    ("csv", "labels.csv", "split"),
  ],
)
def test_missing_column(make_layout, plan_of, layout, table, column):
  root = make_layout(layout)
  _replace(root / table, column, "other")
  with pytest.raises(
    LayoutError, match=rf"{table}:1: no column '{column}'; columns found: .*other"
  ):
    plan_of(layout, root)


@pytest.mark.parametrize(
  ("layout", "file", "message"),
  [
    ("raf_db", RAF_LIST, rf"{RAF_LIST}: empty; expected lines"),
    ("fer2013_csv", "fer2013.csv", "fer2013.csv:1: no column 'emotion'.*columns found: none"),
    ("expw", "label/label.lst", "label.lst: empty"),
    ("voc", "ImageSets/Main/val.txt", "val.txt: empty; expected one image name a line"),
    ("coco_json", "annotations/val.json", "val.json: malformed json"),
    ("annotation_list", "val.txt", "val.txt: empty; expected"),
    ("yolo_txt", "classes.txt", "classes.txt: empty; expected one class name a line"),
  ],
)
def test_empty_file(make_layout, plan_of, layout, file, message):
  root = make_layout(layout)
  (root / file).write_text("")
  with pytest.raises(LayoutError, match=message):
    plan_of(layout, root)


def test_empty_box_and_label_files(make_layout, plan_of):
  root = make_layout("raf_db")
  (root / "basic/Annotation/boundingbox/train_00004_boundingbox.txt").write_text("")
  (problem,) = plan_of("raf_db", root, task="detection").problems
  assert re.search("train_00004_boundingbox.txt: ''; expected four numbers", problem)
  root = make_layout("affectnet_npy")
  (root / "train_set/annotations/4_exp.npy").write_bytes(b"")
  np.save(root / "train_set/annotations/5_exp.npy", np.arange(2))
  (root / "train_set/annotations/6_exp.npy").unlink()
  np.save(root / "train_set/annotations/7_exp.npy", np.array("happy"))
  problems = plan_of("affectnet_npy", root).problems
  for number, message in enumerate(
    ("not a .npy file", "holds 2 values", "file not found", "label is 'happy'"), start=4
  ):
    assert re.search(
      rf"annotations/{number}_exp.npy \({number}.jpg\): .*{message}", problems[number - 4]
    )
  root = make_layout("yolo_txt")  # no faces, by the rules of that layout
  (root / "labels/train/train4.txt").write_text("")
  plan = plan_of("yolo_txt", root)
  assert plan.problems == []
  (root / "labels/train/train4.txt").unlink()
  (problem,) = plan_of("yolo_txt", root).problems
  assert re.search("labels/train/train4.txt .*file not found.*has an empty one", problem)


@pytest.mark.parametrize(
  ("layout", "image", "row"),
  [
    ("raf_db", "basic/Image/aligned/train_00005_aligned.jpg", rf"{RAF_LIST}:5 \(train_00005.jpg\)"),
    ("affectnet_csv", "Manually_Annotated_Images/2/training2.jpg", rf"{AFFECTNET}:4 "),
    ("expw", "image/origin/photo_19.jpg", r"label.lst:39 \(photo_19.jpg\)"),
    ("voc", "JPEGImages/train3.jpg", r"Annotations/train3.xml"),
    ("coco_json", "images/train3.jpg", r"annotations/train.json: image 503 \(train3.jpg\)"),
    ("annotation_list", "images/train3.jpg", r"train.txt:4 \(images/train3.jpg\)"),
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
  assert re.search(rf"{row}.*: (cannot be read, damaged|not an image)", findings[0].message)


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
  assert re.search(r"train.json: annotations\[\d+\]: image_id 1 is no image's id", plan.problems[0])
  messages = [f.message for f in check_plan(plan) if f.kind == "image"]
  assert len(messages) == 2
  assert re.search(r"image 500 .*box .* lies 50 pixels over the edge of the image", messages[0])
  assert re.search(r"image 505 .*swapped", messages[1])


def test_one_image_listed_twice(make_layout, plan_of):
  root = make_layout("csv")
  with open(root / "labels.csv", "a") as table:
    table.write("images/0.png,neutral,test,p0\n")
  (problem,) = plan_of("csv", root).problems
  assert re.search(
    r"labels.csv:62 \(images/0.png\) \(test\): listed before, at labels.csv:2 .*\(train\)", problem
  )


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


def test_choices_that_a_set_does_not_have(make_layout, plan_of):
  root = make_layout("fer2013_csv")
  for options, message in (
    (Options(task="detection"), "FER2013 has no task 'detection'; known: classification"),
    (Options(rule="mode"), "unknown rule 'mode'; known: majority, probability"),
    (Options(class_names=("happy", "sad")), "FER2013 has 7 classes, in the order neutral"),
  ):
    with pytest.raises(ValueError, match=message):
      plan_of(
        "fer2013_csv", root, **{k: getattr(options, k) for k in ("task", "rule", "class_names")}
      )

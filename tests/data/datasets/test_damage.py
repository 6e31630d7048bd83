"""Each kind of damage in turn: the message names file and row."""

import re
import shutil

import numpy as np
import pytest

from ferjax.data.datasets.base import Options
from ferjax.data.datasets.entries import LayoutError
from ferjax.expressions import FERPLUS_COLUMNS

RAF_LIST = "basic/EmoLabel/list_patition_label.txt"
AFFECTNET = "Manually_Annotated_file_lists/training.csv"
COCO = "annotations/train.json"
FERPLUS = "data/FER2013Train/label.csv"
FACE_COLUMNS = ("face_x", "face_y", "face_width", "face_height")


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
    ("ferplus_folders", FERPLUS),
    ("ferplus_folders", "data/FER2013Test"),
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


def test_message_lists_found_and_missing_files(make_layout, plan_of):
  root = make_layout("raf_db")
  shutil.rmtree(root / "basic/Annotation")
  with pytest.raises(LayoutError) as caught:
    plan_of("raf_db", root, task="detection")
  *lines, request = str(caught.value).splitlines()
  assert lines == [
    f"{root} does not have the layout of RAF-DB:",
    f"  found    {root / RAF_LIST}  (the list of images and codes)",
    f"  found    {root / 'basic/Image/original'}  (original photographs)",
    f"  missing  {root / 'basic/Annotation/boundingbox'}  (a file for each face box)",
  ]
  assert request.startswith("Request it from its authors")
  with pytest.raises(LayoutError, match=r"folder not found: .*nowhere.*Request it from its"):
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
  ("fer2013_csv", "fer2013.csv", "\n1,", "\n1,256 ", r"fer2013.csv:3: 2305 pixels; expected 2304"),
  ("fer2013_csv", "fer2013.csv", ",Training", ",Train", r"fer2013.csv:2: Usage is 'Train'; exp"),
  ("ferplus", "fer2013new.csv", "Training,", "PublicTest,", r"fer2013new.csv:2 .*'Training' in f"),
  ("ferplus", "fer2013new.csv", "png,7,3", "png,7,x", r"fer2013new.csv:2 .*happiness has 'x'"),
  ("ferplus_folders", FERPLUS, ",7,3", ",7,x", rf"{FERPLUS}:1 \(fer0.*happiness has 'x'"),
  ("ferplus_folders", FERPLUS, ",7,3", ",7", rf"{FERPLUS}:1 .*expected a name, optionally a"),
  ("ferplus_folders", FERPLUS, "48)", "x)", rf"{FERPLUS}:1 .*box '\(0, 0, 48, x\)'; expect"),
  ("ferplus_folders", FERPLUS, "(0, 0", "(48, 0", rf"{FERPLUS}:1 .*has no area; expected x1 < x2"),
  ("ferplus_folders", FERPLUS, "0000000", "9", rf"{FERPLUS}:1 .*image file not found: .*fer9.png"),
  ("expw", "label/label.lst", "97.5 2", "97.5 7", r"label.lst:3 \(photo_1.jpg\): code '7'"),
  ("expw", "label/label.lst", " 97.5 2", " 2", r"label.lst:3 .*7 fields; expected"),
  ("voc", "Annotations/train1.xml", ">happiness<", ">joyful<", r"train1.xml .*object 1: class 'j"),
  ("voc", "Annotations/train1.xml", "<xmin>11</xmin>", "", r"train1.xml .*1: malformed bndbox"),
  ("voc", "Annotations/train1.xml", "</object>", "", r"train1.xml: malformed XML"),
  ("coco_json", COCO, '"category_id": 16', '"category_id": 9', rf"{COCO}: annotations\[0\] .* 9; "),
  ("coco_json", COCO, '"bbox"', '"box"', rf"{COCO}: annotations\[0\] \(train0.jpg\): bbox None; "),
  ("coco_json", COCO, '"image_id": 500', '"image": 500', rf"{COCO}: annotations\[0\]: image_id N"),
  ("coco_json", COCO, '"image_id": 500', '"image_id": [5]', rf"{COCO}: annotations\[0\]: image_id"),
  ("coco_json", COCO, '"id": 509', '"id": 510', rf"{COCO}: images\[10\] .*510 is also used by tr"),
  ("coco_json", COCO, '"id": 509', '"nr": 509', rf"{COCO}: images\[9\] .*id None; expected a numb"),
  ("yolo_txt", "labels/train/train2.txt", "\n", " 4\n", r"labels/train/train2.txt:1 .*6 f"),
  ("yolo_txt", "labels/train/train2.txt", "2 0", "7 0", r"train2.txt:1 .*class '7'; exp"),
  ("yolo_txt", "labels/train/train2.txt", "2 0", "2 9", r"train2.txt:1 .*a box inside the image"),
  ("annotation_list", "train.txt", "45,3", "45,9", r"train.txt:4 .*class 9 is not one of"),
  ("annotation_list", "train.txt", "10,5,50", "60,5,50", r"train.txt:1 .*has no area"),
  ("csv", "labels.csv", "1.png,happiness", "1.png,joyous", r"labels.csv:3 .*class 'joyous'"),
  ("csv", "labels.csv", ",train,p1\n", ",,p1\n", r"labels.csv:4 .*the column split is empty"),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "file", "old", "new", "message"), ROWS)
def test_damaged_row(make_layout, plan_of, layout, file, old, new, message):
  root = make_layout(layout)
  _replace(root / file, old, new)
  plan = plan_of(layout, root)
  assert len(plan.problems) == 1
  assert re.search(message, plan.problems[0])
  with pytest.raises(LayoutError, match=r"1 bad records:\n .*\nFix them, or leave"):
    plan.require_no_problems("error")
  plan.require_no_problems("skip")


@pytest.mark.parametrize(
  ("layout", "table", "column"),
  [
    *(("affectnet_csv", AFFECTNET, name) for name in ("subDirectory_filePath", *FACE_COLUMNS)),
    *(("fer2013_csv", "fer2013.csv", name) for name in ("emotion", "pixels", "Usage")),
    *(("ferplus", "fer2013.csv", name) for name in ("pixels", "Usage")),
    *(("ferplus", "fer2013new.csv", name) for name in ("Usage", "Image name", *FERPLUS_COLUMNS)),
    *(("csv", "labels.csv", name) for name in ("image", "label", "split")),
  ],
)
def test_missing_column(make_layout, plan_of, layout, table, column):
  root = make_layout(layout)
  _replace(root / table, column, "other")
  with pytest.raises(
    LayoutError, match=rf"{table}:1: no column '{column}'; columns found: .*other"
  ):
    plan_of(layout, root)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_missing_list_of_coco(make_layout, plan_of, key):
  root = make_layout("coco_json")
  _replace(root / COCO, f'"{key}":', '"other":')
  with pytest.raises(LayoutError, match=rf"{COCO}: no list '{key}' of objects; expected images, "):
    plan_of("coco_json", root)


@pytest.mark.parametrize(
  ("layout", "file", "message"),
  [
    ("raf_db", RAF_LIST, rf"{RAF_LIST}: empty; expected lines"),
    ("affectnet_csv", AFFECTNET, f"{AFFECTNET}:1: no column 'subDir.*columns found: none"),
    ("fer2013_csv", "fer2013.csv", "fer2013.csv:1: no column 'emotion'.*columns found: none"),
    ("ferplus", "fer2013.csv", "fer2013.csv:1: no column 'emotion'.*columns found: none"),
    ("ferplus", "fer2013new.csv", "fer2013new.csv:1: no column 'Usage'.*columns found: none"),
    ("ferplus_folders", FERPLUS, f"{FERPLUS}: empty; expected a line for each image"),
    ("csv", "labels.csv", "labels.csv:1: no column 'image'.*columns found: none"),
    ("expw", "label/label.lst", "label.lst: empty"),
    ("voc", "ImageSets/Main/val.txt", "val.txt: empty; expected one image name per line"),
    ("coco_json", "annotations/val.json", "val.json: malformed JSON"),
    ("annotation_list", "val.txt", "val.txt: empty; expected"),
    ("yolo_txt", "classes.txt", "classes.txt: empty; expected one class name per line"),
  ],
)
def test_empty_file(make_layout, plan_of, layout, file, message):
  root = make_layout(layout)
  (root / file).write_text("")
  with pytest.raises(LayoutError, match=message):
    plan_of(layout, root)


FOLDERS = [
  ("fer2013_folders", "test/sad", "test/blue", "sadness"),
  ("sfew", "Val/Happy", "Val/Glad", "happiness"),
  ("image_folder", "train/fear", "train/fright", "fear"),
]


@pytest.mark.parametrize(("layout", "folder", "wrong", "name"), FOLDERS)
def test_folder_that_is_not_a_class(make_layout, plan_of, layout, folder, wrong, name):
  root = make_layout(layout)
  (root / folder).rename(root / wrong)
  with pytest.raises(
    LayoutError,
    match=rf"folder {re.escape(str(root / wrong))} does not match a class; known: .*{name}",
  ):
    plan_of(layout, root)


@pytest.mark.parametrize(("layout", "folder", "wrong", "name"), FOLDERS)
def test_empty_class_folder(make_layout, plan_of, layout, folder, wrong, name):
  root = make_layout(layout)
  for path in (root / folder).iterdir():
    path.unlink()
  if layout == "image_folder":  # user-defined data need not have all seven
    assert {(c.split, c.name): c.found for c in plan_of(layout, root).counts}["train", name] == 0
    return
  split = (root / folder).parent
  with pytest.raises(
    LayoutError, match=rf"no images of {name} in {re.escape(str(split))}; expected"
  ):
    plan_of(layout, root)


# (layout, name of val as released, another name, how an option names that)


@pytest.mark.parametrize(
  ("layout", "file"),
  [
    ("raf_db", RAF_LIST),
    ("affectnet_csv", AFFECTNET),
    ("expw", "label/label.lst"),
    ("voc", "ImageSets/Main/train.txt"),
    ("yolo_txt", "classes.txt"),
    ("yolo_txt", "labels/train/train0.txt"),
    ("annotation_list", "train.txt"),
    ("ferplus_folders", FERPLUS),
    ("csv", "labels.csv"),
  ],
)
def test_text_that_is_not_utf8(make_layout, plan_of, layout, file):
  root = make_layout(layout)
  lines = (root / file).read_bytes().splitlines(keepends=True)
  (root / file).write_bytes(b"".join([lines[0], b"caf\xe9 " + lines[1], *lines[2:]]))
  message = rf"{re.escape(str(root / file))}:2: not UTF-8 text; save the file as UTF-8"
  if file.startswith("labels/"):
    assert re.match(message, plan_of(layout, root).problems[0])
    return
  with pytest.raises(ValueError, match=message):
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
  np.save(root / "train_set/annotations/8_exp.npy", np.array(11))
  problems = plan_of("affectnet_npy", root).problems
  for number, message in enumerate(
    ("not a .npy file", "contains 2 values", "file not found", "label is 'happy'", "code '11' is"),
    4,
  ):
    assert re.search(
      rf"annotations/{number}_exp.npy \({number}.jpg\): .*{message}", problems[number - 4]
    )
  root = make_layout("voc")
  (root / "Annotations/train4.xml").write_text("")
  (problem,) = plan_of("voc", root).problems
  assert re.search("Annotations/train4.xml: malformed XML: no element found", problem)
  root = make_layout("yolo_txt")  # an empty file means no faces in this layout
  (root / "labels/train/train4.txt").write_text("")
  plan = plan_of("yolo_txt", root)
  assert plan.problems == []
  (root / "labels/train/train4.txt").unlink()
  (problem,) = plan_of("yolo_txt", root).problems
  assert re.search("labels/train/train4.txt .*file not found.*has an empty one", problem)


@pytest.mark.parametrize(
  "content", [b"PK\x03\x04 no zip", b"\x93NUMPY\x01\x00\xff\xff{'descr'", b"\x80\x04pickle", b"3\n"]
)
def test_foreign_label_files_are_bad_records(make_layout, plan_of, content):
  root = make_layout("affectnet_npy")
  (root / "train_set/annotations/4_exp.npy").write_bytes(content)
  (problem,) = plan_of("affectnet_npy", root).problems
  assert re.search(r"train_set/annotations/4_exp.npy \(4.jpg\): not a .npy file", problem)


def test_options_that_a_set_does_not_have(make_layout, plan_of):
  root = make_layout("fer2013_csv")
  for options, message in (
    (Options(task="detection"), "FER2013 has no task 'detection'; known: classification"),
    (Options(rule="mode"), "unknown rule 'mode'; known: majority, probability"),
    (Options(class_names=("happy", "sad")), "FER2013 has 7 classes: neutral, .*; got happy, sad"),
  ):
    with pytest.raises(ValueError, match=message):
      plan_of(
        "fer2013_csv", root, **{k: getattr(options, k) for k in ("task", "rule", "class_names")}
      )

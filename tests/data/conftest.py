"""Miniature data sets of the released layouts, with distinct images."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from ferjax.data.datasets.base import Options
from ferjax.data.datasets.catalog import find_data_set
from ferjax.data.preparation.plan import Splitting, make_plan
from ferjax.expressions import EXPRESSIONS, FERPLUS_COLUMNS, SEVEN_EXPRESSIONS


def _draw(path, number, width=60, height=50):
  """An image of smooth random blobs, distinct for each number."""
  path.parent.mkdir(parents=True, exist_ok=True)
  coarse = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
  Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path)


def _raf_db(root):
  lines = []
  for split, count, name in (("train", 40, "train_{:05d}"), ("test", 7, "test_{:04d}")):
    for i in range(count):
      stem = name.format(i + 1)
      lines.append(f"{stem}.jpg {i % 7 + 1}")
      number = i + 1000 * (split == "test")
      _draw(root / f"basic/Image/original/{stem}.jpg", number, 90, 80)
      _draw(root / f"basic/Image/aligned/{stem}_aligned.jpg", number, 100, 100)
      box = root / f"basic/Annotation/boundingbox/{stem}_boundingbox.txt"
      box.parent.mkdir(parents=True, exist_ok=True)
      box.write_text("10.5 12 70.25 66\n")
  (root / "basic/EmoLabel").mkdir(parents=True)
  (root / "basic/EmoLabel/list_patition_label.txt").write_text("\n".join(lines) + "\n")


def _affectnet_csv(root):
  header = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression"
  for split, count in (("training", 33), ("validation", 11)):
    rows = [f"{header},valence,arousal"]
    for i in range(count):
      name = f"{i % 3}/{split}{i}.jpg"
      rows.append(f"{name},10,5,30,40,1;2;3;4,{i % 11},0.1,0.2")
      _draw(root / "Manually_Annotated_Images" / name, i + 1000 * (split == "validation"))
    path = root / f"Manually_Annotated_file_lists/{split}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")


def _affectnet_npy(root):
  for split, count in (("train_set", 24), ("val_set", 8)):
    (root / split / "annotations").mkdir(parents=True)
    for i in range(count):
      _draw(root / split / "images" / f"{i}.jpg", i + 1000 * (split == "val_set"))
      value = (np.array(str(i % 8)), np.array(i % 8), np.array([float(i % 8)]))[i % 3]
      np.save(root / split / "annotations" / f"{i}_exp.npy", value)


def _grey(number):
  coarse = np.random.default_rng(number).integers(0, 256, (6, 6), np.uint8)
  return np.asarray(Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC))


def _fer2013_csv(root):
  usages = ["Training"] * 21 + ["PublicTest"] * 7 + ["PrivateTest"] * 7
  root.mkdir(parents=True, exist_ok=True)
  with open(root / "fer2013.csv", "w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["emotion", "pixels", "Usage"])
    for i, usage in enumerate(usages):
      table.writerow([i % 7, " ".join(map(str, _grey(i).ravel())), usage])


def _class_folders(root, folders, names, count, size=(60, 50), file="{:04d}.png"):
  number = 0
  for folder in folders:
    for name in names:
      for _ in range(count):
        _draw(root / folder / name / file.format(number), number, *size)
        number += 1


def _fer2013_folders(root):
  names = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
  _class_folders(root, ("train", "test"), names, 10, (48, 48))


def _ferplus(root):
  _fer2013_csv(root)
  with open(root / "fer2013new.csv", "w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["Usage", "Image name", *FERPLUS_COLUMNS])
    usages = ["Training"] * 21 + ["PublicTest"] * 7 + ["PrivateTest"] * 7
    for i, usage in enumerate(usages):
      votes = [0] * 10
      votes[i % 8], votes[(i + 1) % 8] = 7, 3
      table.writerow([usage, "" if i == 3 else f"fer{i:07d}.png", *votes])


def _ferplus_folders(root):
  """The same images and votes; the removed face has no line."""
  folders = {"FER2013Train": range(21), "FER2013Valid": range(21, 28), "FER2013Test": range(28, 35)}
  for folder, numbers in folders.items():
    lines = []
    for i in (i for i in numbers if i != 3):
      votes = [0] * 10
      votes[i % 8], votes[(i + 1) % 8] = 7, 3
      name = f"fer{i:07d}.png"
      lines.append(f'{name},"(0, 0, 48, 48)",{",".join(map(str, votes))}\n')
      path = root / "data" / folder / name
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(_grey(i)).save(path)
    (root / "data" / folder / "label.csv").write_text("".join(lines))


def _sfew(root):
  names = ("Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")
  file = "Film{:04d}_001530123_00000012.png"
  _class_folders(root, ("Train",), names, 3, (143, 181), file)
  for i, name in enumerate(names):
    _draw(root / "Val" / name / f"Other_00153{i}123_00000012.png", 5000 + i, 143, 181)


def _expw(root):
  lines = []
  for i in range(40):
    name = f"photo_{i // 2}.jpg"
    left = 5 + 40 * (i % 2)
    lines.append(f"{name} {i % 2} 10 {left} {left + 34} 60 97.5 {i % 7}")
    _draw(root / "image/origin" / name, i // 2, 90, 80)
  (root / "label").mkdir(parents=True)
  (root / "label/label.lst").write_text("\n".join(lines) + "\n")


_SPLITS = {"train": 20, "val": 7}


def _photographs():
  """(split, name, number, width, height, faces): a face is x1, y1, x2, y2, class."""
  number = 0
  for split, count in _SPLITS.items():
    for i in range(count):
      faces = [(10, 5, 50, 45, i % 7), (55, 8, 85, 48, (i + 3) % 7)][: i % 3 if i > 6 else 2]
      yield split, f"{split}{i}.jpg", number, 90, 60, faces
      number += 1


def _voc(root):
  (root / "Annotations").mkdir(parents=True)
  (root / "ImageSets/Main").mkdir(parents=True)
  names = {split: [] for split in _SPLITS}
  for split, name, number, width, height, faces in _photographs():
    _draw(root / "JPEGImages" / name, number, width, height)
    objects = "".join(
      f"<object><name>{SEVEN_EXPRESSIONS[c]}</name><bndbox><xmin>{x1 + 1}</xmin>"
      f"<ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
      for x1, y1, x2, y2, c in faces
    )
    stem = name.removesuffix(".jpg")
    (root / f"Annotations/{stem}.xml").write_text(
      f"<annotation><filename>{name}</filename><size><width>{width}</width>"
      f"<height>{height}</height><depth>3</depth></size>{objects}</annotation>"
    )
    names[split].append(stem)
  for split, stems in names.items():
    (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(stems) + "\n")


def _coco_json(root):
  # Ids that are not the positions in the lists.
  categories = [{"id": 10 + i, "name": name} for i, name in enumerate(SEVEN_EXPRESSIONS[::-1])]
  content = {
    split: {"images": [], "annotations": [], "categories": categories} for split in _SPLITS
  }
  for split, name, number, width, height, faces in _photographs():
    _draw(root / "images" / name, number, width, height)
    image = {"id": 500 + number, "file_name": name, "width": width, "height": height}
    content[split]["images"].append(image)
    for x1, y1, x2, y2, c in faces:
      face = {"image_id": 500 + number, "category_id": 16 - c, "iscrowd": 0}
      content[split]["annotations"].append({**face, "bbox": [x1, y1, x2 - x1, y2 - y1]})
  (root / "annotations").mkdir()
  for split, value in content.items():
    (root / f"annotations/{split}.json").write_text(json.dumps(value))


def _yolo_txt(root):
  for split, name, number, width, height, faces in _photographs():
    _draw(root / "images" / split / name, number, width, height)
    lines = [
      f"{c} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} {(x2 - x1) / width} "
      f"{(y2 - y1) / height}\n"
      for x1, y1, x2, y2, c in faces
    ]
    path = root / "labels" / split / name.replace(".jpg", ".txt")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines))
  (root / "classes.txt").write_text("\n".join(SEVEN_EXPRESSIONS) + "\n")


def _annotation_list(root):
  lines = {split: [] for split in _SPLITS}
  for split, name, number, width, height, faces in _photographs():
    _draw(root / "images" / name, number, width, height)
    boxes = "".join(f" {x1},{y1},{x2},{y2},{c}" for x1, y1, x2, y2, c in faces)
    lines[split].append(f"images/{name}{boxes}\n")
  for split, text in lines.items():
    (root / f"{split}.txt").write_text("".join(text))


def _image_folder(root):
  _class_folders(root, ("train", "val"), SEVEN_EXPRESSIONS, 2)


def _csv(root):
  rows = ["image,label,split,person"]
  for i in range(60):
    name = f"images/{i}.png"
    _draw(root / name, i)
    split = "train" if i < 46 else "test"
    rows.append(f"{name},{SEVEN_EXPRESSIONS[i % 7]},{split},p{i // 2}")
  (root / "labels.csv").write_text("\n".join(rows) + "\n")


# Layout -> data set, and how it is written.
LAYOUTS = {
  "raf_db": ("raf_db", _raf_db),
  "affectnet_csv": ("affectnet", _affectnet_csv),
  "affectnet_npy": ("affectnet", _affectnet_npy),
  "fer2013_csv": ("fer2013", _fer2013_csv),
  "fer2013_folders": ("fer2013", _fer2013_folders),
  "ferplus": ("ferplus", _ferplus),
  "ferplus_folders": ("ferplus", _ferplus_folders),
  "sfew": ("sfew", _sfew),
  "expw": ("expw", _expw),
  "voc": ("voc", _voc),
  "coco_json": ("coco_json", _coco_json),
  "yolo_txt": ("yolo_txt", _yolo_txt),
  "annotation_list": ("annotation_list", _annotation_list),
  "image_folder": ("image_folder", _image_folder),
  "csv": ("csv", _csv),
}


@pytest.fixture(scope="session")
def layout_names():
  return tuple(LAYOUTS)


@pytest.fixture(scope="session")
def layout_sets():
  """Layout name -> name of its data set."""
  return {layout: name for layout, (name, _) in LAYOUTS.items()}


@pytest.fixture
def make_layout(tmp_path):
  """layout name -> the folder, newly written."""

  def make(layout):
    root = tmp_path / layout
    root.mkdir()
    LAYOUTS[layout][1](root)
    return root

  return make


@pytest.fixture
def plan_of():
  """(layout, folder, options, splitting) -> its plan."""

  def plan(layout, root, *, splitting=None, **options):
    if layout.startswith("affectnet") and "class_names" not in options:
      options["class_names"] = EXPRESSIONS
    return make_plan(
      find_data_set(LAYOUTS[layout][0]), root, Options(**options), splitting or Splitting()
    )

  return plan


@pytest.fixture
def draw():
  return _draw

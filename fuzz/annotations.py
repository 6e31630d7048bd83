"""Annotation files: one file of a small data set of each layout is replaced."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping

import numpy as np
from PIL import Image

from ferjax.data.datasets.base import Options
from ferjax.data.datasets.catalog import find_data_set
from ferjax.data.datasets.entries import RecordError
from ferjax.data.examples import load
from ferjax.data.image import ImageError
from ferjax.expressions import EXPRESSIONS, FERPLUS_COLUMNS, SEVEN_EXPRESSIONS
from fuzz.checks import folder, user_errors

_LISTED = 40  # lines of a message about a layout, or about the first bad records
_SIZE = (30, 20)  # of every image, pixels


@dataclasses.dataclass(frozen=True)
class Layout:
  """A data set and the file in it that is replaced.

  Attributes:
    name: of the data set.
    file: below its folder.
    text: a right content of the file.
    images, files: the rest of the folder.
    task: "" for the set's first.
    class_names: () for the set's own.
  """

  name: str
  file: str
  text: str
  images: tuple[str, ...] = ("images/a.png", "images/b c.png")
  files: Mapping[str, str] = dataclasses.field(default_factory=dict)
  task: str = ""
  class_names: tuple[str, ...] = ()


_NPY = "\x93NUMPY\x01\x00v\x00{'descr': '<i8', 'fortran_order': False, 'shape': (), }".ljust(127)
_NPY += "\n\x03" + "\0" * 7  # the number 3
_PIXELS = " ".join(["7"] * 48 * 48)
_VOTES = ",".join(FERPLUS_COLUMNS)
_XML = (
  "<annotation><filename>a.png</filename><size><width>30</width><height>20</height></size>"
  "<object><name>happiness</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>20</xmax>"
  "<ymax>19</ymax></bndbox></object></annotation>"
)
_COCO = (
  '{"images": [{"id": 1, "file_name": "a.png", "width": 30, "height": 20}, {"id": 2, '
  '"file_name": "b c.png"}], "annotations": [{"image_id": 1, "category_id": 3, "iscrowd": 0, '
  '"bbox": [1, 2, 10.5, 9]}], "categories": [{"id": 3, "name": "fear"}]}'
)
_TABLE = "subDirectory_filePath,face_x,face_y,face_width,face_height,expression\n"
_VOC = {"ImageSets/Main/train.txt": "a\n", "Annotations/a.xml": _XML}
_VOC_IMAGES = ("JPEGImages/a.png",)
_YOLO_IMAGES = ("images/train/a.png", "images/train/b.png")
_YOLO = {
  "labels/train/a.txt": "0 0.5 0.5 0.2 0.3\n",
  "labels/train/b.txt": "",
  "classes.txt": "fear\n",
}
_RAF_LIST = "basic/EmoLabel/list_patition_label.txt"
_RAF_BOX = "basic/Annotation/boundingbox/train_1_boundingbox.txt"
_RAF = {_RAF_LIST: "train_1.jpg 5\ntest_1.jpg 1\n", _RAF_BOX: "1.5 2 20 18\n"}
_RAF |= {_RAF_BOX.replace("train", "test"): "1.5 2 20 18\n"}
_RAF_IMAGES = (
  "basic/Image/aligned/train_1_aligned.jpg",
  "basic/Image/aligned/test_1_aligned.jpg",
  "basic/Image/original/train_1.jpg",
  "basic/Image/original/test_1.jpg",
)
_AFFECTNET_TABLE = "Manually_Annotated_file_lists/training.csv"
_FER2013 = {"fer2013.csv": f"emotion,pixels,Usage\n3,{_PIXELS},Training\n0,{_PIXELS},PublicTest\n"}
_FERPLUS_LINE = 'a.png,"(0, 0, 48, 48)",7,3,0,0,0,0,0,0,0,0\n'

LAYOUTS = {
  "annotation_list": Layout(
    "annotation_list", "train.txt", "images/a.png 1,2,10.5,9,0 3,4,20,19,-1\nimages/b c.png\n"
  ),
  "coco_json": Layout("coco_json", "annotations/train.json", _COCO),
  "csv": Layout(
    "csv",
    "labels.csv",
    'image,label,split,person\nimages/a.png,Happy,train,x\n"images/b c.png",fear,val,\n',
  ),
  "csv_boxes": Layout(
    "csv",
    "labels.csv",
    "image,label,split,x1,y1,x2,y2\nimages/a.png,fear,train,1,2,10.5,9\n"
    "images/b c.png,,train,,,,\n",
    task="detection",
  ),
  "voc_xml": Layout("voc", "Annotations/a.xml", _XML, _VOC_IMAGES, _VOC),
  "voc_set": Layout("voc", "ImageSets/Main/train.txt", "a\n", _VOC_IMAGES, _VOC),
  "yolo_txt": Layout(
    "yolo_txt", "labels/train/a.txt", _YOLO["labels/train/a.txt"], _YOLO_IMAGES, _YOLO
  ),
  "yolo_classes": Layout("yolo_txt", "classes.txt", "Happy\nfear\n", _YOLO_IMAGES, _YOLO),
  "raf_db_list": Layout("raf_db", _RAF_LIST, _RAF[_RAF_LIST], _RAF_IMAGES, _RAF),
  "raf_db_box": Layout("raf_db", _RAF_BOX, _RAF[_RAF_BOX], _RAF_IMAGES, _RAF, "detection"),
  "affectnet_table": Layout(
    "affectnet",
    _AFFECTNET_TABLE,
    f"{_TABLE}1/a.png,2,3,10,9,1\n",
    ("Manually_Annotated_Images/1/a.png",),
    {"Manually_Annotated_file_lists/validation.csv": f"{_TABLE}1/a.png,2,3,10,9,0\n"},
    class_names=EXPRESSIONS,
  ),
  "affectnet_npy": Layout(
    "affectnet",
    "train_set/annotations/1_exp.npy",
    _NPY,
    ("train_set/images/1.jpg", "val_set/images/2.jpg"),
    {"val_set/annotations/2_exp.npy": _NPY},
    class_names=EXPRESSIONS,
  ),
  "fer2013": Layout("fer2013", "fer2013.csv", _FER2013["fer2013.csv"], ()),
  "ferplus_table": Layout(
    "ferplus",
    "fer2013new.csv",
    f"Usage,Image name,{_VOTES}\nTraining,a.png,7,3,0,0,0,0,0,0,0,0\n"
    "PublicTest,b.png,0,0,9,1,0,0,0,0,0,0\n",
    (),
    _FER2013,
    class_names=EXPRESSIONS,
  ),
  "ferplus_folders": Layout(
    "ferplus",
    "data/FER2013Train/label.csv",
    _FERPLUS_LINE,
    tuple(f"data/FER2013{name}/a.png" for name in ("Train", "Valid", "Test")),
    {f"data/FER2013{name}/label.csv": _FERPLUS_LINE for name in ("Valid", "Test")},
    class_names=EXPRESSIONS,
  ),
  "expw": Layout("expw", "label/label.lst", "a.jpg 0 2 3 20 18 97.5 2\n", ("image/origin/a.jpg",)),
}


@functools.cache
def _root(name: str) -> pathlib.Path:
  """The folder of a layout, without the file that is replaced."""
  root, layout = folder() / name, LAYOUTS[name]
  root.mkdir()
  noise = np.random.default_rng(0).integers(0, 256, (_SIZE[1], _SIZE[0], 3), np.uint8)
  for image in layout.images:
    (root / image).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(root / image)
  for file, text in (layout.files | {layout.file: ""}).items():
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_bytes(text.encode("latin-1"))
  return root


def seeds() -> dict[str, bytes]:
  """A right input for each layout."""
  return {
    name: bytes([number]) + layout.text.encode("latin-1")
    for number, (name, layout) in enumerate(LAYOUTS.items())
  }


def read_annotations(data: bytes) -> None:
  """Reads the data set whose number is the first byte, with the rest as the content of its file."""
  names = list(LAYOUTS)
  number = data[0] if data else 0
  read_layout(names[number % len(names)], data[1:])


def read_layout(name: str, content: bytes) -> None:
  """Reads a data set with this content of its file, and opens the images of its entries."""
  layout, root = LAYOUTS[name], _root(name)
  (root / layout.file).write_bytes(content)
  data_set = find_data_set(layout.name)
  with user_errors(lines=_LISTED):
    names = layout.class_names or (
      SEVEN_EXPRESSIONS if data_set.class_counts else ("happiness", "fear")
    )
    options = data_set.complete(Options(task=layout.task, class_names=names))
    _, reading = data_set.read(root, options)
    for problem in reading.problems:
      assert len(problem.splitlines()) == 1, problem
    for entry in reading.entries:
      assert all(-1 <= c < len(names) for c in entry.classes)
      if isinstance(entry.image, str):
        assert pathlib.Path(entry.image).resolve().is_relative_to(root.resolve()), entry.image
      try:
        loaded = load(entry, overhang=data_set.overhang, margin=0.1)
      except (ImageError, RecordError):
        continue
      height, width = loaded.image.shape[:2]
      assert 0 < width <= 60
      assert 0 < height <= 60
      assert np.isfinite(loaded.boxes).all()
      assert ((loaded.boxes >= 0) & (loaded.boxes <= max(width, height))).all()

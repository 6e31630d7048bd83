"""The data sets by name: a new one is a file in this folder and a line in the list below."""

from ferjax.data.datasets.affectnet import AFFECTNET
from ferjax.data.datasets.annotation_list import ANNOTATION_LIST
from ferjax.data.datasets.base import DataSet
from ferjax.data.datasets.coco_json import COCO_JSON
from ferjax.data.datasets.csv_table import CSV
from ferjax.data.datasets.expw import EXPW
from ferjax.data.datasets.fer2013 import FER2013
from ferjax.data.datasets.ferplus import FERPLUS
from ferjax.data.datasets.image_folder import IMAGE_FOLDER
from ferjax.data.datasets.raf_db import RAF_DB
from ferjax.data.datasets.sfew import SFEW
from ferjax.data.datasets.voc import VOC
from ferjax.data.datasets.yolo_txt import YOLO_TXT

DATA_SETS: dict[str, DataSet] = {}
SYNTHETIC = ("synthetic", "synthetic_faces")  # sources without files
COMPOSED = "composed_scenes"  # the source of faces of another set, pasted into photographs
PREPARED = "prepared"  # the source of any set that `ferjax data prepare` wrote


def register_data_set(data_set: DataSet) -> None:
  """Registers a set for `ferjax data` and as a training source.

  Raises:
    ValueError: the name is taken.
  """
  name = data_set.name
  if name in (*SYNTHETIC, COMPOSED, PREPARED) or DATA_SETS.get(name, data_set) is not data_set:
    raise ValueError(f"the name {name!r} of {data_set.title} is taken; choose another")
  DATA_SETS[name] = data_set


def find_data_set(name: str) -> DataSet:
  """The data set with this name; a ValueError lists the known ones."""
  if name not in DATA_SETS:
    raise ValueError(f"unknown data set {name!r}; known: {', '.join(DATA_SETS)}")
  return DATA_SETS[name]


for _data_set in (
  RAF_DB,
  AFFECTNET,
  FER2013,
  FERPLUS,
  SFEW,
  EXPW,
  VOC,
  COCO_JSON,
  YOLO_TXT,
  ANNOTATION_LIST,
  IMAGE_FOLDER,
  CSV,
):
  register_data_set(_data_set)

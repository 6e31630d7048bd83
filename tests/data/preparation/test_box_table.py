"""Tables of boxes: their rows are read back as the same records."""

import csv

import numpy as np
import pytest
from PIL import Image

from ferjax.data.datasets.base import Options
from ferjax.data.datasets.catalog import find_data_set
from ferjax.data.datasets.entries import Entry, RecordError
from ferjax.data.examples import load
from ferjax.data.preparation.box_table import BoxTable
from ferjax.data.preparation.plan import Splitting, make_plan

NAMES = ("neutral", "happiness")


@pytest.fixture
def folder(tmp_path):
  for name in ("a.png", "sub/b.png"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    Image.new("RGB", (40, 30)).save(tmp_path / name)
  return tmp_path


def _plan(folder, name, table="labels.csv"):
  options = Options(task="detection", class_names=NAMES, table=table)
  return make_plan(find_data_set(name), folder, options, Splitting(0.0))


def _write(plan, folder, out):
  table = BoxTable(plan, folder)
  for entries in plan.entries.values():
    for entry in entries:
      table.check_path(entry)
      assert len(table.add(entry, load(entry, overhang=2.0, margin=0.0))) == len(entry.boxes)
  table.write(out)
  with open(out, newline="", encoding="utf-8") as file:
    return list(csv.reader(file))


def _records(plan):
  return {
    (split, entry.key, entry.classes, entry.group): np.array(entry.boxes).tolist()
    for split, entries in plan.entries.items()
    for entry in entries
  }


def test_annotation_list(folder):
  """Boxes are clipped to the image; an image without faces has one row."""
  (folder / "train.txt").write_text("a.png -1,2.25,41,20,1 3,4,9.5,12,-1\n")
  (folder / "val.txt").write_text("sub/b.png\n")
  plan = _plan(folder, "annotation_list")
  assert _write(plan, folder, folder / "out.csv") == [
    ["image", "label", "split", "x1", "y1", "x2", "y2"],
    ["a.png", "happiness", "train", "0", "2.25", "40", "20"],
    ["a.png", "unknown", "train", "3", "4", "9.5", "12"],
    ["sub/b.png", "", "val", "", "", "", ""],
  ]
  read = _records(_plan(folder, "csv", "out.csv"))
  assert read.keys() == _records(plan).keys()
  assert read["train", "a.png", (1, -1), ""] == [[0, 2.25, 40, 20], [3, 4, 9.5, 12]]


def test_csv_table_moves_to_another_folder(folder):
  text = "x1,label,person,image,split,y1,x2,y2\n1,Happy,p,a.png,val,2,20,22\n"
  text += "5,unknown,p2,b.png,train,6,9,10\n"
  (folder / "sub/labels.csv").write_text(text)
  plan = _plan(folder, "csv", "sub/labels.csv")
  rows = _write(plan, folder, folder / "out.csv")
  assert rows == [line.split(",") for line in text.replace("b.png", "sub/b.png").splitlines()]
  assert _records(_plan(folder, "csv", "out.csv")) == _records(plan)


def test_file_name_that_is_not_text(folder):
  (folder / "train.txt").write_text("a.png 1,2,30,20,1\n")
  table = BoxTable(_plan(folder, "annotation_list"), folder)
  entry = Entry("train.txt:1", "x", f"{folder}/\udce9.png", "train", (), boxes=())
  with pytest.raises(RecordError, match=r"bytes that are not UTF-8.*rename the file"):
    table.check_path(entry)

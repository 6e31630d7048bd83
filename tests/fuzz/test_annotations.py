"""An annotation of unknown origin names no file outside the folder of its data set."""

import pytest
from PIL import Image

from ferjax.data.datasets.base import Options
from ferjax.data.datasets.catalog import find_data_set
from ferjax.data.datasets.entries import LayoutError
from fuzz.annotations import LAYOUTS

# Layout -> the file with a name that leaves the folder.
ESCAPING = {
  "annotation_list": "{}/secret.png 1,2,10,9,0\n",
  "csv": "image,label,split\n{}/secret.png,fear,train\n",
  "csv_boxes": "image,label,split,x1,y1,x2,y2\n{}/secret.png,fear,train,1,2,10,9\n",
  "voc_set": "../{}/secret\n",
  "coco_json": '{{"images": [{{"id": 1, "file_name": "{}/secret.png"}}], "annotations": [], '
  '"categories": []}}',
  "expw": "../../{}/secret.png 0 2 3 20 18 97.5 2\n",
  "affectnet_table": LAYOUTS["affectnet_table"].text.replace("1/a.png", "../{}/secret.png"),
  "ferplus_folders": LAYOUTS["ferplus_folders"].text.replace("a.png", "../../{}/secret.png"),
}


@pytest.fixture
def read(tmp_path):
  """Writes a layout with another content of its file, and reads it; `secret.png` is outside."""
  Image.new("RGB", (30, 20)).save(tmp_path / "secret.png")
  (tmp_path / "secret.xml").write_text("<annotation/>")

  def make(name, content):
    root, layout = tmp_path / "set", LAYOUTS[name]
    for image in layout.images:
      (root / image).parent.mkdir(parents=True, exist_ok=True)
      Image.new("RGB", (30, 20)).save(root / image)
    for file, text in (*layout.files.items(), (layout.file, content)):
      (root / file).parent.mkdir(parents=True, exist_ok=True)
      (root / file).write_text(text)
    data_set = find_data_set(layout.name)
    names = layout.class_names or (() if data_set.class_counts else ("happiness", "fear"))
    options = Options(task=layout.task, class_names=names)
    return data_set.read(root, data_set.complete(options))[1]

  return make


@pytest.mark.parametrize("name", ESCAPING)
def test_names_with_dots(read, name):
  with pytest.raises(LayoutError, match=r"secret\.\w+ is outside the folder of the data set; move"):
    read(name, ESCAPING[name].format(".."))


@pytest.mark.parametrize("name", ["voc_set", "coco_json", "expw", "affectnet_table"])
def test_absolute_names(read, tmp_path, name):
  with pytest.raises(LayoutError, match=r"secret\.\w+ is outside the folder|not found"):
    read(name, ESCAPING[name].replace("../", "").format(tmp_path))


@pytest.mark.parametrize("name", ["annotation_list", "csv", "csv_boxes"])
def test_an_absolute_path_is_the_choice_of_the_user(read, tmp_path, name):
  (entry,) = read(name, ESCAPING[name].format(tmp_path)).entries
  assert entry.image == str(tmp_path / "secret.png")


def test_a_link_in_the_folder_is_the_choice_of_the_user(read, tmp_path):
  (tmp_path / "set").mkdir()
  (tmp_path / "set" / "link").symlink_to(tmp_path, target_is_directory=True)
  (entry,) = read("annotation_list", "link/secret.png 1,2,10,9,0\n").entries
  assert entry.image.endswith("secret.png")

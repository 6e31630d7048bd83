"""SFEW 2.0: frames of films, in one folder per class.

Dhall, Goecke, Lucey, Gedeon, "Static Facial Expression Analysis in Tough Conditions", ICCV
workshops 2011. The labels of its test split are not public. Layout and counts: spec: datasets.
"""

import pathlib
import re
from collections.abc import Mapping

from ferjax.data.datasets.base import DataSet, Options, Reading, Release
from ferjax.data.datasets.image_folder import read_class_folders

_FOLDERS = {"train": "Train", "val": "Val"}
_NAME = re.compile(r"(?P<clip>.+_\d{9})_\d+")  # <Movie>_<HHMMSSmmm>_<frame>


def clip_of(path: pathlib.PurePath) -> str:
  """Film and time of a frame; "" for other file names."""
  match = _NAME.fullmatch(path.stem)
  return match["clip"] if match else ""


def _read(root: pathlib.Path, options: Options) -> Reading:
  return read_class_folders(root, _FOLDERS, options, group_of=clip_of, every_class=True)


def _official(options: Options) -> Mapping[str, Mapping[str, int]]:
  return {"train": {"total": 958}, "val": {"total": 436}}


SFEW = DataSet(
  name="sfew",
  title="SFEW 2.0",
  terms="for research only, after an agreement with its authors; text and counts not verified",
  request="Request it from its authors (https://users.cecs.anu.edu.au/~few_group/AFEW.html); "
  "unpack it so that DIR/Train/<class>/ and DIR/Val/<class>/ exist, with frames or aligned faces",
  releases=(
    Release(
      "folders",
      lambda root, options: {
        name: f"a folder for each class, of the {split} split" for split, name in _FOLDERS.items()
      },
      _read,
      _official,
    ),
  ),
  class_counts=(7,),
)

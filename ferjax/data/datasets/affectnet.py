"""AffectNet, as tables with face boxes, or as cropped faces with a file for each label.

Mollahosseini, Hasani, Mahoor, "AffectNet: A Database for Facial Expression, Valence, and Arousal
Computing in the Wild", IEEE TAC 2017. Layouts and counts: spec: datasets. There is no public test
split.
"""

import functools
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from ferjax.data.datasets.layout import (
  DataSet,
  Entry,
  LayoutError,
  Options,
  Reading,
  Release,
  code_index,
  parse_number,
  relative_key,
)
from ferjax.data.datasets.records import RecordError, check_box, check_image_file
from ferjax.data.datasets.tables import Row, read_rows
from ferjax.expressions import AFFECTNET_CODES, AFFECTNET_WITHOUT_EXPRESSION

_LISTS = "Manually_Annotated_file_lists"
_IMAGES = "Manually_Annotated_Images"
_TABLES = {"train": f"{_LISTS}/training.csv", "val": f"{_LISTS}/validation.csv"}
_FOLDERS = {"train": "train_set", "val": "val_set"}
_PATH = "subDirectory_filePath"
_FACE = ("face_x", "face_y", "face_width", "face_height")
_CODES = {**AFFECTNET_CODES, **AFFECTNET_WITHOUT_EXPRESSION}
# Neutral, happiness, sadness, surprise, fear, disgust, anger, contempt.
_TRAIN = (74874, 134415, 25459, 14090, 6378, 3803, 24882, 3750)


def _expected_tables(root: pathlib.Path, options: Options) -> dict[str, str]:
  tables = {path: f"table of the {split} split" for split, path in _TABLES.items()}
  return {**tables, _IMAGES: "images, in numbered folders"}


def _expected_folders(root: pathlib.Path, options: Options) -> dict[str, str]:
  paths = {}
  for split, folder in _FOLDERS.items():
    paths[f"{folder}/images"] = f"<id>.jpg of the {split} split"
    paths[f"{folder}/annotations"] = f"<id>_exp.npy of the {split} split"
  return paths


def _read_tables(root: pathlib.Path, options: Options) -> Reading:
  reading = Reading()
  for split, path in _TABLES.items():
    parse = functools.partial(_parse_row, root=root, table=path, split=split, options=options)
    reading.add_all(read_rows(root / path, (_PATH, *_FACE, "expression")), parse)
  return reading


def _parse_row(
  row: Row, *, root: pathlib.Path, table: str, split: str, options: Options
) -> Entry | str:
  line, cells = row
  origin = f"{table}:{line} ({cells[_PATH]})"
  label = _label(cells["expression"], options, origin)
  if isinstance(label, str):
    return label
  if not cells[_PATH]:
    raise RecordError(f"{table}:{line}: the column {_PATH} is empty")
  path = root / _IMAGES / cells[_PATH]
  check_image_file(path, origin)
  x, y, width, height = (parse_number(cells[name], name, origin) for name in _FACE)
  face = (x, y, x + width, y + height)
  check_box(face, origin)
  return Entry(origin, relative_key(path, root), str(path), split, label, crop=face)


def _label(code: str, options: Options, origin: str) -> int | str:
  """A class index, or why the row is left out."""
  name = _CODES.get(int(code)) if code.isdecimal() else None
  if name is not None and name not in options.class_names:
    return f"expression {name!r}"
  return code_index(code, AFFECTNET_CODES, options.class_names, origin)


def _read_folders(root: pathlib.Path, options: Options) -> Reading:
  reading = Reading()
  for split, folder in _FOLDERS.items():
    names = sorted(os.listdir(root / folder / "images"))
    stems = [pathlib.PurePath(name) for name in names if not name.startswith(".")]
    if not stems:
      raise LayoutError(f"no images in {root / folder / 'images'}; expected <id>.jpg")
    parse = functools.partial(_parse_file, root=root, folder=folder, split=split, options=options)
    reading.add_all(stems, parse)
    known = {path.stem for path in stems}
    for name in sorted(os.listdir(root / folder / "annotations")):
      image = name.removesuffix("_exp.npy")
      if image != name and image not in known:
        path = root / folder / "images" / f"{image}.jpg"
        reading.problems.append(f"{folder}/annotations/{name}: image file not found: {path}")
  return reading


def _parse_file(
  name: pathlib.PurePath, *, root: pathlib.Path, folder: str, split: str, options: Options
) -> Entry | str:
  path = root / folder / "images" / name
  label_file = f"{folder}/annotations/{name.stem}_exp.npy"
  origin = f"{label_file} ({name})"
  try:
    value = np.load(root / label_file, allow_pickle=False)
  except FileNotFoundError:
    raise RecordError(f"{origin}: file not found: {root / label_file}") from None
  except (ValueError, EOFError) as error:
    raise RecordError(f"{origin}: not a .npy file with one number: {error}") from error
  if value.size != 1:
    raise RecordError(f"{origin}: holds {value.size} values; expected one number")
  number = parse_number(str(value.item()), "the label", origin)
  code = str(int(number)) if number == int(number) else str(number)
  label = _label(code, options, origin)
  if isinstance(label, str):
    return label
  return Entry(origin, relative_key(path, root), str(path), split, label)


def _official_tables(options: Options) -> Mapping[str, Mapping[str, int]]:
  names = options.class_names
  train = dict(zip(names, _TRAIN, strict=False))
  return {
    "train": {**train, "total": sum(train.values())},
    "val": {**dict.fromkeys(names, 500), "total": 500 * len(names)},
  }


def _official_folders(options: Options) -> Mapping[str, Mapping[str, int]]:
  return {"val": {"total": 3999 if len(options.class_names) == 8 else 3500}}


AFFECTNET = DataSet(
  name="affectnet",
  title="AffectNet",
  terms="for research only, after an agreement with its authors; text not verified",
  request="Ask its authors by the form at http://mohammadmahoor.com/affectnet/, signed by a "
  "professor or head of research; unpack it as it comes",
  releases=(
    Release("csv", _expected_tables, _read_tables, _official_tables),
    Release("npy", _expected_folders, _read_folders, _official_folders),
  ),
  class_counts=(7, 8),
)

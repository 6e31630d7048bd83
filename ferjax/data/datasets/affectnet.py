"""AffectNet, as tables with face boxes, or as cropped faces with one label file each.

Mollahosseini, Hasani, Mahoor, "AffectNet: A Database for Facial Expression, Valence, and Arousal
Computing in the Wild", IEEE TAC 2017. Layouts and counts: spec: datasets. There is no public test
split.
"""

import functools
import io
import os
import pathlib
import tokenize
import warnings
from collections.abc import Mapping

import numpy as np

from ferjax.data.datasets.base import DataSet, Options, Reading, Release
from ferjax.data.datasets.entries import Entry, RecordError
from ferjax.data.datasets.parsing import (
  TableRow,
  check_box,
  check_image_file,
  code_index,
  parse_number,
  read_file,
  read_rows,
  relative_key,
  whole_number,
)
from ferjax.expressions import AFFECTNET_CODES, AFFECTNET_WITHOUT_EXPRESSION, EXPRESSIONS

_LISTS = "Manually_Annotated_file_lists"
_IMAGES = "Manually_Annotated_Images"
_TABLES = {"train": f"{_LISTS}/training.csv", "val": f"{_LISTS}/validation.csv"}
_FOLDERS = {"train": "train_set", "val": "val_set"}
_PATH = "subDirectory_filePath"
_FACE = ("face_x", "face_y", "face_width", "face_height")
# NumPy's exceptions for a damaged file: bad header, bad values, or a shape beyond the file's end.
_DAMAGED = (
  ValueError,
  EOFError,
  OSError,
  SyntaxError,
  TypeError,
  LookupError,
  ArithmeticError,
  RecursionError,
  MemoryError,
  tokenize.TokenError,
)
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
  reading = Reading(wanted=options.splits)
  for split, path in reading.choose(_TABLES):
    parse = functools.partial(_parse_row, root=root, table=path, split=split, options=options)
    rows = read_rows(root / path, (_PATH, *_FACE, "expression"))
    reading.add_all(rows, parse, split=split, where=root / path)
  return reading


def _parse_row(
  row: TableRow, *, root: pathlib.Path, table: str, split: str, options: Options
) -> Entry | str:
  line, cells = row
  origin = f"{table}:{line} ({cells[_PATH]})"
  label = _label(cells["expression"], options, origin)
  if isinstance(label, str):
    return label
  if not cells[_PATH]:
    raise RecordError(f"{table}:{line}: the column {_PATH} is empty")
  path = root / _IMAGES / cells[_PATH]
  check_image_file(path, origin, root=root)
  x, y, width, height = (parse_number(cells[name], name, origin) for name in _FACE)
  face = (x, y, x + width, y + height)
  check_box(face, origin)
  return Entry(origin, relative_key(path, root), str(path), split, label, crop=face)


def _label(code: str, options: Options, origin: str) -> int | str:
  """A class index, or the reason to leave the row out."""
  number = whole_number(code)
  name = None if number is None else _CODES.get(number)
  if name is not None and name not in options.class_names:
    return f"expression {name!r}"
  return code_index(code, AFFECTNET_CODES, options.class_names, origin)


def _read_folders(root: pathlib.Path, options: Options) -> Reading:
  reading = Reading(wanted=options.splits)
  for split, folder in reading.choose(_FOLDERS):
    paths = reading.list_images(root / folder / "images")
    parse = functools.partial(_parse_file, root=root, folder=folder, split=split, options=options)
    where = root / folder / "images"
    reading.add_all(paths, parse, split=split, where=where, expected="expected <id>.jpg")
    known = {path.stem for path in paths}
    for name in sorted(os.listdir(root / folder / "annotations")):
      image = name.removesuffix("_exp.npy")
      if image != name and image not in known and not name.startswith("."):
        path = where / f"{image}.jpg"
        reading.problems.append(f"{folder}/annotations/{name}: image file not found: {path}")
  return reading


def _parse_file(
  path: pathlib.Path, *, root: pathlib.Path, folder: str, split: str, options: Options
) -> Entry | str:
  label_file = f"{folder}/annotations/{path.stem}_exp.npy"
  origin = f"{label_file} ({path.name})"
  content = read_file(root / label_file, origin)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # about damaged headers
      value = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
  except _DAMAGED as error:
    raise RecordError(f"{origin}: not a .npy file with one number: {error}") from error
  if value.size != 1:
    raise RecordError(f"{origin}: contains {value.size} values; expected one number")
  number = parse_number(str(value.item()), "the label", origin)
  code = str(int(number)) if number == int(number) else str(number)
  label = _label(code, options, origin)
  if isinstance(label, str):
    return label
  return Entry(origin, relative_key(path, root), str(path), split, label)


def _official_tables(options: Options) -> Mapping[str, Mapping[str, int]]:
  names = options.class_names
  train = {n: count for n, count in zip(EXPRESSIONS, _TRAIN, strict=True) if n in names}
  return {
    "train": {**train, "total": sum(train.values())},
    "val": {**dict.fromkeys(train, 500), "total": 500 * len(train)},
  }


def _official_folders(options: Options) -> Mapping[str, Mapping[str, int]]:
  return {"val": {"total": 3999 if "contempt" in options.class_names else 3500}}


AFFECTNET = DataSet(
  name="affectnet",
  title="AffectNet",
  terms="for research only, after an agreement with its authors; text not verified",
  request="Request it from its authors with the form at http://mohammadmahoor.com/affectnet/, "
  "signed by a professor or head of research; unpack it as released",
  releases=(
    Release("csv", _expected_tables, _read_tables, _official_tables),
    Release("npy", _expected_folders, _read_folders, _official_folders),
  ),
  class_counts=(7, 8),
)

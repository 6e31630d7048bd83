"""FER2013: grey faces of 48x48 pixels, in a table or in one folder per class.

Goodfellow et al., "Challenges in Representation Learning: A report on three machine learning
contests", ICONIP 2013. Layouts and counts: spec: datasets. The folders have no validation split:
public and private test images are in one folder.
"""

import functools
import pathlib
from collections.abc import Mapping

from ferjax.data.datasets.base import DataSet, Options, Reading, Release
from ferjax.data.datasets.entries import Entry, Pixels, RecordError
from ferjax.data.datasets.image_folder import read_class_folders
from ferjax.data.datasets.parsing import TableRow, code_index, read_rows
from ferjax.expressions import FER2013_CODES

TABLE = "fer2013.csv"
USAGES = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
SIDE = 48  # pixels
_LEVELS = {str(level): level for level in range(256)}
COLUMNS = ("emotion", "pixels", "Usage")
_FOLDERS = {"train": "train", "test": "test"}


def parse_usage(text: str, origin: str) -> str:
  """The split; RecordError for an unknown value."""
  if text not in USAGES:
    raise RecordError(f"{origin}: Usage is {text!r}; expected one of {', '.join(USAGES)}")
  return USAGES[text]


def parse_pixels(text: str, origin: str) -> Pixels:
  """The image; RecordError unless it has 48 x 48 values in 0..255."""
  numbers = text.split()
  count = SIDE * SIDE
  if len(numbers) != count:
    raise RecordError(f"{origin}: {len(numbers)} pixels; expected {count} whole numbers 0..255")
  try:
    return Pixels(bytes(_LEVELS[number] for number in numbers), SIDE, SIDE)
  except KeyError as error:
    raise RecordError(f"{origin}: a pixel has the value {error}; expected 0..255") from None


def _read_table(root: pathlib.Path, options: Options) -> Reading:
  reading = Reading(wanted=options.splits)
  parse = functools.partial(_parse, options=options)
  rows = read_rows(root / TABLE, COLUMNS)
  reading.add_all(rows, parse, split=_split, where=root / TABLE)
  return reading


def _split(row: TableRow) -> str:
  return parse_usage(row[1]["Usage"], f"{TABLE}:{row[0]}")


def _parse(row: TableRow, *, options: Options) -> Entry:
  line, cells = row
  origin = f"{TABLE}:{line}"
  split = _split(row)
  label = code_index(cells["emotion"], FER2013_CODES, options.class_names, origin)
  return Entry(origin, f"{line}", parse_pixels(cells["pixels"], origin), split, label)


def _official_table(options: Options) -> Mapping[str, Mapping[str, int]]:
  return {"train": {"total": 28709}, "val": {"total": 3589}, "test": {"total": 3589}}


def _official_folders(options: Options) -> Mapping[str, Mapping[str, int]]:
  return {"train": {"total": 28709}, "test": {"total": 7178}}


def _expected_folders(root: pathlib.Path, options: Options) -> dict[str, str]:
  return {
    name: f"a folder for each class, of the {split} split" for split, name in _FOLDERS.items()
  }


FER2013 = DataSet(
  name="fer2013",
  title="FER2013",
  terms="the contest states no licence; the images are from a web search; not verified",
  request="Download it from the Kaggle contest 'Challenges in Representation Learning: Facial "
  "Expression Recognition Challenge', or as a folder per class (Kaggle, msambare/fer2013)",
  releases=(
    Release(
      "csv",
      lambda root, options: {TABLE: "a table: emotion, pixels, Usage"},
      _read_table,
      _official_table,
    ),
    Release(
      "folders",
      _expected_folders,
      lambda root, options: read_class_folders(root, _FOLDERS, options, every_class=True),
      _official_folders,
    ),
  ),
  class_counts=(7,),
)

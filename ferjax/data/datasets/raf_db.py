"""RAF-DB, single-label ("basic") part: the original photographs with one face box each.

Li, Deng, Du, "Reliable Crowdsourcing and Deep Locality-Preserving Learning for Expression
Recognition in the Wild", CVPR 2017. Layout and counts: spec: datasets. The data set has no
validation split, and models are never selected on the test split: a tenth of the training images
is set aside, stratified by expression, always the same.
"""

import functools
import math
import os
import pathlib
from collections.abc import Mapping

from absl import logging

from ferjax.data.datasets.layout import (
  TASKS,
  Box,
  DataSet,
  Entry,
  LayoutError,
  Options,
  Reading,
  Release,
)
from ferjax.data.datasets.records import (
  Record,
  RecordError,
  RecordSource,
  check_box,
  check_image_file,
  read_lines,
  read_records,
)
from ferjax.data.preparation.splits import VALIDATION_FRACTION, cut_validation
from ferjax.expressions import RAF_DB_CODES, SEVEN_EXPRESSIONS, index_of

SPLITS = ("train", "val", "test")
HOW_TO_GET = (
  "RAF-DB is free for research and must be requested from its authors "
  "(http://www.whdeng.cn/RAF/model1.html, from an address of a university); unpack it so that "
  "DIR/basic/EmoLabel/list_patition_label.txt, DIR/basic/Image/original/ and "
  "DIR/basic/Annotation/boundingbox/ exist, and pass --config.data.dir=DIR"
)
OFFICIAL_COUNTS = {"train": 12271, "test": 3068}
_BY_CODE = {
  "train": (1290, 281, 717, 4772, 1982, 705, 2524),
  "test": (329, 74, 160, 1185, 478, 162, 680),
}
_VALIDATION_SEED = 0  # fixed, so that runs of different seeds are measured on the same images
_LIST = "basic/EmoLabel/list_patition_label.txt"  # the misspelling is official
_ALIGNED = "basic/Image/aligned"
_ORIGINALS = "basic/Image/original"
_BOXES = "basic/Annotation/boundingbox"


class RafDetection(RecordSource):
  """Random access to RAF-DB's original photographs.

  Its boxes come from a detector and may stand over the picture; they are clipped.

  Args:
    dir: the folder that holds `basic`.
    split: "train" and "val" (of the official training images), or "test".
    on_bad_record: "error", or "skip" to leave bad images out.
    class_names: must hold the seven expressions, in any order.

  Raises:
    ValueError: naming the expected path, or the line, and what is wrong with it.
  """

  def __init__(
    self,
    dir: str | os.PathLike,
    split: str,
    on_bad_record: str = "error",
    class_names: tuple[str, ...] = SEVEN_EXPRESSIONS,
  ):
    if split not in SPLITS:
      raise ValueError(f"unknown split {split!r} of RAF-DB; known: {', '.join(SPLITS)}")
    root = pathlib.Path(dir)
    if not (root / _LIST).is_file():
      raise ValueError(f"file of RAF-DB not found: {root / _LIST}; {HOW_TO_GET}")
    label_of = {code: index_of(name, class_names) for code, name in RAF_DB_CODES.items()}
    entries = [(i, line.split()) for i, line in read_lines(root / _LIST)]
    part, other = ("test", "train") if split == "test" else ("train", "test")
    entries = [entry for entry in entries if not entry[1][0].startswith(other)]
    found, official = len(entries), OFFICIAL_COUNTS[part]
    logging.log(
      logging.INFO if found == official else logging.WARNING,
      "RAF-DB: found %d %s images in %s, officially %d",
      found,
      part,
      _LIST,
      official,
    )
    if split != "test":
      chosen = _validation_names(entries)
      entries = [entry for entry in entries if (entry[1][0] in chosen) == (split == "val")]
    parse = functools.partial(_parse, root=root, label_of=label_of)
    origin = f"{root / _LIST} ({split})"
    records, skipped = read_records(entries, parse, origin=origin, on_bad_record=on_bad_record)
    super().__init__(records, class_names, skipped, overhang=math.inf)


def _validation_names(entries: list[tuple[int, list[str]]]) -> set[str]:
  """A tenth of the names of every code, by the names alone and not their order in the list."""
  names = [fields[0] for _, fields in entries]
  codes = sorted({fields[-1] for _, fields in entries})
  classes = [(codes.index(fields[-1]),) for _, fields in entries]
  chosen = cut_validation(
    names,
    classes,
    [""] * len(names),
    fraction=VALIDATION_FRACTION,
    seed=_VALIDATION_SEED,
  )
  return {name for name, is_chosen in zip(names, chosen, strict=True) if is_chosen}


def _parse(entry: tuple[int, list[str]], *, root: pathlib.Path, label_of: dict[int, int]) -> Record:
  origin, name, label = _name_and_label(entry, label_of)
  image = root / _ORIGINALS / name
  check_image_file(image, origin)
  return Record(origin, str(image), (_box(root, name, origin),), (label,))


def _name_and_label(entry: tuple[int, list[str]], label_of: dict[int, int]) -> tuple[str, str, int]:
  number, fields = entry
  origin = f"{_LIST}:{number} ({fields[0]})"
  if len(fields) != 2 or not fields[1].isdecimal() or int(fields[1]) not in label_of:
    codes = ", ".join(f"{code} {name}" for code, name in RAF_DB_CODES.items())
    raise RecordError(f"{origin}: {' '.join(fields)!r}; expected a file name and a code: {codes}")
  if not fields[0].startswith(("train", "test")):
    raise RecordError(f"{origin}: expected a file name that starts with train or test")
  return origin, fields[0], label_of[int(fields[1])]


def _box(root: pathlib.Path, name: str, origin: str) -> Box:
  box_file = root / _BOXES / f"{pathlib.PurePath(name).stem}_boundingbox.txt"
  try:
    text = " ".join(line for _, line in read_lines(box_file))
  except FileNotFoundError:
    raise RecordError(f"{origin}: file not found: {box_file}") from None
  try:
    x1, y1, x2, y2 = (float(number) for number in text.split())
  except ValueError:
    raise RecordError(f"{box_file}: {text!r}; expected four numbers x1 y1 x2 y2") from None
  check_box((x1, y1, x2, y2), str(box_file))
  return (x1, y1, x2, y2)


def _read(root: pathlib.Path, options: Options) -> Reading:
  label_of = {code: index_of(name, options.class_names) for code, name in RAF_DB_CODES.items()}
  rows = [(i, line.split()) for i, line in read_lines(root / _LIST)]
  if not rows:
    raise LayoutError(f"{root / _LIST}: empty; expected lines `train_00001.jpg 5`")
  reading = Reading()
  reading.add_all(rows, functools.partial(_entry, root=root, label_of=label_of, task=options.task))
  return reading


def _entry(
  row: tuple[int, list[str]], *, root: pathlib.Path, label_of: dict[int, int], task: str
) -> Entry:
  origin, name, label = _name_and_label(row, label_of)
  split = "test" if name.startswith("test") else "train"
  if task == "detection":
    path = root / _ORIGINALS / name
    check_image_file(path, origin)
    return Entry(origin, name, str(path), split, (label,), boxes=(_box(root, name, origin),))
  path = root / _ALIGNED / f"{pathlib.PurePath(name).stem}_aligned.jpg"
  check_image_file(path, origin)
  return Entry(origin, name, str(path), split, label)


def _expected(root: pathlib.Path, options: Options) -> dict[str, str]:
  files = {_LIST: "the list of images and codes"}
  if options.task == "detection":
    return {**files, _ORIGINALS: "original photographs", _BOXES: "a file for each face box"}
  return {**files, _ALIGNED: "aligned faces, 100x100 pixels"}


def _official(options: Options) -> Mapping[str, Mapping[str, int]]:
  return {
    split: {
      "total": OFFICIAL_COUNTS[split],
      **{RAF_DB_CODES[code]: count for code, count in enumerate(counts, start=1)},
    }
    for split, counts in _BY_CODE.items()
  }


RAF_DB = DataSet(
  name="raf_db",
  title="RAF-DB",
  terms="for research only, after an agreement with its authors; text not verified",
  request="Ask its authors, from an address of a university: http://www.whdeng.cn/RAF/model1.html; "
  f"unpack it so that DIR/{_LIST} exists, and DIR/{_ALIGNED}/ for faces, or DIR/{_ORIGINALS}/ and "
  f"DIR/{_BOXES}/ for detection",
  releases=(Release("basic", _expected, _read, _official),),
  tasks=TASKS,
  class_counts=(7,),
  overhang=math.inf,  # the boxes of the detector stand over the photographs
)

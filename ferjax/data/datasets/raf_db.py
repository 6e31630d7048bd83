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

import numpy as np
from absl import logging

from ferjax.data.datasets.records import (
  Record,
  RecordError,
  RecordSource,
  check_box,
  check_image_file,
  read_records,
)
from ferjax.expressions import RAF_DB_CODES, SEVEN_EXPRESSIONS, index_of

SPLITS = ("train", "val", "test")
HOW_TO_GET = (
  "RAF-DB is free for research and must be requested from its authors "
  "(http://www.whdeng.cn/RAF/model1.html, from an address of a university); unpack it so that "
  "DIR/basic/EmoLabel/list_patition_label.txt, DIR/basic/Image/original/ and "
  "DIR/basic/Annotation/boundingbox/ exist, and pass --config.data.dir=DIR"
)
OFFICIAL_COUNTS = {"train": 12271, "test": 3068}
VALIDATION_FRACTION = 0.1
_VALIDATION_SEED = 0  # fixed, so that runs of different seeds are measured on the same images
_LIST = "basic/EmoLabel/list_patition_label.txt"  # the misspelling is official


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
    lines = (root / _LIST).read_text(encoding="utf-8-sig").splitlines()
    entries = [(i, line.split()) for i, line in enumerate(lines, start=1) if line.strip()]
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
  names: dict[str, list[str]] = {}
  for _, fields in entries:
    names.setdefault(fields[-1], []).append(fields[0])
  rng = np.random.default_rng(_VALIDATION_SEED)
  chosen = set()
  for code in sorted(names):
    count = round(VALIDATION_FRACTION * len(names[code]))
    chosen.update(rng.permutation(sorted(names[code]))[:count].tolist())
  return chosen


def _parse(entry: tuple[int, list[str]], *, root: pathlib.Path, label_of: dict[int, int]) -> Record:
  number, fields = entry
  origin = f"{_LIST}:{number} ({fields[0]})"
  if len(fields) != 2 or not fields[1].isdecimal() or int(fields[1]) not in label_of:
    codes = ", ".join(f"{code} {name}" for code, name in RAF_DB_CODES.items())
    raise RecordError(f"{origin}: {' '.join(fields)!r}; expected a file name and a code: {codes}")
  if not fields[0].startswith(("train", "test")):
    raise RecordError(f"{origin}: expected a file name that starts with train or test")
  image = root / "basic" / "Image" / "original" / fields[0]
  check_image_file(image, origin)
  stem = pathlib.PurePath(fields[0]).stem
  box_file = root / "basic" / "Annotation" / "boundingbox" / f"{stem}_boundingbox.txt"
  try:
    text = box_file.read_text(encoding="utf-8-sig")
  except FileNotFoundError:
    raise RecordError(f"{origin}: file not found: {box_file}") from None
  try:
    x1, y1, x2, y2 = (float(number) for number in text.split())
  except ValueError:
    raise RecordError(f"{box_file}: {text.strip()!r}; expected four numbers x1 y1 x2 y2") from None
  check_box((x1, y1, x2, y2), str(box_file))
  return Record(origin, str(image), ((x1, y1, x2, y2),), (label_of[int(fields[1])],))

"""YOLO: a text file for each image, one face a line: `class cx cy w h`, parts of the image.

    DIR/images/train/a.jpg    DIR/labels/train/a.txt    DIR/classes.txt (optional)

An empty text file is an image without faces; a missing one is an error, because it is more often
lost than meant.
"""

import functools
import pathlib
from collections.abc import Iterator

from ferjax.data.datasets.image_folder import SUFFIXES
from ferjax.data.datasets.layout import (
  Box,
  DataSet,
  Entry,
  LayoutError,
  Options,
  Reading,
  Release,
  parse_number,
  relative_key,
)
from ferjax.data.datasets.records import RecordError, parse_class, read_lines

_CLASSES = "classes.txt"
_FIELDS = ("class", "cx", "cy", "w", "h")
_ROUNDING = 1e-3  # of a relative coordinate, beyond the edge


def _read(root: pathlib.Path, options: Options) -> Reading:
  reading = Reading()
  labels = _labels(root, options.class_names)
  for split in ("train", "val", "test"):
    folder = root / "images" / split
    if not folder.is_dir():
      continue
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
      raise LayoutError(f"no images in {folder}")
    reading.add_all(paths, functools.partial(_entry, root=root, split=split, labels=labels))
    reading.problems += _without_image(root, split, paths)
  return reading


def _without_image(root: pathlib.Path, split: str, images: list[pathlib.Path]) -> Iterator[str]:
  """A label file is all that tells of an image that was lost."""
  images_of, labels_of = root / "images" / split, root / "labels" / split
  known = {path.relative_to(images_of).with_suffix("") for path in images}
  for path in sorted(labels_of.rglob("*.txt")):
    place = path.relative_to(labels_of).with_suffix("")
    if place not in known and path.name != _CLASSES:  # which labelling tools write beside them
      file = f"labels/{split}/{place.as_posix()}.txt"
      yield f"{file}: image file not found: {images_of / place}.jpg, or another image of that name"


def _labels(root: pathlib.Path, class_names: tuple[str, ...]) -> list[int]:
  """Class number of the files -> class index, by the names in classes.txt where it exists."""
  path = root / _CLASSES
  if not path.is_file():
    return list(range(len(class_names)))
  lines = read_lines(path)
  labels = [parse_class(name, class_names, f"{path}:{number}") for number, name in lines]
  if not labels:
    raise LayoutError(f"{path}: empty; expected one class name a line")
  return labels


def _entry(path: pathlib.Path, *, root: pathlib.Path, split: str, labels: list[int]) -> Entry:
  place = path.relative_to(root / "images").with_suffix(".txt")
  file = f"labels/{place.as_posix()}"
  name = relative_key(path, root)
  try:
    lines = read_lines(root / file)
  except FileNotFoundError:
    raise RecordError(
      f"{file} ({name}): file not found: {root / file}; an image without faces has an empty one"
    ) from None
  boxes, label = [], []
  for number, line in lines:
    index, box = _face(line.split(), labels, f"{file}:{number} ({name})")
    label.append(index)
    boxes.append(box)
  return Entry(
    f"{file} ({name})", name, str(path), split, tuple(label), boxes=tuple(boxes), relative=True
  )


def _face(fields: list[str], labels: list[int], origin: str) -> tuple[int, Box]:
  if len(fields) != len(_FIELDS):
    raise RecordError(f"{origin}: {len(fields)} fields; expected `{' '.join(_FIELDS)}`")
  if not fields[0].isdecimal() or int(fields[0]) >= len(labels):
    raise RecordError(f"{origin}: class {fields[0]!r}; expected 0..{len(labels) - 1}")
  cx, cy, width, height = (
    parse_number(text, what, origin) for text, what in zip(fields[1:], _FIELDS[1:], strict=True)
  )
  box = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
  if width <= 0 or height <= 0 or min(box) < -_ROUNDING or max(box) > 1 + _ROUNDING:
    raise RecordError(
      f"{origin}: {' '.join(fields[1:])} is no box inside the image; expected centre and size as "
      "parts of its width and height, 0..1"
    )
  return labels[int(fields[0])], box


YOLO_TXT = DataSet(
  name="yolo_txt",
  title="YOLO text files",
  terms="your own data",
  request="Lay out images/<split>/ and labels/<split>/, and classes.txt, one class name a line",
  releases=(
    Release(
      "txt",
      lambda root, options: {
        "images/train": "images; val and test likewise",
        "labels/train": "a text file for each image; val and test likewise",
      },
      _read,
    ),
  ),
  tasks=("detection",),
)

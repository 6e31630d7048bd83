"""YOLO: a text file per image, with one face per line: `class cx cy w h`, relative to its size.

    DIR/images/train/a.jpg    DIR/labels/train/a.txt    DIR/classes.txt (optional)

The class -1, or the name "unknown" in classes.txt, is a face whose expression nobody labelled. An
empty text file is an image without faces; a missing one is an error, because it was probably lost.
"""

import functools
import pathlib
from collections.abc import Callable, Iterator

from ferjax.data.datasets.base import DataSet, Options, Reading, Release
from ferjax.data.datasets.entries import Box, Entry, LayoutError, RecordError
from ferjax.data.datasets.parsing import (
  decode_text,
  parse_number,
  parse_optional_class,
  parse_optional_index,
  read_file,
  read_lines,
  relative_key,
  split_lines,
)
from ferjax.data.datasets.splits import find_splits
from ferjax.data.image_files import list_folders, list_images
from ferjax.expressions import UNLABELLED

_CLASSES = "classes.txt"
_FIELDS = ("class", "cx", "cy", "w", "h")
_ROUNDING = 1e-3  # rounding error of relative coordinates beyond the edge
_Classify = Callable[[str, str], int]  # class number in the file, origin -> class index


def _folders(root: pathlib.Path, options: Options) -> dict[str, str]:
  """Split -> folder below `images` and `labels`."""
  images = root / "images"
  found = [path.name for path in list_folders(images)] if images.is_dir() else []
  return find_splits(found, options, root=images, what="the folder")


def _read(root: pathlib.Path, options: Options) -> Reading:
  reading = Reading(wanted=options.splits)
  classify = _classifier(root, options.class_names)
  for split, name in reading.choose(_folders(root, options)):
    # Some tools write labels next to the images, or images next to the labels.
    images, labels = root / "images" / name, root / "labels" / name
    paths = reading.list_images(images) + (list_images(labels).files if labels.is_dir() else [])
    reading.ignored.pop(".txt", None)
    parse = functools.partial(_entry, root=root, name=name, split=split, classify=classify)
    reading.add_all(paths, parse, split=split, where=images, expected="no images in it")
    reading.problems += _labels_without_image(root, name, paths)
  return reading


def _place(path: pathlib.Path, root: pathlib.Path, name: str) -> pathlib.Path:
  """The path below the split's folder, without suffix, which image and label share."""
  parts = path.relative_to(root).parts[1:]
  return pathlib.Path(*parts).relative_to(name).with_suffix("")


def _labels_without_image(
  root: pathlib.Path, name: str, images: list[pathlib.Path]
) -> Iterator[str]:
  """Problems of label files whose image is missing."""
  known = {_place(path, root, name) for path in images}
  for path in sorted((root / "labels" / name).rglob("*.txt")):
    place = _place(path, root, name)
    is_hidden = any(part.startswith(".") for part in place.parts)
    if place not in known and path.name != _CLASSES and not is_hidden:
      file, image = path.relative_to(root).as_posix(), root / "images" / name / place
      yield f"{file}: image file not found: {image}.jpg, or with another image suffix"


def _classifier(root: pathlib.Path, class_names: tuple[str, ...]) -> _Classify:
  """Maps numbers by the names in classes.txt, if it exists; only names in use must be known."""
  path = root / _CLASSES
  lines = read_lines(path) if path.is_file() else None
  if lines == []:
    raise LayoutError(f"{path}: empty; expected one class name per line")
  count = len(class_names if lines is None else lines)

  def classify(text: str, origin: str) -> int:
    number = parse_optional_index(text, count)
    if number is None:
      raise RecordError(
        f"{origin}: class {text!r}; expected 0..{count - 1}, or {UNLABELLED} if it is unknown"
      )
    if lines is None or number == UNLABELLED:
      return number
    line, name = lines[number]
    return parse_optional_class(name, class_names, f"{origin}: {path}:{line}")

  return classify


def _entry(
  path: pathlib.Path, *, root: pathlib.Path, name: str, split: str, classify: _Classify
) -> Entry:
  place = f"{name}/{_place(path, root, name).as_posix()}.txt"
  beside = path.with_suffix(".txt")
  file = pathlib.Path("labels", place)
  if not (root / file).exists() and beside.exists():
    file = beside.relative_to(root)
  image = relative_key(path, root)
  origin = f"{file.as_posix()} ({image})"
  hint = "; an image without faces has an empty one"
  text = decode_text(read_file(root / file, origin, hint=hint), root / file)
  boxes, label = [], []
  for number, line in split_lines(text):
    index, box = _face(line.split(), classify, f"{file.as_posix()}:{number} ({image})")
    label.append(index)
    boxes.append(box)
  return Entry(origin, image, str(path), split, tuple(label), boxes=tuple(boxes), relative=True)


def _face(fields: list[str], classify: _Classify, origin: str) -> tuple[int, Box]:
  if len(fields) != len(_FIELDS):
    raise RecordError(f"{origin}: {len(fields)} fields; expected `{' '.join(_FIELDS)}`")
  label = classify(fields[0], origin)
  cx, cy, width, height = (
    parse_number(text, what, origin) for text, what in zip(fields[1:], _FIELDS[1:], strict=True)
  )
  box = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
  if width <= 0 or height <= 0 or min(box) < -_ROUNDING or max(box) > 1 + _ROUNDING:
    raise RecordError(
      f"{origin}: {' '.join(fields[1:])} is not a box inside the image; expected centre and size "
      "relative to its width and height, 0..1"
    )
  return label, box


def _expected(root: pathlib.Path, options: Options) -> dict[str, str]:
  expected = {}
  for split, name in _folders(root, options).items():
    expected[f"images/{name}"] = f"images of the {split} split"
    if not any((root / "images" / name).glob("**/*.txt")):
      expected[f"labels/{name}"] = f"a text file for each image of the {split} split"
  return expected


YOLO_TXT = DataSet(
  name="yolo_txt",
  title="YOLO text files",
  terms="your own data",
  request="Lay out images/<split>/ and labels/<split>/, and classes.txt, one class name per line",
  releases=(
    Release(
      "txt",
      _expected,
      _read,
    ),
  ),
  tasks=("detection",),
  takes=("files",),
)

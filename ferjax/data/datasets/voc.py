"""Pascal VOC: `Annotations/*.xml`, `JPEGImages/`, `ImageSets/Main/<set>.txt`.

VOC counts pixels from 1 and includes the last one. In this project a box is bounded by pixel
edges, counted from 0: (xmin, ymin, xmax, ymax) becomes (xmin - 1, ymin - 1, xmax, ymax). Objects
marked difficult are objects like any other: a detector that finds one is not wrong.
"""

import functools
import os
import pathlib
import xml.etree.ElementTree as ElementTree

from ferjax.data.datasets.layout import (
  DataSet,
  Entry,
  LayoutError,
  Options,
  Reading,
  Release,
  relative_key,
)
from ferjax.data.datasets.records import (
  Record,
  RecordError,
  RecordSource,
  check_box,
  check_image_file,
  parse_class,
  read_lines,
  read_records,
)

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".JPG", ".JPEG", ".PNG")


class PascalVOC(RecordSource):
  """Random access to an image set of a Pascal VOC folder.

  Args:
    dir: the folder that holds `Annotations`, `JPEGImages` and `ImageSets`.
    split: name of the image set: `ImageSets/Main/<split>.txt`, one image name a line.
    class_names: objects are mapped to these by name, in any case or spelling that
      `ferjax.expressions` knows.
    on_bad_record: "error", or "skip" to leave bad images out.

  Raises:
    ValueError: naming the file: a missing set, annotation or image, malformed XML, an unknown
      class name, a box without area, or an empty set.
  """

  def __init__(
    self,
    dir: str | os.PathLike,
    split: str,
    class_names: tuple[str, ...],
    on_bad_record: str = "error",
  ):
    root = pathlib.Path(dir)
    image_set = root / "ImageSets" / "Main" / f"{split}.txt"
    if not image_set.is_file():
      known = sorted(path.stem for path in image_set.parent.glob("*.txt"))
      raise ValueError(
        f"image set not found: {image_set}; image sets there: {', '.join(known) or 'none'}"
      )
    names = [name for _, name in read_lines(image_set)]
    parse = functools.partial(_parse, root=root, class_names=class_names)
    records, skipped = read_records(
      names, parse, origin=str(image_set), on_bad_record=on_bad_record
    )
    super().__init__(records, class_names, skipped)


def _parse(name: str, *, root: pathlib.Path, class_names: tuple[str, ...]) -> Record:
  tree = _tree(name, root)
  return _record(tree, name, root=root, class_names=class_names)


def _tree(name: str, root: pathlib.Path) -> ElementTree.Element:
  origin = f"Annotations/{name}.xml"
  try:
    text = (root / "Annotations" / f"{name}.xml").read_bytes()
  except FileNotFoundError:
    raise RecordError(f"{origin}: annotation not found in {root}") from None
  if b"<!ENTITY" in text:  # entities that refer to entities can fill the memory
    raise RecordError(f"{origin}: XML entities are not allowed in an annotation")
  try:
    return ElementTree.fromstring(text)
  except ElementTree.ParseError as error:
    raise RecordError(f"{origin}: malformed XML: {error}") from error


def _record(
  tree: ElementTree.Element, name: str, *, root: pathlib.Path, class_names: tuple[str, ...]
) -> Record:
  origin = f"Annotations/{name}.xml"
  path = _image_path(root / "JPEGImages", name, tree.findtext("filename"), origin)
  origin = f"{origin} ({path.name})"
  boxes, label = [], []
  for number, item in enumerate(tree.iter("object"), start=1):
    item_origin = f"{origin}: object {number}"
    class_name = (item.findtext("name") or "").strip()
    label.append(parse_class(class_name, class_names, item_origin))
    boxes.append(_box(item.find("bndbox"), item_origin))
  return Record(origin, str(path), tuple(boxes), tuple(label))


def _image_path(images: pathlib.Path, name: str, filename: str | None, origin: str) -> pathlib.Path:
  """By the name of the annotation; else what it calls its file, often a stale path."""
  candidates = [images / f"{name}{suffix}" for suffix in _SUFFIXES]
  if filename:
    candidates.append(images / pathlib.PurePosixPath(filename.strip().replace("\\", "/")).name)
  found = next((path for path in candidates if path.is_file()), candidates[0])
  check_image_file(found, origin)
  return found


def _box(element: ElementTree.Element | None, origin: str) -> tuple[float, float, float, float]:
  texts = {}
  for key in ("xmin", "ymin", "xmax", "ymax"):
    texts[key] = None if element is None else element.findtext(key)
  try:
    x1, y1, x2, y2 = (float(text) for text in texts.values() if text is not None)
  except ValueError:
    raise RecordError(
      f"{origin}: malformed bndbox {texts}; expected numbers xmin, ymin, xmax, ymax"
    ) from None
  check_box((x1, y1, x2, y2), origin)
  return (x1 - 1, y1 - 1, x2, y2)


def _sets(root: pathlib.Path) -> dict[str, pathlib.Path]:
  paths = {s: root / "ImageSets" / "Main" / f"{s}.txt" for s in ("train", "val", "test")}
  return {split: path for split, path in paths.items() if path.is_file()}


def _read(root: pathlib.Path, options: Options) -> Reading:
  reading = Reading()
  for split, path in _sets(root).items():
    names = [name for _, name in read_lines(path)]
    if not names:
      raise LayoutError(f"{path}: empty; expected one image name a line")
    parse = functools.partial(_entry, root=root, split=split, options=options)
    reading.add_all(names, parse)
  return reading


def _entry(name: str, *, root: pathlib.Path, split: str, options: Options) -> Entry:
  tree = _tree(name, root)
  record = _record(tree, name, root=root, class_names=options.class_names)
  key = relative_key(record.path, root)
  size = _size(tree)
  return Entry(record.origin, key, record.path, split, record.label, boxes=record.boxes, size=size)


def _size(tree: ElementTree.Element) -> tuple[int, int] | None:
  """What the annotation claims; None where it does not, or writes zeros, as some tools do."""
  width, height = ((tree.findtext(f"size/{side}") or "").strip() for side in ("width", "height"))
  if not (width.isdecimal() and height.isdecimal()) or int(width) * int(height) == 0:
    return None
  return int(width), int(height)


VOC = DataSet(
  name="voc",
  title="Pascal VOC folder",
  terms="your own data",
  request="Lay out Annotations/*.xml, JPEGImages/ and ImageSets/Main/{train,val,test}.txt",
  releases=(
    Release(
      "xml",
      lambda root, options: {
        "Annotations": "an XML file for each image",
        "JPEGImages": "the images",
        "ImageSets/Main/train.txt": "names of the train split; val.txt and test.txt likewise",
      },
      _read,
    ),
  ),
  tasks=("detection",),
)

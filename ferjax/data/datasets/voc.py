"""Pascal VOC: `Annotations/*.xml`, `JPEGImages/`, `ImageSets/Main/<set>.txt`.

VOC counts pixels from 1 and includes the last one. In this project, box coordinates are pixel
edges, counted from 0: (xmin, ymin, xmax, ymax) becomes (xmin - 1, ymin - 1, xmax, ymax). Objects
marked difficult are used like all others: detecting one is not an error. The name "unknown" is a
face whose expression nobody labelled.
"""

import functools
import pathlib
import re
import xml.etree.ElementTree as ElementTree

from ferjax.data.datasets.base import DataSet, Options, Reading, Release
from ferjax.data.datasets.entries import Box, Entry, RecordError
from ferjax.data.datasets.parsing import (
  check_box,
  check_inside,
  decode_text,
  find_image,
  parse_optional_class,
  read_file,
  read_lines,
  relative_key,
  whole_number,
)
from ferjax.data.datasets.splits import expect_splits, find_splits
from ferjax.data.image_files import image_suffixes

_COMMON_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".JPG", ".JPEG", ".PNG")
_SETS = "ImageSets/Main"
# Image sets of the challenge that are not splits: a union, and the images of one class.
_NOT_SPLIT = re.compile(r"trainval|.+_(train|val|trainval|test)")
_DECLARATION = re.compile(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["']""")


def _sets(root: pathlib.Path, options: Options) -> dict[str, str]:
  """Split -> name of its image set."""
  folder = root / _SETS
  found = [path.stem for path in folder.glob("*.txt")] if folder.is_dir() else []
  named = options.files.values()
  found = [name for name in found if name in named or not _NOT_SPLIT.fullmatch(name)]
  return find_splits(found, options, root=folder, what="the image set")


def _read(root: pathlib.Path, options: Options) -> Reading:
  reading = Reading(wanted=options.splits)
  for split, name in reading.choose(_sets(root, options)):
    path = root / _SETS / f"{name}.txt"
    names = [line for _, line in read_lines(path)]
    parse = functools.partial(_entry, root=root, split=split, options=options)
    expected = "expected one image name per line"
    reading.add_all(names, parse, split=split, where=path, expected=expected)
  return reading


def _entry(name: str, *, root: pathlib.Path, split: str, options: Options) -> Entry:
  origin = f"Annotations/{name}.xml"
  file = root / "Annotations" / f"{name}.xml"
  check_inside(file, root, origin)
  tree = _tree(file, origin)
  path = _image_path(root, name, tree.findtext("filename"), origin)
  origin = f"{origin} ({path.name})"
  boxes, label = [], []
  for number, item in enumerate(tree.iter("object"), start=1):
    item_origin = f"{origin}: object {number}"
    class_name = (item.findtext("name") or "").strip()
    label.append(parse_optional_class(class_name, options.class_names, item_origin))
    boxes.append(_box(item.find("bndbox"), item_origin))
  key, size = relative_key(path, root), _size(tree)
  return Entry(origin, key, str(path), split, tuple(label), boxes=tuple(boxes), size=size)


def _tree(path: pathlib.Path, origin: str) -> ElementTree.Element:
  text = _decode(read_file(path, origin), origin)
  if "<!ENTITY" in text:  # nested entities can exhaust the memory
    raise RecordError(f"{origin}: XML entities are not allowed in an annotation")
  try:
    return ElementTree.fromstring(text)
  except (ElementTree.ParseError, ValueError) as error:
    raise RecordError(f"{origin}: malformed XML: {error}") from error


def _decode(content: bytes, origin: str) -> str:
  """Decodes with Python's codecs, which support more encodings than the XML parser."""
  declared = _DECLARATION.match(content)
  if declared is None:
    return decode_text(content, origin)
  encoding = declared[1].decode("ascii", "replace")
  try:
    return content.decode(encoding)
  except LookupError:
    raise RecordError(
      f"{origin}: unknown encoding {encoding!r} in its XML declaration; save the file as UTF-8"
    ) from None
  except UnicodeError as error:
    raise RecordError(
      f"{origin}: not {encoding} text, contrary to its XML declaration: {error}"
    ) from error


def _image_path(root: pathlib.Path, name: str, filename: str | None, origin: str) -> pathlib.Path:
  """The image named like the annotation, else its <filename>, which is often a stale path."""
  names = [f"{name}{suffix}" for suffix in _COMMON_SUFFIXES]
  if filename:
    names.append(pathlib.PurePosixPath(filename.strip().replace("\\", "/")).name)
  names += [f"{name}{suffix}" for suffix in sorted(image_suffixes())]
  folders = (root / "JPEGImages", (root / "Annotations" / name).parent)
  candidates = [folder / name for folder in folders for name in names]
  return pathlib.Path(find_image(candidates, origin, root=root))


def _box(element: ElementTree.Element | None, origin: str) -> Box:
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


def _size(tree: ElementTree.Element) -> tuple[int, int] | None:
  """The size in the annotation; None if missing, or zero, which some tools write."""
  width, height = (
    whole_number(tree.findtext(f"size/{side}") or "") for side in ("width", "height")
  )
  return (width, height) if width and height else None


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
        **expect_splits(
          _sets(root, options), "names of the images of the {} split", f"{_SETS}/{{}}.txt"
        ),
      },
      _read,
    ),
  ),
  tasks=("detection",),
  takes=("files",),
)

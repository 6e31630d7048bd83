"""COCO: a JSON file per split, with images, annotations and categories.

A box is x, y, width, height in pixels, counted from the image's edge. Crowd regions (`iscrowd`)
are not faces and are left out. The category named "unknown" is for faces whose expression nobody
labelled.
"""

import functools
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from ferjax.data.datasets.base import DataSet, Options, Reading, Release
from ferjax.data.datasets.entries import Box, Entry, LayoutError, RecordError
from ferjax.data.datasets.parsing import check_box, find_image, parse_optional_class, relative_key
from ferjax.data.datasets.splits import expect_splits, find_splits

_ANNOTATIONS = "annotations"
# Folders that file names may be relative to, besides the folder of the JSON file; {name} is
# train2017 for instances_train2017.json.
_FOLDERS = ("", "images", "{split}", "images/{split}", "{name}", "images/{name}")
_Id = int | str
_Faces = list[tuple[int, dict[str, Any]]]  # index in the list of annotations, annotation


def _files(root: pathlib.Path, options: Options) -> dict[str, str]:
  """Split -> JSON file."""
  folder = root / _ANNOTATIONS
  names = sorted(os.listdir(folder)) if folder.is_dir() else []
  found = [f"{_ANNOTATIONS}/{name}" for name in names if name.endswith(".json")]
  default = f"{_ANNOTATIONS}/{{}}.json"
  return find_splits(found, options, root=root, what="the file", default=default)


def _read(root: pathlib.Path, options: Options) -> Reading:
  reading = Reading(wanted=options.splits)
  for split, file in reading.choose(_files(root, options)):
    content = _load(root / file)
    images = _by_id(content["images"], file, reading.problems)
    faces: dict[_Id, _Faces] = {key: [] for key in images}
    for place, annotation in enumerate(content["annotations"]):
      image_id = annotation.get("image_id")
      if not isinstance(image_id, _Id) or image_id not in faces:
        reading.problems.append(
          f"{file}: annotations[{place}]: image_id {image_id!r} is not the id of an image"
        )
      elif not annotation.get("iscrowd"):
        faces[image_id].append((place, annotation))
    parse = functools.partial(
      _entry,
      root=root,
      file=file,
      split=split,
      images=images,
      faces=faces,
      categories=_categories(content["categories"]),
      class_names=options.class_names,
    )
    reading.add_all(images, parse, split=split, where=root / file)
  return reading


def _by_id(images: list[dict[str, Any]], file: str, problems: list[str]) -> dict[_Id, Any]:
  by_id: dict[_Id, Any] = {}
  for place, image in enumerate(images):
    image_id = image.get("id")
    origin = f"{file}: images[{place}] ({image.get('file_name')})"
    if not isinstance(image_id, _Id):
      problems.append(f"{origin}: id {image_id!r}; expected a number or text")
    elif image_id in by_id:
      other = by_id[image_id].get("file_name")
      problems.append(f"{origin}: id {image_id!r} is also used by {other}; expected a unique id")
    else:
      by_id[image_id] = image
  return by_id


def _load(path: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
  try:
    content = json.loads(path.read_bytes())
  except (ValueError, RecursionError) as error:
    raise LayoutError(f"{path}: malformed JSON: {error}") from error
  for key in ("images", "annotations", "categories"):
    rows = content.get(key) if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
      raise LayoutError(
        f"{path}: no list {key!r} of objects; expected images, annotations, categories"
      )
  if not content["images"]:
    raise LayoutError(f"{path}: the list 'images' is empty")
  return content


def _categories(rows: list[dict[str, Any]]) -> dict[_Id, list[Any]]:
  """Category id -> its names; only names in use are validated, later."""
  names: dict[_Id, list[Any]] = {}
  for row in rows:
    category_id, name = row.get("id"), row.get("name")
    if isinstance(category_id, _Id) and name not in names.setdefault(category_id, []):
      names[category_id].append(name)
  return names


def _label(
  annotation: dict[str, Any],
  categories: Mapping[_Id, list[Any]],
  class_names: tuple[str, ...],
  origin: str,
) -> int:
  category = annotation.get("category_id")
  if not isinstance(category, _Id) or category not in categories:
    known = ", ".join(map(str, categories))
    raise RecordError(f"{origin}: category_id {category!r}; known: {known}")
  if len(categories[category]) > 1:
    names = ", ".join(map(repr, categories[category]))
    raise RecordError(f"{origin}: category_id {category!r} has several names: {names}")
  name = str(categories[category][0])
  return parse_optional_class(name, class_names, f"{origin}: category {category}")


def _entry(
  image_id: _Id,
  *,
  root: pathlib.Path,
  file: str,
  split: str,
  images: Mapping[_Id, dict[str, Any]],
  faces: Mapping[_Id, _Faces],
  categories: Mapping[_Id, list[Any]],
  class_names: tuple[str, ...],
) -> Entry:
  image = images[image_id]
  name = image.get("file_name")
  origin = f"{file}: image {image_id} ({name})"
  if not isinstance(name, str) or not name:
    raise RecordError(f"{origin}: no file_name")
  path = _find(root, file, name, split, origin)
  boxes, label = [], []
  for place, annotation in faces[image_id]:
    face_origin = f"{file}: annotations[{place}] ({name})"
    label.append(_label(annotation, categories, class_names, face_origin))
    boxes.append(_box(annotation.get("bbox"), face_origin))
  width, height = image.get("width"), image.get("height")
  size = (width, height) if isinstance(width, int) and isinstance(height, int) else None
  key = relative_key(path, root)
  return Entry(origin, key, path, split, tuple(label), boxes=tuple(boxes), size=size)


def _find(root: pathlib.Path, file: str, name: str, split: str, origin: str) -> str:
  json_file = root / file
  of_file = json_file.stem.rpartition("_")[2]
  folders = [root / folder.format(split=split, name=of_file) for folder in _FOLDERS]
  candidates = [folder / name for folder in (*folders, json_file.parent)]
  return find_image(candidates, origin, expected=root / "images" / name, root=root)


def _box(value: Any, origin: str) -> Box:
  try:
    x, y, width, height = (float(number) for number in value)
  except (TypeError, ValueError, OverflowError):
    raise RecordError(f"{origin}: bbox {value!r}; expected [x, y, width, height]") from None
  box = (x, y, x + width, y + height)
  check_box(box, origin)
  return box


def _expected(root: pathlib.Path, options: Options) -> dict[str, str]:
  return expect_splits(_files(root, options), "annotations of the {} split")


COCO_JSON = DataSet(
  name="coco_json",
  title="COCO JSON",
  terms="your own data",
  request="Lay out annotations/{train,val,test}.json and images/, or name the files: "
  "--file train=FILE",
  releases=(
    Release(
      "json",
      _expected,
      _read,
    ),
  ),
  tasks=("detection",),
  takes=("files",),
)

"""COCO: a json file for each split, with images, annotations and categories.

A box is x, y, width, height in pixels, counted from the image's edge. Crowd regions (`iscrowd`)
are not faces and are left out.
"""

import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from ferjax.data.datasets.layout import (
  Box,
  DataSet,
  Entry,
  LayoutError,
  Options,
  Reading,
  Release,
  relative_key,
)
from ferjax.data.datasets.records import RecordError, check_box, check_image_file, parse_class

_SPLITS = ("train", "val", "test")
_FOLDERS = ("", "images", "{split}", "images/{split}")  # where a file name may start from
_Id = int | str
_Faces = list[tuple[int, dict[str, Any]]]  # place in the list of annotations, annotation


def _files(root: pathlib.Path, options: Options) -> dict[str, str]:
  if options.files:
    return dict(options.files)
  names = {split: f"annotations/{split}.json" for split in _SPLITS}
  there = {split: name for split, name in names.items() if (root / name).is_file()}
  return {"train": names["train"], **there}


def _read(root: pathlib.Path, options: Options) -> Reading:
  reading = Reading()
  for split, file in _files(root, options).items():
    content = _load(root / file)
    labels = _labels(content["categories"], options.class_names, file)
    images = _by_id(content["images"], file, reading.problems)
    faces: dict[_Id, _Faces] = {key: [] for key in images}
    for place, annotation in enumerate(content["annotations"]):
      image_id = annotation.get("image_id")
      if not isinstance(image_id, _Id) or image_id not in faces:
        reading.problems.append(
          f"{file}: annotations[{place}]: image_id {image_id!r} is no image's id"
        )
      elif not annotation.get("iscrowd"):
        faces[image_id].append((place, annotation))
    parse = functools.partial(
      _entry, root=root, file=file, split=split, images=images, faces=faces, labels=labels
    )
    reading.add_all(images, parse)
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
      problems.append(f"{origin}: id {image_id!r} is that of {other} too; expected one of its own")
    else:
      by_id[image_id] = image
  return by_id


def _load(path: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
  try:
    content = json.loads(path.read_text(encoding="utf-8-sig"))
  except ValueError as error:
    raise LayoutError(f"{path}: malformed json: {error}") from error
  for key in ("images", "annotations", "categories"):
    rows = content.get(key) if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
      raise LayoutError(
        f"{path}: no list {key!r} of objects; expected images, annotations, categories"
      )
  if not content["images"]:
    raise LayoutError(f"{path}: the list 'images' is empty")
  return content


def _labels(
  categories: list[dict[str, Any]], class_names: tuple[str, ...], file: str
) -> dict[_Id, int]:
  labels = {}
  for place, category in enumerate(categories):
    category_id, origin = category.get("id"), f"{file}: categories[{place}]"
    if not isinstance(category_id, _Id):
      raise LayoutError(f"{origin}: id {category_id!r}; expected a number or text")
    labels[category_id] = parse_class(str(category.get("name")), class_names, origin)
  return labels


def _entry(
  image_id: _Id,
  *,
  root: pathlib.Path,
  file: str,
  split: str,
  images: Mapping[_Id, dict[str, Any]],
  faces: Mapping[_Id, _Faces],
  labels: Mapping[_Id, int],
) -> Entry:
  image = images[image_id]
  name = image.get("file_name")
  origin = f"{file}: image {image_id} ({name})"
  if not isinstance(name, str) or not name:
    raise RecordError(f"{origin}: no file_name")
  path = _find(root, name, split, origin)
  boxes, label = [], []
  for place, annotation in faces[image_id]:
    face_origin = f"{file}: annotations[{place}] ({name})"
    category = annotation.get("category_id")
    if not isinstance(category, _Id) or category not in labels:
      known = ", ".join(map(str, labels))
      raise RecordError(f"{face_origin}: category_id {category!r}; known: {known}")
    boxes.append(_box(annotation.get("bbox"), face_origin))
    label.append(labels[category])
  width, height = image.get("width"), image.get("height")
  size = (width, height) if isinstance(width, int) and isinstance(height, int) else None
  key = relative_key(path, root)
  return Entry(origin, key, str(path), split, tuple(label), boxes=tuple(boxes), size=size)


def _find(root: pathlib.Path, name: str, split: str, origin: str) -> pathlib.Path:
  candidates = [root / folder.format(split=split) / name for folder in _FOLDERS]
  found = next((path for path in candidates if path.is_file()), candidates[1])
  check_image_file(found, origin)
  return found


def _box(value: Any, origin: str) -> Box:
  try:
    x, y, width, height = (float(number) for number in value)
  except (TypeError, ValueError):
    raise RecordError(f"{origin}: bbox {value!r}; expected [x, y, width, height]") from None
  box = (x, y, x + width, y + height)
  check_box(box, origin)
  return box


COCO_JSON = DataSet(
  name="coco_json",
  title="COCO json",
  terms="your own data",
  request="Lay out annotations/{train,val,test}.json and images/, or name the files: "
  "--file train=FILE",
  releases=(
    Release(
      "json",
      lambda root, options: {
        file: f"annotations of the {split} split" for split, file in _files(root, options).items()
      },
      _read,
    ),
  ),
  tasks=("detection",),
  takes=("files",),
)

"""A folder for each split, with a folder for each class in it.

    DIR/train/happiness/0001.jpg
    DIR/val/happiness/any folder/0417.png

Class folders are named like the classes, in any case, or by another spelling that
`ferjax.expressions` knows ("Happy"). Pictures may lie deeper in them; hidden files are not read.
"""

import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from ferjax.data.datasets.face_records import FaceRecord, FaceSource
from ferjax.data.datasets.layout import (
  DataSet,
  Entry,
  LayoutError,
  Options,
  Reading,
  Release,
  relative_key,
)
from ferjax.data.datasets.records import RecordError, check_on_bad_record, read_records
from ferjax.data.preparation.splits import SPLITS
from ferjax.expressions import index_of_spelling

SUFFIXES = frozenset(
  (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm")
)
_LAYOUT = "DIR/<split>/<class>/*.jpg"


class ImageFolder(FaceSource):
  """Random access to the pictures of a split, ordered by path.

  Args:
    dir: holds a folder for each split.
    split: name of that folder.
    class_names: classes without a folder, or with an empty one, have no pictures.
    on_bad_record: "error", or "skip" to leave out pictures that lie outside the class folders.

  Raises:
    ValueError: naming the folder: it is missing, is named like no class, or holds no pictures.
  """

  def __init__(
    self,
    dir: str | os.PathLike,
    split: str,
    class_names: tuple[str, ...],
    on_bad_record: str = "error",
  ):
    check_on_bad_record(on_bad_record)
    root = pathlib.Path(dir) / split
    if not root.is_dir():
      raise ValueError(_without_split(pathlib.Path(dir), split, class_names))
    class_of = {folder.name: _class_of(folder, class_names) for folder in _folders(root)}
    paths = sorted(_images(root))
    if not paths:
      found = ", ".join(sorted(class_of)) or "none"
      raise ValueError(f"no images in {root}; expected {_LAYOUT}; class folders there: {found}")
    parse = functools.partial(_parse, root=root, class_of=class_of)
    records, skipped = read_records(paths, parse, origin=str(root), on_bad_record=on_bad_record)
    super().__init__(records, class_names, skipped, origin=str(root))


def _parse(path: pathlib.Path, *, root: pathlib.Path, class_of: dict[str, int]) -> FaceRecord:
  place = path.relative_to(root)
  if len(place.parts) == 1:
    raise RecordError(f"{path}: lies outside the class folders; expected {_LAYOUT}")
  return FaceRecord(f"{root.name}/{place}", str(path), class_of[place.parts[0]])


def _images(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Symbolic links are followed, unlike by `Path.rglob`."""
  for parent, folders, files in os.walk(folder, followlinks=True):
    folders[:] = [name for name in folders if not name.startswith(".")]
    for name in files:
      if not name.startswith(".") and pathlib.PurePath(name).suffix.lower() in SUFFIXES:
        yield pathlib.Path(parent, name)


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def _class_of(folder: pathlib.Path, class_names: tuple[str, ...]) -> int:
  try:
    return index_of_spelling(folder.name, class_names)
  except ValueError:
    raise ValueError(
      f"folder {folder} is named like no class; known: {', '.join(class_names)} "
      "(data.class_names, or --class-names of `ferjax data`); rename it, move it away, or name it "
      "there"
    ) from None


def _without_split(dir: pathlib.Path, split: str, class_names: tuple[str, ...]) -> str:
  """What to say where the folder of a split is missing."""
  if not dir.is_dir():
    return f"folder not found: {dir}; expected {_LAYOUT}"
  names = [folder.name for folder in _folders(dir)]
  classes = [name for name in names if _is_class(name, class_names)]
  if classes:
    return (
      f"{dir} holds the class folders {', '.join(classes)} themselves, and no folder {split!r}; "
      f"expected {_LAYOUT}: move them into {dir / 'train'}, and a part of the pictures, of other "
      f"people, into {dir / 'val'}"
    )
  return (
    f"split folder not found: {dir / split}; expected {_LAYOUT}; "
    f"folders there: {', '.join(names) or 'none'}"
  )


def _is_class(name: str, class_names: tuple[str, ...]) -> bool:
  try:
    index_of_spelling(name, class_names)
  except ValueError:
    return False
  return True


def _no_group(path: pathlib.PurePath) -> str:
  return ""


def read_class_folders(
  dir: pathlib.Path,
  folders: Mapping[str, str],
  options: Options,
  *,
  group_of: Callable[[pathlib.PurePath], str] = _no_group,
  every_class: bool = False,
) -> Reading:
  """The pictures of all splits.

  Args:
    dir: holds a folder for each split.
    folders: split -> name of that folder.
    options: class names.
    group_of: path -> subject or clip.
    every_class: a set as released has pictures of each class in each split.

  Raises:
    LayoutError: a folder that is named like no class, or a split or class without pictures.
  """
  reading = Reading()
  for split, name in folders.items():
    root = dir / name
    try:
      class_of = {folder.name: _class_of(folder, options.class_names) for folder in _folders(root)}
    except ValueError as error:
      raise LayoutError(str(error)) from None
    paths = sorted(_images(root))
    if not paths:
      raise LayoutError(f"no images in {root}; expected {root}/<class>/*.jpg")
    if every_class:
      _require_every_class(root, paths, class_of, options.class_names)

    def parse(
      path: pathlib.Path,
      root: pathlib.Path = root,
      split: str = split,
      class_of: dict[str, int] = class_of,
    ) -> Entry:
      record = _parse(path, root=root, class_of=class_of)
      key = relative_key(path, dir)
      return Entry(record.origin, key, record.path, split, record.label, group=group_of(path))

    reading.add_all(paths, parse)
  return reading


def _require_every_class(
  root: pathlib.Path,
  paths: Sequence[pathlib.Path],
  class_of: Mapping[str, int],
  class_names: tuple[str, ...],
) -> None:
  full = {class_of.get(path.relative_to(root).parts[0]) for path in paths}
  missing = [name for index, name in enumerate(class_names) if index not in full]
  if missing:
    raise LayoutError(
      f"no images of {', '.join(missing)} in {root}; expected a folder with images for each class; "
      f"folders there: {', '.join(sorted(class_of)) or 'none'}"
    )


def _split_folders(root: pathlib.Path, class_names: tuple[str, ...]) -> dict[str, str]:
  for folder in _folders(root):
    if folder.name not in SPLITS and any(_is_class(f.name, class_names) for f in _folders(folder)):
      raise LayoutError(
        f"{folder} holds folders of classes, but is no split; expected {', '.join(SPLITS)}: rename "
        "it, or move it away"
      )
  return {split: split for split in SPLITS if (root / split).is_dir()}


IMAGE_FOLDER = DataSet(
  name="image_folder",
  title="image folder",
  terms="your own data",
  request=f"Lay out the pictures as {_LAYOUT}",
  releases=(
    Release(
      "folders",
      lambda root, options: {"train": "a folder for each class; val and test likewise"},
      lambda root, options: read_class_folders(
        root, _split_folders(root, options.class_names), options
      ),
    ),
  ),
)

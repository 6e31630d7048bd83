"""A folder per split, each with a folder per class.

    DIR/train/happiness/0001.jpg
    DIR/val/happiness/any folder/0417.png

Class folders have the names of the classes, in any case, or synonyms that `ferjax.expressions`
knows ("Happy"). Images may be in subfolders.
"""

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence

from ferjax.data.datasets.base import SPLITS, DataSet, Options, Reading, Release
from ferjax.data.datasets.entries import Entry, LayoutError, RecordError
from ferjax.data.datasets.parsing import relative_key
from ferjax.data.datasets.splits import expect_splits, find_splits
from ferjax.data.image_files import list_folders
from ferjax.expressions import index_of_spelling

_LAYOUT = "DIR/<split>/<class>/*.jpg"


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
  """Reads the images of all wanted splits, ordered by path.

  Args:
    dir: contains a folder per split.
    folders: split -> name of its folder.
    options: class names and the wanted splits.
    group_of: path -> subject or clip.
    every_class: requires images of every class in every split, as in a released set.

  Raises:
    LayoutError: a folder that does not match a class, a split or class without images, or another
      folder of classes next to the splits.
  """
  if every_class:
    _require_no_other_split(dir, folders, options)
  reading = Reading(wanted=options.splits)
  for split, name in reading.choose(folders):
    root = dir / name
    class_of = {
      folder.name: _class_of(folder, options.class_names) for folder in list_folders(root)
    }
    paths = reading.list_images(root)
    if every_class:
      _require_every_class(root, paths, class_of, options.class_names)
    parse = functools.partial(
      _entry, dir=dir, root=root, split=split, class_of=class_of, group_of=group_of
    )
    known = ", ".join(sorted(class_of)) or "none"
    expected = f"no images; expected {_LAYOUT}; existing class folders: {known}"
    reading.add_all(paths, parse, split=split, where=root, expected=expected)
  return reading


def _entry(
  path: pathlib.Path,
  *,
  dir: pathlib.Path,
  root: pathlib.Path,
  split: str,
  class_of: Mapping[str, int],
  group_of: Callable[[pathlib.PurePath], str],
) -> Entry:
  place = path.relative_to(root)
  if len(place.parts) == 1:
    raise RecordError(f"{path} is outside the class folders; expected {_LAYOUT}")
  label, key = class_of[place.parts[0]], relative_key(path, dir)
  return Entry(f"{root.name}/{place}", key, str(path), split, label, group=group_of(path))


def _class_of(folder: pathlib.Path, class_names: tuple[str, ...]) -> int:
  try:
    return index_of_spelling(folder.name, class_names)
  except ValueError:
    raise LayoutError(
      f"folder {folder} does not match a class; known: {', '.join(class_names)} "
      "(data.class_names, or --class-names of `ferjax data`); rename it, move it away, or add its "
      "class"
    ) from None


def _class_folders(folder: pathlib.Path, class_names: tuple[str, ...]) -> list[str]:
  """The names of the subfolders that match a class."""
  names = []
  for path in list_folders(folder):
    try:
      index_of_spelling(path.name, class_names)
    except ValueError:
      continue
    names.append(path.name)
  return names


def _split_folders(dir: pathlib.Path, class_names: tuple[str, ...]) -> list[str]:
  """The names of the subfolders that are named like splits or contain class folders."""
  return [
    path.name
    for path in list_folders(dir)
    if path.name in SPLITS or _class_folders(path, class_names)
  ]


def _require_no_other_split(
  dir: pathlib.Path, folders: Mapping[str, str], options: Options
) -> None:
  """Refuses to take validation from train if another folder may contain it."""
  others = set(_split_folders(dir, options.class_names)) - set(folders.values())
  if others and "val" not in folders:
    raise LayoutError(
      f"{dir}: {', '.join(sorted(others))} contains class folders, but is not a split of this "
      f"release, which has {', '.join(folders.values())}; move it away, or read the folder as "
      "image_folder"
    )


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
      f"existing folders: {', '.join(sorted(class_of)) or 'none'}"
    )


def _folders(root: pathlib.Path, options: Options) -> dict[str, str]:
  """Split -> folder."""
  found = _split_folders(root, options.class_names)
  if not found and (classes := _class_folders(root, options.class_names)):
    raise LayoutError(
      f"{root} contains the class folders {', '.join(classes)}, but no split folder; expected "
      f"{_LAYOUT}: move them into {root / 'train'}, and some of the images, of other people, into "
      f"{root / 'val'}"
    )
  return find_splits(found, options, root=root, what="the folder of classes")


IMAGE_FOLDER = DataSet(
  name="image_folder",
  title="image folder",
  terms="your own data",
  request=f"Lay out the images as {_LAYOUT}",
  releases=(
    Release(
      "folders",
      lambda root, options: expect_splits(
        _folders(root, options), "a folder for each class, of the {} split"
      ),
      lambda root, options: read_class_folders(root, _folders(root, options), options),
    ),
  ),
  takes=("files",),
)

"""The image files of a folder, as data sets and commands look for them."""

import collections
import functools
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from PIL import Image

from ferjax.data.image import register_plugins

# Formats that Pillow opens by name only: data without pixels of its own, video, and drawings that
# need another program.
_NOT_PICTURES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"})

# What operating systems and storage devices leave behind, besides hidden files.
_SYSTEM_NAMES = frozenset(
  {
    "$recycle.bin",
    "@eadir",
    "__macosx",
    "desktop.ini",
    "ehthumbs.db",
    "icon\r",
    "lost+found",
    "system volume information",
    "thumbs.db",
  }
)


class ImageListing(NamedTuple):
  """The images of a folder.

  Attributes:
    files: their paths, sorted by folder and name; each starts with the folder as it was given.
    passed_over: suffix in lower case ("" for none) -> number of files that are not images.
  """

  files: list[pathlib.Path]
  passed_over: Mapping[str, int]

  def describe(self) -> str:
    """What was passed over, in one line; empty if nothing was."""
    return describe_passed_over(self.passed_over)


def describe_passed_over(passed_over: Mapping[str, int]) -> str:
  """`12 files passed over: 9 .heic, 3 without a suffix`; empty if nothing was passed over.

  Args:
    passed_over: suffix -> number of files, as in an `ImageListing`, or a sum of several.
  """
  total = sum(passed_over.values())
  if not total:
    return ""
  ordered = sorted(passed_over.items(), key=lambda item: (-item[1], item[0]))
  kinds = ", ".join(f"{count:,} {suffix or 'without a suffix'}" for suffix, count in ordered)
  return f"{total:,} {'file' if total == 1 else 'files'} passed over: {kinds}"


@functools.cache
def image_suffixes() -> frozenset[str]:
  """Suffixes, in lower case with the dot, of the pictures that the installed Pillow opens.

  .heic and .heif are among them where pillow-heif is installed.
  """
  register_plugins()
  Image.init()
  formats = (set(Image.OPEN) | {"MPO"}) - _NOT_PICTURES  # MPO is opened as JPEG
  return frozenset(
    suffix for suffix, name in Image.registered_extensions().items() if name in formats
  )


def list_images(
  folder: str | os.PathLike,
  *,
  recursive: bool = True,
  leave_out: Iterable[str | os.PathLike] = (),
) -> ImageListing:
  """The image files of a folder, by their suffix (`image_suffixes`, in any case).

  Hidden and system files and folders (`.x`, `._x.jpg`, `Thumbs.db`, `desktop.ini`, `__MACOSX`) are
  skipped and not counted. Links to folders are followed; a folder that can be reached in several
  ways is listed once, by its own path if that lies below `folder`.

  Args:
    folder: where to look.
    recursive: whether to look into its folders as well.
    leave_out: folders whose files are not listed, however they are reached, unless `folder` lies in
      one of them.

  Raises:
    OSError: a folder does not exist or cannot be read.
  """
  files, passed_over = [], collections.Counter()
  real = [pathlib.Path(os.path.realpath(path)) for path in leave_out]
  left_out = [path for path in real if not _lies_in(folder, [path])]
  for path in _walk(pathlib.Path(folder), recursive, left_out):
    if path.is_symlink() and _lies_in(path, left_out):
      continue
    if path.suffix.lower() in image_suffixes():
      files.append(path)
    else:
      passed_over[path.suffix.lower()] += 1
  return ImageListing(sorted(files), dict(passed_over))


def list_folders(folder: str | os.PathLike) -> list[pathlib.Path]:
  """The folders in a folder, sorted; hidden ones and those of the system are skipped."""
  paths = sorted(pathlib.Path(folder).iterdir())
  return [path for path in paths if path.is_dir() and not _is_hidden(path.name)]


def _is_hidden(name: str) -> bool:
  return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def _lies_in(path: str | os.PathLike, folders: Sequence[pathlib.Path]) -> bool:
  """Whether the real path is one of these real folders, or below one."""
  real = pathlib.Path(os.path.realpath(path))
  return any(real.is_relative_to(folder) for folder in folders)


def _walk(
  folder: pathlib.Path, recursive: bool, left_out: Sequence[pathlib.Path]
) -> Iterator[pathlib.Path]:
  """Every file of every folder once."""
  # Links wait until the folders themselves were looked into, so that these keep their own paths.
  starts, seen = collections.deque([folder]), set()
  while starts:
    links = []
    for root, folders, files in os.walk(starts.popleft(), onerror=_raise):
      here = os.path.realpath(root)
      if here in seen or _lies_in(here, left_out):
        folders.clear()
        continue
      seen.add(here)
      inner = [pathlib.Path(root, name) for name in folders if not _is_hidden(name)]
      links += [path for path in inner if path.is_symlink()]
      folders[:] = [path.name for path in inner if recursive]  # os.walk enters no links
      yield from (pathlib.Path(root, name) for name in files if not _is_hidden(name))
    if recursive:
      starts.extend(sorted(links))


def _raise(error: OSError) -> None:
  raise error

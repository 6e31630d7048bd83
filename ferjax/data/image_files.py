"""Lists the image files of a folder, for data sets and commands."""

import collections
import functools
import os
import pathlib
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from PIL import Image

from ferjax.data.image import NOT_IMAGES, register_plugins

# Files and folders that operating systems and storage devices create, besides hidden ones.
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
    files: their paths, sorted by folder and name; each starts with the given folder.
    ignored: suffix in lower case ("" for none) -> number of files that are not images.
  """

  files: list[pathlib.Path]
  ignored: Mapping[str, int]

  def describe(self) -> str:
    """The ignored files in one line; empty if there are none."""
    return describe_ignored(self.ignored)


def describe_ignored(ignored: Mapping[str, int]) -> str:
  """`12 files ignored: 9 .heic, 3 without a suffix`; empty if there are none.

  Args:
    ignored: suffix -> number of files, from one `ImageListing` or summed over several.
  """
  total = sum(ignored.values())
  if not total:
    return ""
  ordered = sorted(ignored.items(), key=lambda item: (-item[1], item[0]))
  kinds = ", ".join(f"{count:,} {suffix or 'without a suffix'}" for suffix, count in ordered)
  return f"{total:,} {'file' if total == 1 else 'files'} ignored: {kinds}"


@functools.cache
def image_suffixes() -> frozenset[str]:
  """Suffixes, in lower case with the dot, of the image formats that the installed Pillow opens.

  Includes .heic and .heif if pillow-heif is installed.
  """
  register_plugins()
  Image.init()
  formats = (set(Image.OPEN) | {"MPO"}) - NOT_IMAGES  # MPO is opened as JPEG
  return frozenset(
    suffix for suffix, name in Image.registered_extensions().items() if name in formats
  )


def list_images(
  folder: str | os.PathLike,
  *,
  recursive: bool = True,
  exclude: Iterable[str | os.PathLike] = (),
) -> ImageListing:
  """Lists the image files of a folder by their suffix (`image_suffixes`, in any case).

  Hidden and system files and folders (`.x`, `._x.jpg`, `Thumbs.db`, `desktop.ini`, `__MACOSX`) are
  skipped and not counted, and so are pipes, sockets and devices. Links to folders are followed; a
  folder that can be reached in several ways is listed once, by its own path if that is below
  `folder`.

  Args:
    folder: the folder to search.
    recursive: whether to search its subfolders as well.
    exclude: folders whose files are not listed, even if reached through links, unless `folder` is
      inside one of them.

  Raises:
    OSError: a folder does not exist or cannot be read.
  """
  files, ignored = [], collections.Counter()
  real = [pathlib.Path(os.path.realpath(path)) for path in exclude]
  excluded = [path for path in real if not _is_inside(folder, [path])]
  for path in _walk(pathlib.Path(folder), recursive, excluded):
    if path.is_symlink() and _is_inside(path, excluded):
      continue
    if path.suffix.lower() in image_suffixes():
      files.append(path)
    else:
      ignored[path.suffix.lower()] += 1
  return ImageListing(sorted(files), dict(ignored))


def list_folders(folder: str | os.PathLike) -> list[pathlib.Path]:
  """The direct subfolders, sorted; hidden and system folders are skipped."""
  paths = sorted(pathlib.Path(folder).iterdir())
  return [path for path in paths if path.is_dir() and not _is_hidden(path.name)]


def _is_hidden(name: str) -> bool:
  return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def _is_inside(path: str | os.PathLike, folders: Sequence[pathlib.Path]) -> bool:
  """Whether the real path is one of these real folders, or below one."""
  real = pathlib.Path(os.path.realpath(path))
  return any(real.is_relative_to(folder) for folder in folders)


def _is_special(path: pathlib.Path) -> bool:
  """Whether a path is a pipe, a socket or a device: reading one may never end."""
  try:
    return not stat.S_ISREG(path.stat().st_mode)
  except OSError:  # a link to a missing file, which reading it reports
    return False


def _walk(
  folder: pathlib.Path, recursive: bool, excluded: Sequence[pathlib.Path]
) -> Iterator[pathlib.Path]:
  """Yields every file of every folder once."""
  # Links are followed after the real folders, so that these keep their own paths.
  starts, seen = collections.deque([folder]), set()
  while starts:
    links = []
    for root, folders, files in os.walk(starts.popleft(), onerror=_raise):
      here = os.path.realpath(root)
      if here in seen or _is_inside(here, excluded):
        folders.clear()
        continue
      seen.add(here)
      inner = [pathlib.Path(root, name) for name in folders if not _is_hidden(name)]
      links += [path for path in inner if path.is_symlink()]
      folders[:] = [path.name for path in inner if recursive]  # os.walk does not follow links
      paths = (pathlib.Path(root, name) for name in files if not _is_hidden(name))
      yield from (path for path in paths if not _is_special(path))
    if recursive:
      starts.extend(sorted(links))


def _raise(error: OSError) -> None:
  raise error

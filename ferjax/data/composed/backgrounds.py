"""The photographs without faces of each split, and parts of them."""

import hashlib
import os
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from ferjax.config import ComposeConfig
from ferjax.data.datasets.base import SPLITS
from ferjax.data.datasets.entries import LayoutError
from ferjax.data.datasets.parsing import read_lines
from ferjax.data.image_files import image_suffixes, list_images

Image = UInt8[np.ndarray, "h w 3"]
Part = UInt8[np.ndarray, "i j 3"]


def find_backgrounds(config: ComposeConfig, split: str) -> list[str]:
  """The paths of a split's backgrounds, sorted; no background is in two splits.

  Without `val_backgrounds` or `test_backgrounds`, a split gets the fraction `held_out` of the
  folder. A hash of its path below the folder decides for each file, so adding or removing files
  moves no other file to another split.

  Raises:
    LayoutError: a missing folder or file, no backgrounds, or one in both validation and test.
  """
  if not config.backgrounds:
    raise LayoutError(
      "data.compose.backgrounds is empty; pass a folder of photographs without faces: "
      "--config.data.compose.backgrounds=DIR"
    )
  folder = pathlib.Path(config.backgrounds)
  files = _list(folder, "data.compose.backgrounds")
  named = {
    name: _read_named(value, folder, f"data.compose.{name}_backgrounds")
    for name in ("val", "test")
    if (value := getattr(config, f"{name}_backgrounds"))
  }
  real = {name: {os.path.realpath(file) for file in members} for name, members in named.items()}
  if shared := real.get("val", set()) & real.get("test", set()):
    raise LayoutError(
      f"{min(shared)} is named by both data.compose.val_backgrounds and "
      "data.compose.test_backgrounds; remove it from one of them"
    )
  if split in named:
    found = named[split]
  else:
    held_out = [name for name in ("val", "test") if name not in named]
    taken = set().union(*real.values())
    free = [file for file in files if os.path.realpath(file) not in taken]
    found = [file for file in free if _assign(file, folder, held_out, config.held_out) == split]
  if not found:
    raise LayoutError(
      f"{folder}: no background for the split {split}, of {len(files)} images; add images, set "
      f"data.compose.held_out ({config.held_out}), or name those of val with "
      "--config.data.compose.val_backgrounds=LIST"
    )
  return sorted(map(os.fspath, found))


def _list(folder: pathlib.Path, field: str) -> list[pathlib.Path]:
  try:
    listing = list_images(folder)
  except OSError as error:
    raise LayoutError(f"{field}: {folder} cannot be read: {error}; expected a folder") from error
  if not listing.files:
    ignored = f" ({listing.describe()})" if listing.ignored else ""
    raise LayoutError(
      f"{field}: no images in {folder}{ignored}; expected files ending in one of "
      f"{', '.join(sorted(image_suffixes())[:8])}, ..."
    )
  return listing.files


def _read_named(value: str, folder: pathlib.Path, field: str) -> list[pathlib.Path]:
  """The images of a folder, or those whose names below `folder` are the lines of a file."""
  path = pathlib.Path(value)
  if path.is_dir():
    return _list(path, field)
  if not path.is_file():
    raise LayoutError(
      f"{field}: {value} not found; expected a folder, or a text file with one name below "
      f"{folder} a line"
    )
  lines = read_lines(path)
  if not lines:
    raise LayoutError(f"{field}: {value} is empty; expected a name below {folder} a line")
  for line, name in lines:
    if not (folder / name).is_file():
      raise LayoutError(f"{value}:{line}: {name!r} not found; expected a name below {folder}")
  return [folder / name for _, name in lines]


def _assign(
  file: pathlib.Path, folder: pathlib.Path, held_out: Sequence[str], fraction: float
) -> str:
  """The split of a file that no list names."""
  name = file.relative_to(folder).as_posix()
  digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
  place = int.from_bytes(digest, "big") / 2**64
  for number, split in enumerate(held_out, start=1):
    if place < number * fraction:
      return split
  return SPLITS[0]


def random_part(
  rng: np.random.Generator, background: Image, size: tuple[int, int], least: float
) -> Part:
  """A random part of a background, scaled to `size`; a small background is enlarged.

  Args:
    rng: the only source of randomness.
    background: the photograph.
    size: width and height of the result, whose aspect the part has.
    least: the smallest part, relative to the largest one that fits into the photograph.
  """
  height, width = background.shape[:2]
  scale = min(width / size[0], height / size[1]) * rng.uniform(least, 1)
  across, down = (max(1, int(scale * length)) for length in size)
  across, down = min(across, width), min(down, height)
  left = int(rng.integers(width - across, endpoint=True))
  top = int(rng.integers(height - down, endpoint=True))
  pixels = background[top : top + down, left : left + across]
  # Averaging areas costs three times as much, and matters only where linear would skip pixels.
  method = cv2.INTER_CUBIC if scale < 1 else cv2.INTER_LINEAR if scale < 2 else cv2.INTER_AREA
  return cv2.resize(np.ascontiguousarray(pixels), size, interpolation=method)

"""The weights that are known by name: those of this package, and those of the user's folder."""

import importlib.resources
import os
import pathlib
from importlib.resources.abc import Traversable

from ferjax.weights.file import SUFFIX, WeightsFile, read_weights

VARIABLE = "FERJAX_WEIGHTS"


def known_weights() -> list[str]:
  """The known names, sorted: every weights file is known by its name without the suffix.

  Raises:
    NotADirectoryError: FERJAX_WEIGHTS is not a folder.
  """
  return sorted(_files())


def read_known(name: str) -> WeightsFile:
  """Reads known weights.

  Raises:
    KeyError: an unknown name.
    ValueError: as `read_weights`.
  """
  return read_weights(_files()[name], name)


def _files() -> dict[str, Traversable | pathlib.Path]:
  """Name -> file. The user's folder comes last, so its files replace those of the package."""
  found: dict[str, Traversable | pathlib.Path] = {}
  for folder in (importlib.resources.files("ferjax.weights") / "files", _own_folder()):
    if folder is not None and folder.is_dir():
      for file in folder.iterdir():
        if file.name.endswith(SUFFIX):
          found[file.name.removesuffix(SUFFIX)] = file
  return found


def _own_folder() -> pathlib.Path | None:
  given = os.environ.get(VARIABLE)
  if not given:
    return None
  folder = pathlib.Path(given).expanduser()
  if not folder.is_dir():
    raise NotADirectoryError(f"{VARIABLE} is {given!r}; expected a folder with weights files")
  return folder

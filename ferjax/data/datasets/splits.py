"""Finds the splits of user-defined data: one rule for all readers."""

import os
import shlex
from collections.abc import Iterable, Mapping

from ferjax.data.datasets.base import SPLITS, Options
from ferjax.data.datasets.entries import LayoutError


def find_splits(
  found: Iterable[str],
  options: Options,
  *,
  root: object,
  what: str,
  default: str = "{}",
) -> dict[str, str]:
  """Split -> its name in user-defined data; nothing is guessed.

  Args:
    found: the existing names, each of which should be a split.
    options: its `files` names the splits that are not called train, val or test.
    root: location of the names, for messages.
    what: kind of the names, for messages: "the folder".
    default: name of a split that is not in `files`, with {} for train, val or test.

  Returns:
    The splits that are named or exist, and those that are required.

  Raises:
    LayoutError: an existing name is not a split (unless train and val are both named), or a named
      one does not exist.
  """
  found = sorted(found)
  named = {split: os.path.normpath(name) for split, name in options.files.items()}
  own = {split: default.format(split) for split in SPLITS}
  unknown = [name for name in found if name not in {*own.values(), *named.values()}]
  if unknown and not {"train", "val"} <= named.keys():
    first = shlex.quote(unknown[0])
    absent = next((s for s in SPLITS if s not in named and own[s] not in found), "val")
    is_not = "is not a split" if len(unknown) == 1 else "are not splits"
    raise LayoutError(
      f"{what} {', '.join(unknown)} in {root} {is_not}; expected {', '.join(own.values())}; "
      f"existing: {', '.join(found)}. Rename it, move it away, or name its split: "
      f"--file {absent}={first}, or --config.data.{absent}={first}"
    )
  for split, name in named.items():
    is_wanted = not options.splits or split in options.splits
    if is_wanted and name not in found and not os.path.exists(os.path.join(str(root), name)):
      raise LayoutError(
        f"{what} {name} of the split {split} not found in {root}; existing: "
        f"{', '.join(found) or 'none'}"
      )
  names = {s: named.get(s, own[s]) for s in SPLITS if s in named or own[s] in found}
  for split in options.splits or ("train",):
    needed = split if split in names or split != "val" else "train"  # val is taken from train
    names.setdefault(needed, own[needed])
  return names


def expect_splits(names: Mapping[str, str], what: str, path: str = "{}") -> dict[str, str]:
  """`Release.expected` for splits with one file or folder each.

  Args:
    names: as returned by `find_splits`.
    what: description of the content, with {} for the split.
    path: path of each, with {} for its name.
  """
  return {path.format(name): what.format(split) for split, name in names.items()}

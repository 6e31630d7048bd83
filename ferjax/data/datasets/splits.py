"""What splits are called in data of one's own: one rule for all readers."""

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
  """Split -> what it is called in data of one's own; nothing is guessed.

  Args:
    found: the names that are there, of which each should be a split's.
    options: its `files` says what splits are called that are not called train, val or test.
    root: where they stand, for messages.
    what: names are called in messages: "folder".
    default: what a split is called, with {} for its own name.

  Returns:
    The splits that are named or there, and what must be there.

  Raises:
    LayoutError: a name is that of no split, or what is named is not there. Where both train and
      val are named, nothing would be decided by what is there besides.
  """
  found = sorted(found)
  named = {split: os.path.normpath(name) for split, name in options.files.items()}
  own = {split: default.format(split) for split in SPLITS}
  unknown = [name for name in found if name not in {*own.values(), *named.values()}]
  if unknown and not {"train", "val"} <= named.keys():
    first = shlex.quote(unknown[0])
    absent = next((s for s in SPLITS if s not in named and own[s] not in found), "val")
    raise LayoutError(
      f"{what} {', '.join(unknown)} in {root} is no split; expected {', '.join(own.values())}; "
      f"there: {', '.join(found)}. Rename it, move it away, or say which split it is: "
      f"--file {absent}={first}, or --config.data.{absent}={first}"
    )
  for split, name in named.items():
    is_wanted = not options.splits or split in options.splits
    if is_wanted and name not in found and not os.path.exists(os.path.join(str(root), name)):
      raise LayoutError(
        f"{what} {name} of the split {split} not found in {root}; there: "
        f"{', '.join(found) or 'none'}"
      )
  there = {s: named.get(s, own[s]) for s in SPLITS if s in named or own[s] in found}
  for split in options.splits or ("train",):
    needed = split if split in there or split != "val" else "train"  # which val is cut from
    there.setdefault(needed, own[needed])
  return there


def expect_splits(names: Mapping[str, str], what: str, path: str = "{}") -> dict[str, str]:
  """`Release.expected` of splits that have a file or folder each.

  Args:
    names: as `find_splits` returns them.
    what: they hold, with {} for the split.
    path: of each, with {} for its name.
  """
  return {path.format(name): what.format(split) for split, name in names.items()}

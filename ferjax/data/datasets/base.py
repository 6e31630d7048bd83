"""Data sets on disk: which files are expected, and how entries are read.

A `DataSet` describes a set; its releases define the required files and how to read them. The rules
for all readers are here; functions that read text are in `parsing`.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

import numpy as np

from ferjax.data.datasets.entries import Entry, LayoutError, RecordError
from ferjax.data.image_files import list_images
from ferjax.expressions import EXPRESSIONS, SEVEN_EXPRESSIONS

TASKS = ("classification", "detection")
SPLITS = ("train", "val", "test")
RULES = ("majority", "probability")
OVERHANG = 2.0  # pixels that a box may extend beyond the image: rounding, 1-based pixels
# Options that apply only to some sets -> their names on the command line and in a config.
_FLAGS = {
  "rule": ("--rule", "data.rule"),
  "files": ("--file", "data.train, data.val and data.test"),
  "table": ("--table", "data.csv"),
  "columns": ("--columns", "data.group_columns"),
}
Row = TypeVar("Row")


@dataclasses.dataclass(frozen=True)
class Options:
  """The options of a data set.

  Attributes:
    task: "classification" or "detection"; "" for the set's first.
    class_names: in the order of the labels; () for the set's own.
    rule: FERPlus: how votes become a label of the train split, "majority" or "probability".
    files: split -> its name in user-defined data: an annotation file below the folder, an image
      set, a folder, or a value of the column `split`.
    table: csv: path of the table below the folder.
    margin: fraction of a face box's side that is added on each side before cropping.
    splits: the splits to read; () for all.
    columns: csv: further columns, whose values become the attributes of the records.
  """

  task: str = ""
  class_names: tuple[str, ...] = ()
  rule: str = "majority"
  files: Mapping[str, str] = dataclasses.field(default_factory=dict)
  table: str = "labels.csv"
  margin: float = 0.0
  splits: tuple[str, ...] = ()
  # Not in the text that identifies an interrupted preparation: the records have the attributes.
  columns: tuple[str, ...] = dataclasses.field(default=(), repr=False)


@dataclasses.dataclass
class Reading:
  """The result of reading a set.

  Attributes:
    entries: in the order of the set.
    problems: one per bad record, naming file and row.
    dropped: reason -> number of rows left out by the set's own rules, which are not errors.
    wanted: the splits to read, as `Options.splits`.
    splits: the existing splits, wanted or not, as far as the reader finds them.
    unreadable: problems, each with what is known of its record, if the reader reports that.
    ignored: suffix -> number of files that are not images.
  """

  entries: list[Entry] = dataclasses.field(default_factory=list)
  problems: list[str] = dataclasses.field(default_factory=list)
  dropped: dict[str, int] = dataclasses.field(default_factory=dict)
  wanted: tuple[str, ...] = ()
  splits: set[str] = dataclasses.field(default_factory=set)
  unreadable: list[tuple[str, Entry]] = dataclasses.field(default_factory=list)
  ignored: dict[str, int] = dataclasses.field(default_factory=dict)

  def choose(self, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yields the wanted splits with their names; records all."""
    self.splits.update(names)
    for split, name in names.items():
      if not self.wanted or split in self.wanted:
        yield split, name

  def list_images(self, folder: pathlib.Path) -> list[pathlib.Path]:
    """The images below a folder; counts the other files."""
    files, ignored = list_images(folder)
    for suffix, count in ignored.items():
      self.ignored[suffix] = self.ignored.get(suffix, 0) + count
    return files

  def add_all(
    self,
    rows: Iterable[Row],
    parse: Callable[[Row], Entry | str | None],
    *,
    split: str | Callable[[Row], str] = "",
    where: object = "",
    expected: str = "",
  ) -> None:
    """Parses rows and adds their entries; a RecordError becomes a problem.

    Args:
      rows: the arguments of `parse`.
      parse: row -> an entry, a reason to drop the row, or None for no example.
      split: of all rows, or a function that returns a row's split; rows of unwanted splits are not
        parsed. "" if only the entries know their split.
      where: file or folder of the rows, for messages.
      expected: the expected form of a row; if given, at least one row is required.

    Raises:
      LayoutError: no rows, or a split with only bad or dropped records.
    """
    good: set[str] = set()
    lost: dict[str, list[str]] = {}  # split -> why its records are not entries
    is_empty = True
    for row in rows:
      is_empty, name = False, ""
      try:
        name = split if isinstance(split, str) else split(row)
        if name:
          self.splits.add(name)
          if self.wanted and name not in self.wanted:
            continue
        entry = parse(row)
      except RecordError as error:
        self.problems.append(str(error))
        lost.setdefault(name, []).append(str(error))
        if error.example is not None:
          self.unreadable.append((str(error), error.example))
        continue
      if isinstance(entry, Entry):
        good.add(name)
        self.entries.append(entry)
      elif entry is not None:
        lost.setdefault(name, []).append(entry)
        self.dropped[entry] = self.dropped.get(entry, 0) + 1
    if is_empty and expected:
      raise LayoutError(f"{where}: empty; {expected}")
    for name, reasons in lost.items():
      if name and name not in good:
        raise LayoutError(
          f"{where}: no valid records of the split {name!r}: all {len(reasons)} records are bad or "
          f"left out, the first: {reasons[0]}"
        )


@dataclasses.dataclass(frozen=True)
class Release:
  """A format in which a set is released.

  Attributes:
    name: "csv".
    expected: (root, options) -> required paths below the folder, each with a description.
    read: (root, options) -> the reading; LayoutError if a whole file is malformed.
    official: (options) -> split -> class name or "total" -> published count.
  """

  name: str
  expected: Callable[[pathlib.Path, Options], Mapping[str, str]]
  read: Callable[[pathlib.Path, Options], Reading]
  official: Callable[[Options], Mapping[str, Mapping[str, int]]] = lambda options: {}


@dataclasses.dataclass(frozen=True)
class DataSet:
  """A data set that ferjax knows.

  Attributes:
    name: on the command line, in a config and in tfds.
    title: full name.
    terms: licence or terms of use, and whether they were verified.
    request: how to get it.
    releases: known formats; the first that matches is read.
    tasks: tasks it can be used for; the first is the default.
    class_counts: possible numbers of classes; () for user-defined data with any class names.
    takes: the fields of `Options` that apply to it, of rule, files, table and columns.
    overhang: pixels that a box may extend beyond the image.
    votes: names of the counts in `Entry.votes`; () without votes.
  """

  name: str
  title: str
  terms: str
  request: str
  releases: tuple[Release, ...]
  tasks: tuple[str, ...] = ("classification",)
  class_counts: tuple[int, ...] = ()
  takes: tuple[str, ...] = ()
  overhang: float = OVERHANG
  votes: tuple[str, ...] = ()

  def complete(self, options: Options) -> Options:
    """Fills in the defaults.

    Raises:
      ValueError: an invalid option, or one that does not apply to this set.
    """
    task = options.task or self.tasks[0]
    if task not in self.tasks:
      raise ValueError(f"{self.title} has no task {task!r}; known: {', '.join(self.tasks)}")
    if options.rule not in RULES:
      raise ValueError(f"unknown rule {options.rule!r}; known: {', '.join(RULES)}")
    for field, (flag, config) in _FLAGS.items():
      value = getattr(options, field)
      if field not in self.takes and value != getattr(Options(), field):
        raise ValueError(
          f"{flag} is given ({value!r}), but does not apply to {self.title}; remove it (in a "
          f"config: {config})"
        )
    if not 0 <= options.margin < np.inf:
      raise ValueError(f"--margin {options.margin}; expected 0 or more, such as 0.2 for a fifth")
    return dataclasses.replace(options, task=task, class_names=self._class_names(options))

  def _class_names(self, options: Options) -> tuple[str, ...]:
    default = EXPRESSIONS[: self.class_counts[0]] if self.class_counts else SEVEN_EXPRESSIONS
    names = tuple(options.class_names) or default
    if len(set(names)) != len(names) or not all(names):
      raise ValueError(f"--class-names {','.join(names)}; expected unique, non-empty names")
    has_all = any(set(EXPRESSIONS[:n]) <= set(names) for n in self.class_counts)
    if self.class_counts and not (has_all and (not self.votes or set(names) <= set(EXPRESSIONS))):
      raise ValueError(
        f"{self.title} has {' or '.join(map(str, self.class_counts))} classes: "
        f"{', '.join(EXPRESSIONS[: self.class_counts[-1]])}; got {', '.join(names)}"
      )
    return names

  def read(self, root: str | os.PathLike, options: Options) -> tuple[Release, Reading]:
    """Finds the release in `root` and reads it.

    Args:
      root: the folder of the set.
      options: as returned by `complete`.

    Raises:
      LayoutError: a missing or malformed file, an unknown split name, or a split without a valid
        record.
      ValueError: a margin for a set without face boxes to crop.
    """
    release = self.find_release(root, options)
    reading = release.read(pathlib.Path(root), options)
    entries = reading.entries
    reading.splits.update(entry.split for entry in entries)
    if options.splits:
      reading.entries = [entry for entry in entries if entry.split in options.splits]
    if options.margin and entries and not any(entry.crop for entry in entries):
      raise ValueError(
        f"--margin {options.margin} is for faces that are cropped from photographs; {self.title}, "
        f"release {release.name}, for {options.task} has none: remove it (in a config: "
        "data.margin)"
      )
    return release, reading

  def find_release(self, root: str | os.PathLike, options: Options) -> Release:
    """The release in `root`.

    Raises:
      LayoutError: no known release; the message lists which files exist and which are missing.
    """
    folder = pathlib.Path(root)
    if "://" in os.fspath(root):
      raise LayoutError(f"{root} is not a local path; copy the data set to a local folder first")
    if folder.is_file():
      raise LayoutError(f"{folder} is a file; expected the folder of the data set")
    if not folder.is_dir():
      raise LayoutError(f"folder not found: {folder}. {self.request}")
    found = {}
    for release in self.releases:
      expected = release.expected(folder, options)
      missing = [path for path in expected if not (folder / path).exists()]
      if not missing:
        return release
      found[release] = (len(missing) / len(expected), missing, expected)
    release = min(found, key=lambda release: found[release][0])
    _, missing, expected = found[release]
    lines = [
      f"  {'missing' if path in missing else 'found  '}  {folder / path}  ({what})"
      for path, what in expected.items()
    ]
    others = [r.name for r in self.releases if r is not release]
    form = f" (release {release.name!r}; also known: {', '.join(others)})" if others else ""
    lines = [f"{folder} does not have the layout of {self.title}{form}:", *lines, self.request]
    raise LayoutError("\n".join(lines))

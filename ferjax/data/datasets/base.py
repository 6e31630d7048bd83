"""Data sets as they lie on disk: what is expected where, and how their entries are read.

A `DataSet` describes a set; its releases know which files there must be and how to read them. The
rules that hold for all readers stand here, and what they do with text in `parsing`.
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
# Options that mean something to some sets only: on the command line, and in a config.
_FLAGS = {
  "rule": ("--rule", "data.rule"),
  "files": ("--file", "data.train, data.val and data.test"),
  "table": ("--table", "data.csv"),
}
Row = TypeVar("Row")


@dataclasses.dataclass(frozen=True)
class Options:
  """The options of a data set.

  Attributes:
    task: "classification" or "detection"; "" for the first that the set has.
    class_names: in the order of the labels; () for the set's own.
    rule: FERPlus: how votes become a label of the train split, "majority" or "probability".
    files: split -> what it is called in data of one's own: an annotation file below the folder, an
      image set, a folder, or a value of the column `split`.
    table: csv: the table below the folder.
    margin: fraction of a face box's side that is added on each side before cropping.
    splits: that are read; () for all.
  """

  task: str = ""
  class_names: tuple[str, ...] = ()
  rule: str = "majority"
  files: Mapping[str, str] = dataclasses.field(default_factory=dict)
  table: str = "labels.csv"
  margin: float = 0.0
  splits: tuple[str, ...] = ()


@dataclasses.dataclass
class Reading:
  """What was read: entries, what is wrong (each naming file and row), and what was left out.

  Attributes:
    entries: in the order of the set.
    problems: one for each bad record.
    dropped: what the set's own rules leave out, by reason; that is no error.
    wanted: the splits that are read, as `Options.splits`.
    splits: those that are there, wanted or not, as far as the reader tells.
    unreadable: problems with what is known of their record, where that is told.
    passed_over: suffix -> number of files that are no images.
  """

  entries: list[Entry] = dataclasses.field(default_factory=list)
  problems: list[str] = dataclasses.field(default_factory=list)
  dropped: dict[str, int] = dataclasses.field(default_factory=dict)
  wanted: tuple[str, ...] = ()
  splits: set[str] = dataclasses.field(default_factory=set)
  unreadable: list[tuple[str, Entry]] = dataclasses.field(default_factory=list)
  passed_over: dict[str, int] = dataclasses.field(default_factory=dict)

  def choose(self, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Those of the splits, and their names, that are wanted."""
    self.splits.update(names)
    for split, name in names.items():
      if not self.wanted or split in self.wanted:
        yield split, name

  def list_images(self, folder: pathlib.Path) -> list[pathlib.Path]:
    """The images below a folder; what else lies there is counted."""
    files, passed_over = list_images(folder)
    for suffix, count in passed_over.items():
      self.passed_over[suffix] = self.passed_over.get(suffix, 0) + count
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
    """Parses rows: to an entry, to a reason to drop the row, or to None for no example.

    A RecordError becomes a problem.

    Args:
      rows: as `parse` takes them.
      parse: what makes of a row an entry.
      split: of all rows, or what tells that of a row; rows of splits that are not wanted are not
        parsed. "" if only the entries tell it.
      where: file or folder of the rows, for messages.
      expected: what a row looks like; if given, there must be one.

    Raises:
      LayoutError: no rows, or a split of which every record is bad.
    """
    good: set[str] = set()
    lost: dict[str, list[str]] = {}  # split -> why records of it are no entries
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
          f"{where}: no records of the split {name!r} to read: all {len(reasons)} records are bad "
          f"or left out, the first: {reasons[0]}"
        )


@dataclasses.dataclass(frozen=True)
class Release:
  """A format in which a set is released.

  Attributes:
    name: "csv".
    expected: (root, options) -> required paths below the folder, with their description.
    read: (root, options) -> what is there; LayoutError where a file is malformed as a whole.
    official: (options) -> split -> class name, or "total", -> number, as published.
  """

  name: str
  expected: Callable[[pathlib.Path, Options], Mapping[str, str]]
  read: Callable[[pathlib.Path, Options], Reading]
  official: Callable[[Options], Mapping[str, Mapping[str, int]]] = lambda options: {}


@dataclasses.dataclass(frozen=True)
class DataSet:
  """A data set that ferjax knows.

  Attributes:
    name: as the command line, a config and tfds call it.
    title: full name.
    terms: licence or terms of use, and whether they were verified.
    request: how to get it.
    releases: known formats; the first that matches is read.
    tasks: what it can be used for; the first is the default.
    class_counts: numbers of classes that its labels may have; () for any names of the user's, in
      data of one's own.
    takes: the fields of `Options` that apply to it, of rule, files and table.
    overhang: pixels that a box may extend beyond the image.
    votes: what annotators voted for, where `Entry.votes` holds their numbers.
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
      ValueError: an option that this set does not have.
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
          "config: "
          f"{config})"
        )
    if not 0 <= options.margin < np.inf:
      raise ValueError(f"--margin {options.margin}; expected 0 or more, as 0.2 for a fifth")
    return dataclasses.replace(options, task=task, class_names=self._class_names(options))

  def _class_names(self, options: Options) -> tuple[str, ...]:
    default = EXPRESSIONS[: self.class_counts[0]] if self.class_counts else SEVEN_EXPRESSIONS
    names = tuple(options.class_names) or default
    if len(set(names)) != len(names) or not all(names):
      raise ValueError(f"--class-names {','.join(names)}; expected names, none of them twice")
    has_all = any(set(EXPRESSIONS[:n]) <= set(names) for n in self.class_counts)
    if self.class_counts and not (has_all and (not self.votes or set(names) <= set(EXPRESSIONS))):
      raise ValueError(
        f"{self.title} has {' or '.join(map(str, self.class_counts))} classes: "
        f"{', '.join(EXPRESSIONS[: self.class_counts[-1]])}; got {', '.join(names)}"
      )
    return names

  def read(self, root: str | os.PathLike, options: Options) -> tuple[Release, Reading]:
    """The release that lies in `root`, and what is in it.

    Args:
      root: the folder of the set.
      options: as `complete` returns them.

    Raises:
      LayoutError: a missing or malformed file, a split whose name is not known, or one without a
        good record.
      ValueError: a margin, where nothing is cut out.
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
      raise LayoutError(f"{root} is not on this machine; copy the data set to a local folder first")
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

"""Data sets as they lie on disk: what is expected where, and the entries that are read from it.

A `DataSet` describes a set; its releases know which files there must be and how to read them. An
`Entry` is one example, not yet looked at: only `ferjax.data.preparation.examples` opens the image.
"""

import dataclasses
import io
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from ferjax.data.datasets.records import OVERHANG, RecordError
from ferjax.expressions import EXPRESSIONS, SEVEN_EXPRESSIONS, index_of

TASKS = ("classification", "detection")
RULES = ("majority", "probability")
_FLAGS = {"rule": "--rule", "files": "--file", "table": "--table"}  # only for sets that take them
Box = tuple[float, float, float, float]


class LayoutError(ValueError):
  """A folder is not what was expected; the message says which file, and what to do."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pixels:
  """A picture that a table holds: `values` are its grey values, row by row."""

  values: bytes
  width: int
  height: int

  def encode(self) -> bytes:
    """As a PNG file."""
    grey = np.frombuffer(self.values, np.uint8).reshape(self.height, self.width)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    return file.getvalue()


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
  """One example of a data set.

  Attributes:
    origin: file and row that it comes from: "list.txt:12 (images/a.jpg)".
    key: tells it from all others of the set, wherever the folder lies.
    image: path of the file, or the pixels.
    split: "train", "val" or "test", as released.
    label: class index, or a distribution over the classes; for a detector an index for each box.
    boxes: xyxy pixels of the upright image; None for a classifier.
    relative: `boxes` are parts of width and height, 0..1, instead.
    crop: xyxy pixels of the face that a classifier is shown; None for the whole image.
    group: subject or clip; "" where nothing tells it.
    size: width and height that an annotation claims for the image.
    votes: of the annotators, where they are kept.
  """

  origin: str
  key: str
  image: str | Pixels
  split: str
  label: int | tuple[float, ...] | tuple[int, ...]
  boxes: tuple[Box, ...] | None = None
  relative: bool = False
  crop: Box | None = None
  group: str = ""
  size: tuple[int, int] | None = None
  votes: tuple[int, ...] = ()

  @property
  def classes(self) -> tuple[int, ...]:
    """Class indices: of each box, or the most probable one."""
    if self.boxes is not None:
      return tuple(int(c) for c in self.label)  # pyright: ignore[reportGeneralTypeIssues]
    return (self.label,) if isinstance(self.label, int) else (int(np.argmax(self.label)),)


@dataclasses.dataclass(frozen=True)
class Options:
  """What may be chosen about a data set.

  Attributes:
    task: "classification" or "detection"; "" for the first that the set has.
    class_names: in the order of the labels; () for the set's own.
    rule: FERPlus: how votes become a label of the train split, "majority" or "probability".
    files: split -> annotation file below the folder; for COCO json and annotation lists.
    table: csv: the table below the folder.
    margin: how much of a face box's side is added on each side before a face is cut out.
  """

  task: str = ""
  class_names: tuple[str, ...] = ()
  rule: str = "majority"
  files: Mapping[str, str] = dataclasses.field(default_factory=dict)
  table: str = "labels.csv"
  margin: float = 0.0


@dataclasses.dataclass
class Reading:
  """What was read: entries, what is wrong (each naming file and row), and what was left out.

  `dropped` counts what the set's own rules leave out, by reason; that is no error.
  """

  entries: list[Entry] = dataclasses.field(default_factory=list)
  problems: list[str] = dataclasses.field(default_factory=list)
  dropped: dict[str, int] = dataclasses.field(default_factory=dict)

  def add_all(self, rows: Iterable[Any], parse: Callable[[Any], Entry | str | None]) -> None:
    """Parses rows: to an entry, to a reason to drop the row, or to None for no example.

    A RecordError becomes a problem.
    """
    for row in rows:
      try:
        entry = parse(row)
      except RecordError as error:
        self.problems.append(str(error))
        continue
      if isinstance(entry, Entry):
        self.entries.append(entry)
      elif entry is not None:
        self.dropped[entry] = self.dropped.get(entry, 0) + 1


@dataclasses.dataclass(frozen=True)
class Release:
  """A form in which a set is handed out.

  Attributes:
    name: "csv".
    expected: (root, options) -> paths below the folder that must exist, with what they hold.
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
    name: as the command line and tfds call it.
    title: as people call it.
    terms: licence or terms of use, and how surely they are known.
    request: how to get it.
    releases: forms in which it comes; the first that fits is read.
    tasks: what it can be prepared for; the first is the default.
    class_counts: numbers of classes that its labels may have; () for any names of the user's.
    takes: the fields of `Options` that mean something to it, of rule, files and table.
    overhang: pixels that a box may stand over the image.
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

  def complete(self, options: Options) -> Options:
    """Fills in the defaults.

    Raises:
      ValueError: a choice that this set does not have.
    """
    task = options.task or self.tasks[0]
    if task not in self.tasks:
      raise ValueError(f"{self.title} has no task {task!r}; known: {', '.join(self.tasks)}")
    if options.rule not in RULES:
      raise ValueError(f"unknown rule {options.rule!r}; known: {', '.join(RULES)}")
    for field, flag in _FLAGS.items():
      value = getattr(options, field)
      if field not in self.takes and value != getattr(Options(), field):
        raise ValueError(f"{flag} is given ({value!r}), but means nothing to {self.title}; drop it")
    if not 0 <= options.margin < np.inf:
      raise ValueError(f"--margin {options.margin}; expected 0 or more, as 0.2 for a fifth")
    default = EXPRESSIONS[: self.class_counts[0]] if self.class_counts else SEVEN_EXPRESSIONS
    names = tuple(options.class_names) or default
    if self.class_counts and names not in [EXPRESSIONS[:n] for n in self.class_counts]:
      raise ValueError(
        f"{self.title} has {' or '.join(map(str, self.class_counts))} classes, in the order "
        f"{', '.join(EXPRESSIONS[: self.class_counts[-1]])}; got {', '.join(names)}"
      )
    if len(set(names)) != len(names) or not all(names):
      raise ValueError(f"--class-names {','.join(names)}; expected names, none of them twice")
    return dataclasses.replace(options, task=task, class_names=names)

  def find_release(self, root: str | os.PathLike, options: Options) -> Release:
    """The release that lies in `root`.

    Raises:
      LayoutError: none does; the message lists what is there and what is missing.
    """
    folder = pathlib.Path(root)
    if "://" in os.fspath(root):
      raise LayoutError(f"{root} is not on this machine; copy the data set to a local folder first")
    if folder.is_file():
      raise LayoutError(f"{folder} is a file; expected the folder that holds the data set")
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
    lines = [f"{folder} is not laid out as {self.title}{form}:", *lines, self.request]
    raise LayoutError("\n".join(lines))


def code_index(
  code: str | int, codes: Mapping[int, str], class_names: tuple[str, ...], origin: str
) -> int:
  """The class index of a data set's code.

  Raises:
    RecordError: the code is none of them.
  """
  text = str(code).strip()
  if not text.isdecimal() or int(text) not in codes:
    known = ", ".join(f"{number} {name}" for number, name in codes.items())
    raise RecordError(f"{origin}: code {text!r} of the expression; expected one of {known}")
  return index_of(codes[int(text)], class_names)


def parse_number(text: str | None, what: str, origin: str) -> float:
  """A finite number.

  Raises:
    RecordError: it is none.
  """
  try:
    number = float("" if text is None else text)
  except ValueError:
    number = float("nan")
  if not np.isfinite(number):
    raise RecordError(f"{origin}: {what} is {text!r}; expected a number")
  return number


def relative_key(path: str | os.PathLike, root: pathlib.Path) -> str:
  return pathlib.Path(os.path.relpath(path, root)).as_posix()

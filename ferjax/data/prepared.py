"""Reads the output of `ferjax data prepare`: random access to ArrayRecord shards.

Opening reads two small files and the labels; shards are opened on first access, so even large sets
open immediately. Records are tfds examples:
`tfds.builder_from_directory(DIR).as_data_source("train")` reads them as well.
"""

import functools
import hashlib
import io
import json
import os
import re
import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Float

from ferjax.data.classification.augment import FaceExample
from ferjax.data.detection.augment import Example
from ferjax.data.image import decode

INDEX = "ferjax.json"
INCOMPLETE = "incomplete."  # prefix of a folder that tfds has not finished
_FORMAT = 1
_DEPTH = 3  # of a prepared set's folder below --out
_PREPARE_HINT = "write it with `ferjax data prepare NAME --source DIR --out DIR`"


def labels_file(split: str) -> str:
  """Name of the array of a split's labels, f32[n k]."""
  return f"{split}.labels.npy"


def attributes_file(split: str) -> str:
  """Name of the file of a split's attributes: column -> the value of each record.

  Only sets that have attributes, and were prepared since there are any, have this file.
  """
  return f"{split}.attributes.json"


def class_names_flag(class_names: tuple[str, ...]) -> str:
  """The training flag for the classes of a prepared set, quoted for a shell."""
  # A JSON list is also a Python list, and has no single quotes, which need escaping in shells.
  return shlex.quote(f"--config.data.class_names={json.dumps(class_names, ensure_ascii=False)}")


class PreparedSource:
  """The records of a split; the base of `PreparedFaces` and `PreparedDetection`."""

  task: str

  def __init__(self, folder: epath.Path, index: dict[str, Any], split: str):
    self._folder = folder
    self._split = split
    self._length: int = index["splits"][split]["records"]
    self.class_names = tuple(index["class_names"])
    self.skipped: list[str] = list(index["splits"][split]["left_out"])

  def __len__(self) -> int:
    return self._length

  def origin(self, index: int) -> str:
    return _text(self._record(index)["origin"])

  def group(self, index: int) -> str:
    """Subject or clip; "" if unknown."""
    return _text(self._record(index)["group"])

  @functools.cached_property
  def attributes(self) -> dict[str, list[str]]:
    """See `ferjax.data.sources.AttributedSource`."""
    file = self._folder / attributes_file(self._split)
    return json.loads(file.read_text()) if file.exists() else {}

  def _record(self, index: int) -> dict[str, Any]:
    if not 0 <= index < self._length:
      raise IndexError(f"record {index} of {self._length}")
    return self._records[index]

  @functools.cached_property
  def _records(self) -> Any:
    # Imported here because only prepared data needs it.
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(os.fspath(self._folder))
    return builder.as_data_source(self._split, decoders={"image": tfds.decode.SkipDecoding()})

  def __getstate__(self) -> dict[str, Any]:
    """Drops open shards and arrays; each worker opens its own."""
    state = self.__dict__.copy()
    state.pop("_records", None)
    state.pop("labels", None)
    state.pop("attributes", None)
    return state


class PreparedFaces(PreparedSource):
  """Faces with their label distributions."""

  task = "classification"

  def __getitem__(self, index: int) -> FaceExample:
    record = self._record(index)
    image = decode(bytes(record["image"]), origin=_text(record["origin"]))
    return {"image": image, "label": np.array(record["label"], np.float32)}

  @functools.cached_property
  def labels(self) -> Float[np.ndarray, "n k"]:
    """Labels of all records, in order; decodes nothing."""
    return np.load(io.BytesIO((self._folder / labels_file(self._split)).read_bytes()))


class PreparedDetection(PreparedSource):
  """Photographs with boxes, clipped to the image during preparation.

  `max_boxes` is the maximum number of boxes per photograph, `labelled_boxes` the number of boxes
  whose class is known, `box_counts` that of each class, or None if the set was prepared without it.
  """

  task = "detection"

  def __init__(self, folder: epath.Path, index: dict[str, Any], split: str):
    super().__init__(folder, index, split)
    self.max_boxes: int = index["splits"][split]["max_boxes"]
    # Sets prepared before boxes of unknown class existed have no count; it matters only if it is 0.
    self.labelled_boxes: int = index["splits"][split].get("labelled_boxes", self.max_boxes)
    self.box_counts: list[int] | None = index["splits"][split].get("boxes")

  def __getitem__(self, index: int) -> Example:
    record = self._record(index)
    return {
      "image": decode(bytes(record["image"]), origin=_text(record["origin"])),
      "boxes": np.array(record["boxes"], np.float32).reshape(-1, 4),
      "label": np.array(record["labels"], np.int32),
    }

  def labels_of(self, index: int) -> list[int]:
    """The class of each box, or `UNLABELLED`; decodes nothing."""
    return [int(label) for label in self._record(index)["labels"]]


def find_prepared(dir: str | os.PathLike, name: str = "", task: str = "") -> epath.Path:
  """The folder with `ferjax.json`: `dir`, or the only one below it.

  Args:
    dir: a folder on any file system that `etils.epath` supports.
    name: data set to search for below it; "" for any.
    task: task that the set was prepared for; "" for any.

  Raises:
    ValueError: no set, more than one, or an unsupported file system.
  """
  root = _path(dir)
  if (root / INDEX).exists():
    return root
  found = _prepared_below(root, name, task)
  if len(found) == 1:
    return found[0]
  if not found:
    what = " ".join(filter(None, ("no prepared data set", name, f"for {task}" if task else "")))
    raise ValueError(f"{what} in {root} (no file {INDEX}); {_PREPARE_HINT}")
  raise ValueError(
    f"{len(found)} prepared data sets below {root}: {', '.join(map(str, found))}; pass the folder "
    "of one of them: --config.data.dir=DIR"
  )


def is_prepared(dir: str | os.PathLike) -> bool:
  """Whether `ferjax data prepare` wrote this folder."""
  return (_path(dir) / INDEX).exists()


def contains_prepared(dir: str | os.PathLike, name: str, task: str) -> bool:
  """Whether the folder contains one or more sets that match, as in `find_prepared`."""
  return bool(_prepared_below(_path(dir), name, task))


def _path(dir: str | os.PathLike) -> epath.Path:
  try:
    return epath.Path(dir)
  except KeyError as error:
    raise ValueError(
      f"{os.fspath(dir)} is on a file system that etils.epath does not support; expected a local "
      "path, or one of gs://, s3://, az:// or hf://"
    ) from error


def _prepared_below(root: epath.Path, name: str, task: str) -> list[epath.Path]:
  """Searches tfds's layout: name, configuration, version. Not by glob: `root` may contain `*`."""
  folders = [root / name] if name else _folders(root)
  for _ in range(_DEPTH - 1):
    folders = [path for folder in folders for path in _folders(folder)]
  found = []
  for folder in sorted(folders):
    if folder.name.startswith(INCOMPLETE) or not (folder / INDEX).exists():
      continue
    index = read_index(folder) if name or task else {}
    if name in ("", index.get("data_set")) and task in ("", index.get("task")):
      found.append(folder)
  return found


def _folders(folder: epath.Path) -> list[epath.Path]:
  return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def read_index(folder: epath.Path) -> dict[str, Any]:
  """The content of `ferjax.json`; ValueError if another version of ferjax wrote it."""
  try:
    index = json.loads((folder / INDEX).read_text())
    if not isinstance(index, dict):
      raise ValueError(f"expected an object, found {type(index).__name__}")
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{folder / INDEX}: malformed: {error}; prepare the set again") from error
  if index.get("format") != _FORMAT:
    raise ValueError(
      f"{folder / INDEX} has format {index.get('format')!r}, expected {_FORMAT}: prepare the set "
      "again with this version of ferjax"
    )
  return index


def open_prepared(
  dir: str | os.PathLike,
  split: str,
  class_names: tuple[str, ...] | None = None,
  *,
  name: str = "",
  task: str = "",
  choices: Mapping[str, object] | None = None,
) -> PreparedFaces | PreparedDetection:
  """Opens a split of a prepared data set.

  Args:
    dir: --out of `prepare`, or the folder with `ferjax.json`; any path that `etils.epath` supports.
    split: "train", "val" or "test".
    class_names: the expected classes; None for the set's own.
    name: the expected data set; "" for any.
    task: the expected task; "" for any.
    choices: field of `datasets.base.Options` -> its expected value at preparation.

  Raises:
    ValueError: no prepared set, no such split, or another set, other classes or choices.
  """
  folder = find_prepared(dir, name, task)
  index = read_index(folder)
  for what, expected, found in (
    ("data.source", name, index.get("data_set")),
    ("the task of the model", task, index["task"]),
  ):
    if expected not in ("", found):
      raise ValueError(
        f"{folder} contains {index['title']} ({index['data_set']}) for {index['task']}, but {what} "
        f"is {expected!r}; name the folder of another set"
      )
  for field, value in (choices or {}).items():
    if index.get(field, value) != value:
      raise ValueError(
        f"{folder} was prepared with {field} {index[field]!r}, but data.{field} is {value!r}; "
        "remove it, or prepare the set again"
      )
  if split not in index["splits"]:
    known = ", ".join(index["splits"])
    raise ValueError(f"{folder} has no split {split!r}; existing splits: {known}")
  names = tuple(index["class_names"])
  if class_names is not None and tuple(class_names) != names:
    raise ValueError(
      f"{folder} was prepared for the classes {', '.join(names)}, but data.class_names is "
      f"{', '.join(class_names)}; pass {class_names_flag(names)}, or prepare the set with your "
      "classes"
    )
  kind = PreparedFaces if index["task"] == "classification" else PreparedDetection
  source = kind(local_copy(folder, split), index, split)
  logging.info("%s: %d records of %s (%s)", folder, len(source), index["title"], split)
  return source


def local_copy(folder: epath.Path, split: str) -> epath.Path:
  """The folder, or, if it is remote, a local copy of the files of a split.

  ArrayRecord opens only local files. Copies are kept below FERJAX_CACHE (default ~/.cache/ferjax);
  an existing file is a complete copy.
  """
  place = os.fspath(folder)
  if not _is_remote(place):
    return folder
  cache = epath.Path(os.environ.get("FERJAX_CACHE", "~/.cache/ferjax")).expanduser()
  # A set that was prepared again in the same folder needs a new copy.
  content = (folder / INDEX).read_bytes()
  target = cache / hashlib.sha256(place.encode() + content).hexdigest()[:16]
  target.mkdir(parents=True, exist_ok=True)
  for file in folder.iterdir():
    shard = re.search(r"-(\w+)\.array_record-", file.name)
    if file.is_dir() or (shard and shard[1] != split) or (target / file.name).exists():
      continue
    partial = target / f"{file.name}.{os.getpid()}.part"
    file.copy(partial)
    partial.rename(target / file.name)
  return target


def _is_remote(place: str) -> bool:
  return "://" in place


def _text(value: Any) -> str:
  return value.decode() if isinstance(value, bytes) else str(value)

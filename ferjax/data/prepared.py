"""Reads the output of `ferjax data prepare`: random access to ArrayRecord shards.

Opening reads two small files and the labels; shards are opened on first access, so a set of any
size opens at once. Records are tfds examples:
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
_DEPTH = 3  # of a prepared set below the folder that `prepare` was given
_HOW = "write it with `ferjax data prepare NAME --source DIR --out DIR`"


def labels_file(split: str) -> str:
  """Name of the array of a split's labels, f32[n k]."""
  return f"{split}.labels.npy"


def class_names_flag(class_names: tuple[str, ...]) -> str:
  """What tells training the classes of a prepared set, quoted for a shell."""
  # A list in JSON is one of Python as well, and has no single quotes, which shells take badly.
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
    """Subject or clip; "" where it is not known."""
    return _text(self._record(index)["group"])

  def _record(self, index: int) -> dict[str, Any]:
    if not 0 <= index < self._length:
      raise IndexError(f"record {index} of {self._length}")
    return self._records[index]

  @functools.cached_property
  def _records(self) -> Any:
    # Imported here so that only programs that read prepared data load it.
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(os.fspath(self._folder))
    return builder.as_data_source(self._split, decoders={"image": tfds.decode.SkipDecoding()})

  def __getstate__(self) -> dict[str, Any]:
    """Without the open shards and arrays, which each worker opens itself."""
    state = self.__dict__.copy()
    state.pop("_records", None)
    state.pop("labels", None)
    return state


class PreparedFaces(PreparedSource):
  """Faces with the distribution of their label."""

  task = "classification"

  def __getitem__(self, index: int) -> FaceExample:
    record = self._record(index)
    image = decode(bytes(record["image"]), origin=_text(record["origin"]))
    return {"image": image, "label": np.array(record["label"], np.float32)}

  @functools.cached_property
  def labels(self) -> Float[np.ndarray, "n k"]:
    """Of all records, in order; nothing is decoded."""
    return np.load(io.BytesIO((self._folder / labels_file(self._split)).read_bytes()))


class PreparedDetection(PreparedSource):
  """Photographs with boxes, which were clipped to them when they were prepared.

  `max_boxes` is the maximum number per photograph.
  """

  task = "detection"

  def __init__(self, folder: epath.Path, index: dict[str, Any], split: str):
    super().__init__(folder, index, split)
    self.max_boxes: int = index["splits"][split]["max_boxes"]

  def __getitem__(self, index: int) -> Example:
    record = self._record(index)
    return {
      "image": decode(bytes(record["image"]), origin=_text(record["origin"])),
      "boxes": np.array(record["boxes"], np.float32).reshape(-1, 4),
      "label": np.array(record["labels"], np.int32),
    }

  def labels_of(self, index: int) -> list[int]:
    """The class of each box; nothing is decoded."""
    return [int(label) for label in self._record(index)["labels"]]


def find_prepared(dir: str | os.PathLike, name: str = "", task: str = "") -> epath.Path:
  """The folder with `ferjax.json`: `dir`, or the only one below it.

  Args:
    dir: a folder of any file system that `etils.epath` knows.
    name: of the data set that is looked for below it; "" for any.
    task: that it was prepared for; "" for any.

  Raises:
    ValueError: none, or more than one, or an unknown file system.
  """
  root = _path(dir)
  if (root / INDEX).exists():
    return root
  found = _prepared_below(root, name, task)
  if len(found) == 1:
    return found[0]
  if not found:
    what = " ".join(filter(None, ("no prepared data set", name, f"for {task}" if task else "")))
    raise ValueError(f"{what} in {root} (no file {INDEX}); {_HOW}")
  raise ValueError(
    f"{len(found)} prepared data sets below {root}: {', '.join(map(str, found))}; pass the folder "
    "of one of them: --config.data.dir=DIR"
  )


def is_prepared(dir: str | os.PathLike) -> bool:
  """Whether the folder itself is one that `ferjax data prepare` wrote."""
  return (_path(dir) / INDEX).exists()


def holds_prepared(dir: str | os.PathLike, name: str, task: str) -> bool:
  """Whether there is what `find_prepared` looks for below the folder, once or more often."""
  return bool(_prepared_below(_path(dir), name, task))


def _path(dir: str | os.PathLike) -> epath.Path:
  try:
    return epath.Path(dir)
  except KeyError as error:
    raise ValueError(
      f"{os.fspath(dir)} is on a file system that etils.epath does not know; expected a local "
      "path, or one of gs://, s3://, az:// or hf://"
    ) from error


def _prepared_below(root: epath.Path, name: str, task: str) -> list[epath.Path]:
  """As tfds lays folders out: name, configuration, version. A user's path is no pattern."""
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
  except ValueError as error:
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
    class_names: the expected classes; None for those of the set.
    name: of the data set that is expected; "" for any.
    task: that it must be prepared for; "" for any.
    choices: field of `datasets.base.Options` -> what the set must have been prepared with.

  Raises:
    ValueError: nothing prepared there, no such split, another set, other classes or choices.
  """
  folder = find_prepared(dir, name, task)
  index = read_index(folder)
  for what, expected, found in (
    ("data.source", name, index.get("data_set")),
    ("the task of the model", task, index["task"]),
  ):
    if expected not in ("", found):
      raise ValueError(
        f"{folder} holds {index['title']} ({index['data_set']}) for {index['task']}, but {what} is "
        f"{expected!r}; name the folder of another set"
      )
  for field, value in (choices or {}).items():
    if index.get(field, value) != value:
      raise ValueError(
        f"{folder} was prepared with {field} {index[field]!r}, but data.{field} is {value!r}; "
        "leave it out, or prepare the set again"
      )
  if split not in index["splits"]:
    raise ValueError(f"{folder} has no split {split!r}; splits there: {', '.join(index['splits'])}")
  names = tuple(index["class_names"])
  if class_names is not None and tuple(class_names) != names:
    raise ValueError(
      f"{folder} was prepared for the classes {', '.join(names)}, but data.class_names is "
      f"{', '.join(class_names)}; pass {class_names_flag(names)}, or prepare the set for yours"
    )
  kind = PreparedFaces if index["task"] == "classification" else PreparedDetection
  source = kind(local_copy(folder, split), index, split)
  logging.info("%s: %d records of %s (%s)", folder, len(source), index["title"], split)
  return source


def local_copy(folder: epath.Path, split: str) -> epath.Path:
  """The folder, or a local copy of the files of a split if it is remote.

  ArrayRecord opens local files. Copies are kept below FERJAX_CACHE (default ~/.cache/ferjax); an
  existing file is a complete copy.
  """
  place = os.fspath(folder)
  if not _is_remote(place):
    return folder
  cache = epath.Path(os.environ.get("FERJAX_CACHE", "~/.cache/ferjax")).expanduser()
  # A set that was prepared again in the same folder is another data set.
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

"""Reading what `ferjax data prepare` wrote: random access to ArrayRecord shards.

Opening reads two small files and the labels; shards are opened when a record of theirs is first
asked for, so that a set of any size starts at once. Records are tfds examples:
`tfds.builder_from_directory(DIR).as_data_source("train")` reads them as well.
"""

import functools
import hashlib
import io
import json
import os
import re
import shlex
from typing import Any

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Float

from ferjax.data.classification.augment import FaceExample
from ferjax.data.detection.augment import Example
from ferjax.data.image import decode

INDEX = "ferjax.json"
INCOMPLETE = "incomplete."  # start of the name of a folder that tfds has not finished
_FORMAT = 1
_HOW = "write it with `ferjax data prepare NAME --source DIR --out DIR`"


def labels_file(split: str) -> str:
  """Name of the array of a split's labels, f32[n k]."""
  return f"{split}.labels.npy"


def class_names_flag(class_names: tuple[str, ...]) -> str:
  """What tells training the classes of a prepared set, quoted for a shell."""
  # A list in JSON is one of Python as well, and has no single quotes, which shells take badly.
  return shlex.quote(f"--config.data.class_names={json.dumps(class_names, ensure_ascii=False)}")


class PreparedSource:
  """The records of a split; `PreparedFaces` and `PreparedDetection` are its two kinds."""

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
    # Imported here so that only programs that read prepared data wait for it.
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(os.fspath(self._folder))
    return builder.as_data_source(self._split, decoders={"image": tfds.decode.SkipDecoding()})

  def __getstate__(self) -> dict[str, Any]:
    """Without the open shards and the arrays, which a worker opens by itself."""
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

  `max_boxes` is the most of one photograph.
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


def find_prepared(dir: str | os.PathLike) -> epath.Path:
  """The folder that holds `ferjax.json`: `dir`, or the only one below it.

  Raises:
    ValueError: none, or more than one, or an unknown file system.
  """
  try:
    root = epath.Path(dir)
  except KeyError as error:
    raise ValueError(
      f"{os.fspath(dir)} is on a file system that etils.epath does not know; expected a local "
      "path, or one of gs://, s3://, az:// or hf://"
    ) from error
  if (root / INDEX).exists():
    return root
  # As tfds lays folders out: name, configuration, version.
  found = sorted(path.parent for path in root.glob(f"*/*/*/{INDEX}")) if root.exists() else []
  found = [folder for folder in found if not folder.name.startswith(INCOMPLETE)]
  if len(found) == 1:
    return found[0]
  if not found:
    raise ValueError(f"no prepared data set in {root} (no file {INDEX}); {_HOW}")
  raise ValueError(
    f"{len(found)} prepared data sets below {root}: {', '.join(map(str, found))}; pass the folder "
    "of one of them: --config.data.dir=DIR"
  )


def read_index(folder: epath.Path) -> dict[str, Any]:
  """What `ferjax.json` says; ValueError if another version of ferjax wrote it."""
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
  dir: str | os.PathLike, split: str, class_names: tuple[str, ...] | None = None
) -> PreparedFaces | PreparedDetection:
  """Opens a split of a prepared data set.

  Args:
    dir: what `prepare` was given as --out, or the folder that holds `ferjax.json`; any path that
      `etils.epath` knows.
    split: "train", "val" or "test".
    class_names: that are expected; None for those of the set.

  Raises:
    ValueError: nothing prepared there, no such split, or other classes.
  """
  folder = find_prepared(dir)
  index = read_index(folder)
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
  """The folder, or for one on a remote file system a copy of what a split needs.

  ArrayRecord opens local files. Copies are kept below FERJAX_CACHE (default ~/.cache/ferjax); a
  file that is there was copied whole.
  """
  place = os.fspath(folder)
  if not _is_remote(place):
    return folder
  cache = epath.Path(os.environ.get("FERJAX_CACHE", "~/.cache/ferjax")).expanduser()
  # What was prepared anew at the same place is another data set.
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

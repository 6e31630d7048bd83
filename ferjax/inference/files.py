"""Finds image files and writes prediction files."""

import collections
import csv
import json
import os
import pathlib
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, TextIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ferjax.data.image_files import ImageListing, list_images
from ferjax.inference.draw import draw_faces
from ferjax.inference.journal import MARKER, Journal, Record, read_records
from ferjax.inference.results import Face, Prediction
from ferjax.output import atomic_writer, results_folder

# Annotated copies keep these formats; others become PNG, which is lossless.
_KEPT_SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")
ANNOTATED = "annotated"
EXPLAINED = "explained"
JOURNAL = "predictions.jsonl"
PREDICTION_FILES = ("predictions.json", "predictions.csv", JOURNAL)
_LONGEST_NAME = 255  # bytes, on most file systems


class ImageFile(NamedTuple):
  """`name` is a relative path, unique within a run."""

  path: str
  name: pathlib.PurePath


class FoundImages(NamedTuple):
  """`ignored` counts the folders' other files by suffix, as in `ImageListing`."""

  files: list[ImageFile]
  ignored: Mapping[str, int]


def find_images(
  paths: Iterable[str | os.PathLike], *, recursive: bool, output: str | os.PathLike
) -> FoundImages:
  """The image files of `paths`: files as given, and the sorted images of folders.

  A file is listed once, however its folder is named or linked. In folders, hidden files and images
  that an earlier run wrote to `output` are skipped.

  Raises:
    FileNotFoundError: a path does not exist, or a folder contains no image.
  """
  found: dict[str, ImageFile] = {}
  ignored: collections.Counter[str] = collections.Counter()
  names: set[str] = set()
  own = [pathlib.Path(output) / folder for folder in (ANNOTATED, EXPLAINED)]
  for path in map(pathlib.Path, paths):
    if path.is_dir():
      listing = list_images(path, recursive=recursive, exclude=own)
      if not listing.files:
        raise FileNotFoundError(_without_images(path, listing, recursive))
      ignored.update(listing.ignored)
      # The files of a folder come before those of its subfolders.
      ordered = sorted(listing.files, key=lambda file: (file.parent.parts, file.name))
      files = [(file, file.relative_to(path)) for file in ordered]
    elif path.exists():
      files = [(path, pathlib.PurePath(path.name))]
    else:
      raise FileNotFoundError(f"{path}: no such file or folder")
    for file, name in files:
      if _identity(file) not in found:
        found[_identity(file)] = ImageFile(str(file), _unused(name, names))
  return FoundImages(list(found.values()), ignored)


def _without_images(folder: pathlib.Path, listing: ImageListing, recursive: bool) -> str:
  found = listing.describe() or "no other files"
  hint = "" if recursive else "; --recursive also searches its subfolders"
  known = ".jpg, .png or the suffix of another format that Pillow reads"
  return f"{folder}: a folder without images ({found}; images end in {known}){hint}"


def _identity(path: pathlib.Path) -> str:
  """Independent of how the folder is reached; two links to one file are two images."""
  return os.path.join(os.path.realpath(path.parent), path.name)


def _unused(name: pathlib.PurePath, names: set[str]) -> pathlib.PurePath:
  """The name of an annotated copy: `name`, numbered if already taken.

  `names` gets the name and its folders, which end in a slash.
  """
  if name.suffix.lower() not in _KEPT_SUFFIXES:
    name = name.with_name(name.name + ".png")
  if any(str(folder).lower() in names for folder in name.parents):
    name = pathlib.PurePath("-".join(name.parts))  # its folder is called like another copy
  candidate, number = _shortened(name, ""), 1
  # Lower case: some file systems do not distinguish A.jpg from a.jpg.
  while names & {str(candidate).lower(), f"{candidate}/".lower()}:
    number += 1
    candidate = _shortened(name, f"-{number}")
  names.update(f"{folder}/".lower() for folder in candidate.parents)
  names.add(str(candidate).lower())
  return candidate


def _shortened(name: pathlib.PurePath, ending: str) -> pathlib.PurePath:
  """`name` with the ending of its stem; the stem is as long as file systems allow."""
  stem = name.stem
  while stem and len(os.fsencode(f"{stem}{ending}{name.suffix}")) > _LONGEST_NAME:
    stem = stem[:-1]
  return name.with_stem(f"{stem}{ending}")


class PredictionWriter:
  """Writes each prediction to `predictions.jsonl` at once, and the other files on exit.

  Use it as a context manager: `predictions.json` and `predictions.csv` are written when it ends,
  atomically; after an error or an interrupt with `"complete": false`. A run that is killed has only
  the first file, from which the same run goes on (`ferjax.inference.journal`).

  Attributes:
    output: folder of the results.
  """

  def __init__(
    self,
    output: str | os.PathLike,
    images: Sequence[str],
    *,
    header: dict[str, Any],
    class_names: Sequence[str],
    annotated: bool,
    with_detections: bool = False,
    weights: str = "",
    restart: bool = False,
    part: str = "",
  ):
    """Creates the folder `output`, or goes on with the interrupted run in it.

    Args:
      output: folder for the results.
      images: the paths of all images of the run, in their order.
      header: additional fields of the JSON file.
      class_names: of the predictor.
      annotated: whether to write annotated copies.
      with_detections: whether to add columns for the detector's result, if a classifier
        classified the faces.
      weights: identifies the weights, for a run that goes on.
      restart: whether to replace the results of an interrupted run.
      part: the name of this part of a run on several hosts, or "". The results of a part are in a
        file of its own, which `take_parts` of the whole run's writer removes.

    Raises:
      NotADirectoryError: `output` is a file.
      ValueError: the interrupted run had other settings or images.
    """
    self.output = results_folder(output)
    self._images = images
    self._skipped: dict[str, str] = {}  # path -> reason, of images after the next one
    self._header = header
    self._class_names = tuple(class_names)
    self._annotated = annotated
    self._with_detections = with_detections
    run = {**header, "class_names": class_names, "annotated": annotated, "weights": weights}
    self._part = part
    self._journal = Journal(self.output / _journal_name(part), run, images, restart=restart)

  @property
  def written(self) -> int:
    """The number of images with a result, those of the interrupted run included."""
    return self._journal.done

  def records(self) -> Iterator[Record]:
    """The results so far, read from the file: `image_fields`, or the reason of a skipped image."""
    return self._journal.records()

  def add(
    self,
    prediction: Prediction,
    image: UInt8[np.ndarray, "h w 3"],
    name: str | os.PathLike,
  ) -> None:
    """Adds the prediction of the next image and writes its annotated copy as `name`.

    Raises:
      OSError: the copy or the result cannot be saved; the message names it.
    """
    annotated = None
    if self._annotated:
      annotated = pathlib.PurePath(ANNOTATED) / name
      self._save(Image.fromarray(draw_faces(image, prediction.faces)), self.output / annotated)
    self._journal.add(image_fields(prediction, annotated))
    self._add_skipped()

  def skip(self, path: str, reason: str) -> None:
    """Records an unreadable image; images before it may still be added."""
    self._skipped[path] = reason
    self._add_skipped()

  def take_parts(self, parts: Iterable[str]) -> None:
    """Adds the results of complete parts of the run, in this order; `remove_parts` comes later.

    Raises:
      OSError: the results are not those of the images of the run.
    """
    for part in parts:
      for record in read_records(self.output / _journal_name(part)):
        if self.written == len(self._images) or record["image"] != self._images[self.written]:
          raise OSError(
            f"part {part} has the result of {record['image']}, which is not the next image; all "
            "hosts must see the same images"
          )
        self._journal.add(record)
    if self.written < len(self._images):
      raise OSError(f"the parts have no result of {self._images[self.written]}")

  def remove_parts(self) -> None:
    """Removes the files of all parts, after the results of the whole run are written."""
    for file in self.output.glob(_journal_name("*")):
      file.unlink()
    for file in self.output.glob(pathlib.Path(_journal_name("*")).stem + MARKER):
      file.unlink()

  def _add_skipped(self) -> None:
    """Adds the skipped images that are next in the order of the run."""
    while self.written < len(self._images):
      path = self._images[self.written]
      if path not in self._skipped:
        break
      self._journal.add({"image": path, "reason": self._skipped.pop(path)})

  def _save(self, image: Image.Image, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = self.output / ANNOTATED / f".partial{self._part}{path.suffix}"
    try:
      image.save(partial, quality=95)
      os.replace(partial, path)
    except (OSError, ValueError) as error:  # ValueError: larger than the format allows
      raise OSError(
        f"{path}: the annotated copy of {image.width}x{image.height} pixels cannot be saved "
        f"({error}); --no-annotated writes no copies"
      ) from error
    finally:
      partial.unlink(missing_ok=True)

  def __enter__(self) -> "PredictionWriter":
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    if self._part:
      self._journal.close(finished=False)
      return
    finished = False
    try:
      with atomic_writer(self.output / PREDICTION_FILES[0]) as file:
        self._write_json(file, complete=kind is None)
      with atomic_writer(self.output / PREDICTION_FILES[1]) as file:
        self._write_csv(file)
      finished = kind is None
    finally:
      self._journal.close(finished=finished)

  def _write_json(self, file: TextIO, *, complete: bool) -> None:
    """As `json.dump` with an indentation of 2, but with one record at a time in memory."""
    head = {**self._header, "class_names": self._class_names, "complete": complete}
    file.write(json.dumps(head, indent=2).removesuffix("\n}"))
    for name, is_skipped in (("images", False), ("skipped", True)):
      separator = f',\n  "{name}": ['
      end = f"{separator}]"
      for record in self.records():
        if is_skipped == ("reason" in record):
          file.write(f"{separator}\n" + textwrap.indent(json.dumps(record, indent=2), " " * 4))
          separator, end = ",", "\n  ]"
      file.write(end)
    file.write("\n}\n")

  def _write_csv(self, file: TextIO) -> None:
    table = csv.writer(file)
    columns = ["image", "x1", "y1", "x2", "y2", "score", "expression"]
    if self._with_detections:
      columns += ["detection_score", "detection_expression"]
    table.writerow((*columns, *self._class_names))
    for record in self.records():
      for face in record.get("faces", ()):
        row = [record["image"], *_csv_box(face["box"]), face["score"], face["expression"]]
        if self._with_detections:
          row += [face["detection"]["score"], face["detection"]["expression"]]
        table.writerow((*row, *face["scores"].values()))


def _journal_name(part: str) -> str:
  return f"predictions.part-{part}.jsonl" if part else JOURNAL


def _csv_box(box: Sequence[float] | None) -> Sequence[float | None]:
  return (None,) * 4 if box is None else box  # None is an empty cell


def image_fields(
  prediction: Prediction, annotated: pathlib.PurePath | None = None
) -> dict[str, Any]:
  """The JSON form of an image; `annotated` is the path of its annotated copy, if there is one."""
  return {
    "image": prediction.image,
    "width": prediction.width,
    "height": prediction.height,
    "annotated": None if annotated is None else annotated.as_posix(),
    "faces": [face_fields(face) for face in prediction.faces],
  }


def face_fields(face: Face) -> dict[str, Any]:
  """The JSON form of a face."""
  fields: dict[str, Any] = {
    "box": None if face.box is None else [round(edge, 2) for edge in face.box],
    **_score_fields(face),
  }
  if face.detection is not None:
    fields["detection"] = _score_fields(face.detection)
  return fields


def _score_fields(face: Face) -> dict[str, Any]:
  return {
    "score": round(face.score, 6),
    "expression": face.expression,
    "scores": {name: round(score, 6) for name, score in face.scores.items()},
  }

"""Finds image files and writes prediction files."""

import collections
import csv
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, TextIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ferjax.data.image_files import ImageListing, list_images
from ferjax.inference.draw import draw_faces
from ferjax.inference.results import Face, Prediction
from ferjax.output import atomic_writer, results_folder

# Annotated copies keep these formats; others become PNG, which is lossless.
_KEPT_SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")
ANNOTATED = "annotated"
EXPLAINED = "explained"
PREDICTION_FILES = ("predictions.json", "predictions.csv")


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
  """The name of an annotated copy: `name`, numbered if already taken."""
  if name.suffix.lower() not in _KEPT_SUFFIXES:
    name = name.with_name(name.name + ".png")
  candidate, number = name, 1
  # Lower case: some file systems do not distinguish A.jpg from a.jpg.
  while str(candidate).lower() in names:
    number += 1
    candidate = name.with_stem(f"{name.stem}-{number}")
  names.add(str(candidate).lower())
  return candidate


class PredictionWriter:
  """Collects predictions, and writes `predictions.json` and `predictions.csv` on exit.

  Use it as a context manager: after an error or an interrupt, the predictions so far are still
  written, with `"complete": false`. Both files are written atomically.
  """

  def __init__(
    self,
    output: str | os.PathLike,
    *,
    header: dict[str, Any],
    class_names: Sequence[str],
    annotated: bool,
    with_detections: bool = False,
  ):
    """Creates the folder `output`.

    Args:
      output: folder for the results.
      header: additional fields of the JSON file.
      class_names: of the predictor.
      annotated: whether to write annotated copies.
      with_detections: whether to add columns for the detector's result, if a classifier
        classified the faces.

    Raises:
      NotADirectoryError: `output` is a file.
    """
    self.output = results_folder(output)
    self.images: list[dict[str, Any]] = []
    self.skipped: list[dict[str, str]] = []
    self._header = header
    self._class_names = tuple(class_names)
    self._annotated = annotated
    self._with_detections = with_detections

  def add(
    self,
    prediction: Prediction,
    image: UInt8[np.ndarray, "h w 3"],
    name: str | os.PathLike,
  ) -> None:
    """Adds a prediction and writes the annotated copy of its image as `name`.

    Raises:
      OSError: the copy cannot be saved; the message names it.
    """
    annotated = None
    if self._annotated:
      annotated = pathlib.PurePath(ANNOTATED) / name
      target = self.output / annotated
      target.parent.mkdir(parents=True, exist_ok=True)
      _save(Image.fromarray(draw_faces(image, prediction.faces)), target)
    self.images.append(image_fields(prediction, annotated))

  def skip(self, path: str, reason: str) -> None:
    """Records an unreadable image."""
    self.skipped.append({"image": path, "reason": reason})

  def __enter__(self) -> "PredictionWriter":
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    document = {
      **self._header,
      "class_names": self._class_names,
      "complete": kind is None,
      "images": self.images,
      "skipped": self.skipped,
    }
    with atomic_writer(self.output / PREDICTION_FILES[0]) as file:
      json.dump(document, file, indent=2)
      file.write("\n")
    with atomic_writer(self.output / PREDICTION_FILES[1]) as file:
      self._write_csv(file)

  def _write_csv(self, file: TextIO) -> None:
    table = csv.writer(file)
    columns = ["image", "x1", "y1", "x2", "y2", "score", "expression"]
    if self._with_detections:
      columns += ["detection_score", "detection_expression"]
    table.writerow((*columns, *self._class_names))
    for image in self.images:
      for face in image["faces"]:
        row = [image["image"], *_csv_box(face["box"]), face["score"], face["expression"]]
        if self._with_detections:
          row += [face["detection"]["score"], face["detection"]["expression"]]
        table.writerow((*row, *face["scores"].values()))


def _csv_box(box: Sequence[float] | None) -> Sequence[float | None]:
  return (None,) * 4 if box is None else box  # None is an empty cell


def _save(image: Image.Image, path: pathlib.Path) -> None:
  try:
    image.save(path, quality=95)
  except (OSError, ValueError) as error:  # ValueError: larger than the format allows
    raise OSError(
      f"{path}: the annotated copy of {image.width}x{image.height} pixels cannot be saved "
      f"({error}); --no-annotated writes no copies"
    ) from error


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

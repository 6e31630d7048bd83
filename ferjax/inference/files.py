"""Image files in, prediction files out."""

import contextlib
import csv
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, TextIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ferjax.inference.draw import draw_faces
from ferjax.inference.results import Face, Prediction

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# Formats that the annotated copy keeps; the others become PNG, which loses nothing.
_KEPT_SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")
_ANNOTATED = "annotated"
EXPLAINED = "explained"


class ImageFile(NamedTuple):
  """`path` is what to open; `name` is relative, and unlike that of every other image of a run."""

  path: str
  name: pathlib.PurePath


def find_images(
  paths: Iterable[str | os.PathLike], *, recursive: bool, output: str | os.PathLike
) -> list[ImageFile]:
  """The image files that `paths` stand for: files as given, folders by their sorted images.

  A file is listed once, however often it is named. Hidden files, and the pictures of an earlier run
  in `output`, are not looked for in folders.

  Raises:
    FileNotFoundError: a path does not exist, or a folder holds no image.
  """
  found: dict[str, ImageFile] = {}
  names: set[str] = set()
  own = {_identity(pathlib.Path(output) / folder) for folder in (_ANNOTATED, EXPLAINED)}
  for path in map(pathlib.Path, paths):
    if path.is_dir():
      files = [(file, file.relative_to(path)) for file in _images_in(path, recursive, own)]
      if not files:
        hint = "" if recursive else "; --recursive looks into its folders as well"
        raise FileNotFoundError(
          f"{path}: a folder without images ({', '.join(IMAGE_SUFFIXES)}){hint}"
        )
    elif path.exists():
      files = [(path, pathlib.PurePath(path.name))]
    else:
      raise FileNotFoundError(f"{path}: no such file or folder")
    for file, name in files:
      if _identity(file) not in found:
        found[_identity(file)] = ImageFile(str(file), _unused(name, names))
  return list(found.values())


def _identity(path: pathlib.Path) -> str:
  return os.path.abspath(path)


def _images_in(folder: pathlib.Path, recursive: bool, left_out: set[str]) -> Iterator[pathlib.Path]:
  for root, folders, files in os.walk(folder, onerror=_raise):
    kept = (name for name in folders if recursive and not name.startswith("."))
    folders[:] = sorted(
      name for name in kept if _identity(pathlib.Path(root, name)) not in left_out
    )
    for name in sorted(files):
      if not name.startswith(".") and pathlib.PurePath(name).suffix.lower() in IMAGE_SUFFIXES:
        yield pathlib.Path(root, name)


def _raise(error: OSError) -> None:
  raise error


def _unused(name: pathlib.PurePath, names: set[str]) -> pathlib.PurePath:
  """The name of an annotated copy: `name`, numbered if another image has it already."""
  if name.suffix.lower() not in _KEPT_SUFFIXES:
    name = name.with_name(name.name + ".png")
  candidate, number = name, 1
  # Lower case, because some file systems do not tell A.jpg from a.jpg.
  while str(candidate).lower() in names:
    number += 1
    candidate = name.with_stem(f"{name.stem}-{number}")
  names.add(str(candidate).lower())
  return candidate


def results_folder(output: str | os.PathLike) -> pathlib.Path:
  """Makes a folder; raises a NotADirectoryError if it is a file."""
  folder = pathlib.Path(output)
  if folder.exists() and not folder.is_dir():
    raise NotADirectoryError(f"{output}: is a file; expected a folder for the results")
  folder.mkdir(parents=True, exist_ok=True)
  return folder


class PredictionWriter:
  """Collects predictions, and writes `predictions.json` and `predictions.csv` on leaving.

  Use it as a context manager: what was predicted is written even when an error or an interrupt
  ends the block, with `"complete": false`. Both files appear whole or not at all.
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
    """Makes the folder `output`.

    Args:
      output: folder for the results.
      header: further fields of the JSON file.
      class_names: of the predictor.
      annotated: asks for copies with boxes.
      with_detections: asks for the columns of what the detector said of a face that another
        network classified.

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
    """Notes a prediction, and writes the annotated copy of its image under `name`.

    Raises:
      OSError: the copy cannot be saved; the message names it.
    """
    annotated = None
    if self._annotated:
      annotated = pathlib.PurePath(_ANNOTATED) / name
      target = self.output / annotated
      target.parent.mkdir(parents=True, exist_ok=True)
      _save(Image.fromarray(draw_faces(image, prediction.faces)), target)
    self.images.append(
      {
        "image": prediction.image,
        "width": prediction.width,
        "height": prediction.height,
        "annotated": None if annotated is None else annotated.as_posix(),
        "faces": [face_fields(face) for face in prediction.faces],
      }
    )

  def skip(self, path: str, reason: str) -> None:
    """Notes an image that could not be read."""
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
    with replacing(self.output / "predictions.json") as file:
      json.dump(document, file, indent=2)
      file.write("\n")
    with replacing(self.output / "predictions.csv") as file:
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


def face_fields(face: Face) -> dict[str, Any]:
  """What the JSON files say of a face."""
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


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[TextIO]:
  """A text file that takes its place only once it is written."""
  partial = path.with_name(f".{path.name}.partial")
  try:
    # File names may hold bytes that are not UTF-8; they are written as they came.
    with partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
      yield file
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)

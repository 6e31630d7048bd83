"""What the page answers about an image, a frame of a camera, or a film."""

import math
import pathlib
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ferjax.data.image import ImageError, decode
from ferjax.demo import markup
from ferjax.demo.limits import DemoLimits
from ferjax.inference.base import ImagePredictor
from ferjax.inference.draw import draw_faces
from ferjax.inference.explanation.draw import draw_explanations
from ferjax.inference.explanation.explainer import Explainer
from ferjax.inference.results import Face, Prediction
from ferjax.video.analysis import analyse
from ferjax.video.persons import Person
from ferjax.video.reading import VideoReader
from ferjax.video.results import VideoResults
from ferjax.video.source import VideoSource
from ferjax.video.timelines import TIMELINES

# As in `ferjax serve`: Pillow runs other programs for some formats.
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "TIFF")
# Suffix -> FFmpeg's format. It is not guessed, because some formats make FFmpeg open other files.
FILMS = {
  ".mp4": "mov",
  ".m4v": "mov",
  ".mov": "mov",
  ".mkv": "matroska",
  ".webm": "matroska",
  ".avi": "avi",
}
_SMOOTHING = 0.5  # seconds
_LARGEST_FILM = 32 * 2**20  # bytes of the annotated film, which is part of the answer


class Answers:
  """The answers of one predictor, as HTML; errors that a file causes are messages in it."""

  def __init__(
    self, predictor: ImagePredictor[Any], explainer: Explainer | None, limits: DemoLimits
  ):
    """Compiles nothing.

    Args:
      predictor: of `ferjax.load_predictor`, or of an exported program.
      explainer: of the same predictor; None if it cannot be explained.
      limits: of the page.
    """
    self._predictor, self._explainer, self._limits = predictor, explainer, limits

  def image(self, encoded: bytes, name: str) -> str:
    """The faces of an image file: annotated, their scores, and the explanation of each.

    Args:
      encoded: the content of the file.
      name: of the file, for messages.
    """
    try:
      pixels = self._decode(encoded, name)
    except ImageError as error:
      return markup.problem(f"{error}. Choose a JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF file.")
    (prediction,) = self._predictor.predict([pixels])
    parts = [markup.summary(f"{name}: {_sentence(prediction)}"), self._faces(pixels, prediction)]
    if prediction.faces:
      parts.append(self._explanation(pixels))
    return markup.block(*parts)

  def frame(self, encoded: bytes) -> str:
    """The faces of a frame of a camera: annotated, and their scores."""
    try:
      pixels = self._decode(encoded, "the frame")
    except ImageError as error:
      return markup.problem(str(error))
    (prediction,) = self._predictor.predict([pixels])
    return markup.block(self._faces(pixels, prediction), markup.note(_sentence(prediction)))

  def film(self, path: pathlib.Path, name: str) -> str:
    """The persons of a film: the annotated film, and the scores of each over time.

    What can be read of a damaged film is analysed. All files are in a temporary folder, which is
    removed before this returns.

    Args:
      path: of the film.
      name: its name for messages; the suffix tells the format.
    """
    kind = FILMS.get(pathlib.PurePath(name).suffix.lower())
    if kind is None:
      return markup.problem(f"{name}: not a film; expected a name that ends in {', '.join(FILMS)}")
    source = VideoSource(name, str(path), kind, live=False)
    try:
      with (
        VideoReader(source, stride=self._stride(source)) as reader,
        tempfile.TemporaryDirectory(prefix="ferjax-film-") as folder,
      ):
        return self._film(reader, pathlib.Path(folder))
    except (OSError, ValueError) as error:
      return markup.problem(str(error))

  def _decode(self, encoded: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    return decode(encoded, origin=name, max_pixels=self._limits.max_pixels, formats=_FORMATS)

  def _faces(self, pixels: UInt8[np.ndarray, "h w 3"], prediction: Prediction) -> str:
    count = len(prediction.faces)
    numbers = range(1, count + 1) if count > 1 else None  # those of the bars and of the evidence
    annotated = draw_faces(pixels, prediction.faces, numbers=numbers)
    return markup.picture(annotated, _sentence(prediction)) + markup.faces(prediction.faces)

  def _explanation(self, pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    if self._explainer is None:
      return ""
    (explained,) = self._explainer.explain([pixels])
    sheet = draw_explanations(pixels, explained.explanations)
    title = "<h3>Evidence</h3>"
    maps = markup.picture(sheet, "Maps of the evidence for each face's expression")
    text = "Bright: evidence for the expression, by the cells of one feature map of the network."
    return title + maps + markup.note(text)

  def _stride(self, source: VideoSource) -> int:
    """How many frames apart those are that are analysed; also checks the size of the frames."""
    with VideoReader(source) as reader:
      width, height = reader.size
      if width * height > self._limits.max_pixels:
        raise ValueError(
          f"{reader.name}: {width}x{height} pixels are more than the limit of "
          f"{self._limits.max_pixels}; reduce the film"
        )
      return max(1, math.ceil(reader.rate / self._limits.frame_rate))

  def _film(self, reader: VideoReader, folder: pathlib.Path) -> str:
    end = time.monotonic() + self._limits.timeout
    late = False

    def is_late() -> bool:
      nonlocal late
      late = time.monotonic() > end
      return late

    with VideoResults(
      folder,
      reader,
      self._predictor,
      header={},
      smoothing=_SMOOTHING,
      annotated=True,
      with_detections=False,
    ) as results:
      seconds = self._limits.film_seconds
      analyse(reader, self._predictor, results, seconds=seconds, stopped=is_late)
    if not results.analysed:
      if late:
        return markup.problem(
          f"{reader.name}: no frame was analysed within {self._limits.timeout:g} s; try again later"
        )
      reasons = "; ".join(results.damage) or "it has no frames"
      return markup.problem(f"{reader.name}: no frame could be read ({reasons})")
    damage = list(results.damage)
    notes = []
    if late:
      notes.append(f"Stopped after {self._limits.timeout:g} s of work.")
    elif reader.duration is not None and reader.duration > seconds:
      notes.append(f"Only the first {seconds:g} s of {reader.duration:.1f} s were analysed.")
    elif not damage and (missing := reader.missing()):
      damage.append(missing)
    notes += [f"Damaged: {sentence}." for sentence in damage]
    return markup.block(
      markup.summary(_film_sentence(reader.name, results)),
      *map(markup.note, notes),
      _annotated(folder, results),
      *(self._person(folder, results, person) for person in results.persons.longest()),
    )

  def _person(self, folder: pathlib.Path, results: VideoResults, person: Person) -> str:
    fields = results.persons.fields(person)
    title = (
      f"Person {person.track}: {fields['expression']} in {fields['share']:.0%} of {person.frames} "
      "frames; mean scores"
    )
    means = (person.total / person.frames).tolist()
    timeline = (folder / TIMELINES / f"track-{person.track}.png").read_bytes()
    description = f"Scores of person {person.track} over time"
    return markup.scores(
      title, dict(zip(self._predictor.class_names, means, strict=True))
    ) + markup.encoded_picture(timeline, "image/png", description)


def _sentence(prediction: Prediction) -> str:
  faces = prediction.faces
  if not faces:
    return (
      "no face was found. Faces that are small, turned away or dark are often missed: try a part "
      "of the picture, or a lower --score-threshold"
    )
  if faces[0].box is None:
    return f"{faces[0].expression} {faces[0].score:.2f}"
  found = "1 face" if len(faces) == 1 else f"{len(faces)} faces"
  return f"{found} found: {_counted(faces)}"


def _counted(faces: Sequence[Face]) -> str:
  expressions = [face.expression for face in faces]
  return ", ".join(f"{expressions.count(x)} {x}" for x in dict.fromkeys(expressions))


def _film_sentence(name: str, results: VideoResults) -> str:
  persons = len(results.persons.all())
  with_faces = results.analysed - results.without
  return (
    f"{name}: {persons or 'no'} {'person' if persons == 1 else 'persons'} found, a face in "
    f"{with_faces} of {results.analysed} analysed frames"
  )


def _annotated(folder: pathlib.Path, results: VideoResults) -> str:
  if results.annotated is None:
    return ""
  file = folder / results.annotated
  if file.suffix != ".mp4" or file.stat().st_size > _LARGEST_FILM:
    return markup.note(
      "The annotated film is not shown: it is too large, or its sound does not fit into MP4."
    )
  return markup.film(file.read_bytes(), "The film with a box around each face")

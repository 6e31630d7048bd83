"""All files about a film, written while it is read."""

import dataclasses
import json
import os
import pathlib
from types import TracebackType
from typing import Any

import numpy as np
from av.packet import Packet

from ferjax.fonts import lettering
from ferjax.inference.base import ImagePredictor
from ferjax.inference.draw import draw_faces
from ferjax.inference.results import Face, Prediction
from ferjax.output import atomic_writer, results_folder
from ferjax.video.annotated import AnnotatedFilm
from ferjax.video.persons import Persons
from ferjax.video.reading import Frame, VideoReader
from ferjax.video.smoothing import Smoother
from ferjax.video.tables import PARQUET, RAW, SMOOTHED, FaceTable, face_schema
from ferjax.video.timelines import TIMELINES, write_timelines
from ferjax.video.tracking import Tracker

SUMMARY = "video.json"


class VideoResults:
  """Tracks the faces of a film, smooths their scores, and writes the files of docs/video.md.

  A context manager. The files appear when it ends, also after an error or an interrupt: then they
  have what was computed until then, and the summary has `"complete": false`.

  Attributes:
    output: folder of the results.
    persons: the summaries of the tracks.
    analysed: the number of frames so far.
    without: how many of them had no face.
    complete: whether the film was read to its end; set it before the end.
    damage: what was wrong with the film, as sentences; set it before the end.
    annotated: name of the annotated film; None without one.
  """

  def __init__(
    self,
    output: str | os.PathLike,
    reader: VideoReader,
    predictor: ImagePredictor,
    *,
    header: dict[str, Any],
    smoothing: float,
    annotated: bool,
    with_detections: bool,
  ):
    """Creates the folder and the partial files.

    Args:
      output: folder for the results.
      reader: of the film.
      predictor: of its faces.
      header: additional fields of the summary.
      smoothing: seconds, as for `Smoother`.
      annotated: whether to write the annotated film.
      with_detections: whether a classifier classified the faces of a detector.

    Raises:
      ValueError: the smoothing is out of range, or films cannot be encoded.
      OSError: a file cannot be created.
    """
    self._smoother, self._tracker = Smoother(smoothing), Tracker()
    self.output: pathlib.Path = results_folder(output)
    self._reader, self._header = reader, header
    self._names = predictor.class_names
    self._with_detections = with_detections
    self.persons = Persons(self._names)
    self.analysed = self.without = 0
    self.complete, self.damage = False, []
    self.annotated: str | None = None
    self._size: tuple[int, int] | None = None
    self._letters = lettering(self._names)
    self._film = AnnotatedFilm(self.output, reader) if annotated else None
    self._table = FaceTable(self.output, face_schema(self._names, with_detections=with_detections))

  @property
  def faces(self) -> int:
    """The number of faces in all frames so far."""
    return self._table.rows

  def add(self, frame: Frame, prediction: Prediction) -> None:
    """Adds the next frame.

    Raises:
      OSError: a file cannot be written.
    """
    faces = prediction.faces
    tracks = self._tracks(frame, faces)
    shown = []
    for face, track in zip(faces, tracks, strict=True):
      scores = np.array([face.scores[name] for name in self._names])
      smoothed = self._smoother.smooth(track, frame.time, scores)
      best = int(np.argmax(smoothed))
      named = dict(zip(self._names, smoothed.tolist(), strict=True))
      shown.append(
        dataclasses.replace(
          face, score=float(smoothed[best]), expression=self._names[best], scores=named
        )
      )
      person = self.persons.add(track, frame.time, scores, smoothed)
      found = face.score if face.detection is None else face.detection.score
      self.persons.keep_portrait(person, frame.image, face.box, found)
      self._table.add(self._row(frame, track, face, shown[-1]))
    self._smoother.forget(frame.time)
    self.analysed += 1
    self.without += not faces
    if self._size is None:
      self._size = (prediction.width, prediction.height)
    if self._film is not None:
      self._film.add(frame.time, draw_faces(frame.image, shown, self._letters, numbers=tracks))

  def add_sound(self, packet: Packet) -> None:
    """Copies a packet of sound to the annotated film.

    Raises:
      OSError: it cannot be written.
    """
    if self._film is not None:
      self._film.add_sound(packet)

  def _tracks(self, frame: Frame, faces: tuple[Face, ...]) -> list[int]:
    boxes = [face.box for face in faces if face.box is not None]
    if len(boxes) < len(faces):  # a classifier alone: the film shows one face
      return [1] * len(faces)
    return self._tracker.update(frame.time, frame.image, boxes)

  def _row(self, frame: Frame, track: int, face: Face, smoothed: Face) -> dict[str, Any]:
    box = (None,) * 4 if face.box is None else [round(edge, 2) for edge in face.box]
    row = {
      "time": round(frame.time, 6),
      "frame": frame.index,
      "track": track,
      **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)),
      "score": round(face.score, 6),
      "expression": face.expression,
      "smoothed_score": round(smoothed.score, 6),
      "smoothed_expression": smoothed.expression,
      **{RAW + name: round(score, 6) for name, score in face.scores.items()},
      **{SMOOTHED + name: round(score, 6) for name, score in smoothed.scores.items()},
    }
    if self._with_detections and face.detection is not None:
      row["detection_score"] = round(face.detection.score, 6)
      row["detection_expression"] = face.detection.expression
    return row

  def __enter__(self) -> "VideoResults":
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    self.complete = self.complete and kind is None
    try:
      self._table.close()
      if self._film is not None:
        self.annotated = self._film.close()
      self.persons.write(self.output)
      timelines = write_timelines(
        self.output / PARQUET, self.persons.longest(), self._names, self.output / TIMELINES
      )
      self._write_summary(timelines)
    finally:
      self._table.discard()
      if self._film is not None:
        self._film.discard()

  def _write_summary(self, timelines: list[str]) -> None:
    width, height = self._size or (None, None)
    fields = {
      **self._header,
      "class_names": self._names,
      "complete": self.complete,
      "damage": self.damage,
      "width": width,
      "height": height,
      "duration": self._reader.duration,
      "frames_per_second": round(self._reader.rate, 6),
      "frames": self._reader.frames,
      "analysed": self.analysed,
      "without_a_face": self.without,
      "faces": self.faces,
      "annotated": self.annotated,
      "timelines": [f"{TIMELINES}/{name}" for name in timelines],
      "tracks": [self.persons.fields(person) for person in self.persons.all()],
    }
    with atomic_writer(self.output / SUMMARY) as file:
      json.dump(fields, file, indent=2)
      file.write("\n")

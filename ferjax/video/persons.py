"""What a film says about each person: the summary of a track."""

import csv
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from ferjax.inference.results import Box
from ferjax.output import atomic_writer

TRACKS = "tracks.csv"
MOST_TIMELINES = 20
_PORTRAIT = 96  # pixels
_MOST_PORTRAITS = 4 * MOST_TIMELINES


@dataclasses.dataclass
class Person:
  """The summary of a track.

  Attributes:
    track: its number.
    first, last: time of the first and the last frame with the face, seconds.
    frames: the number of frames with the face.
    expressions: for each class, the number of frames in which its smoothed score is the largest.
    total: for each class, the sum of its scores.
    portrait: the face where it was found with the highest score, RGB; None if it is not kept.
    portrait_score: that score.
  """

  track: int
  first: float
  last: float
  frames: int
  expressions: np.ndarray
  total: np.ndarray
  portrait: np.ndarray | None = None
  portrait_score: float = -1.0


class Persons:
  """Sums up the tracks of a film while it is read."""

  def __init__(self, class_names: Sequence[str]):
    """`class_names` are in the order of the scores."""
    self._names = tuple(class_names)
    self._persons: dict[int, Person] = {}

  def add(
    self,
    track: int,
    time: float,
    scores: Float[np.ndarray, "k"],
    smoothed: Float[np.ndarray, "k"],
  ) -> Person:
    """Adds a face to its person: the scores of a frame, and the smoothed ones."""
    if track not in self._persons:
      counts, total = np.zeros(len(self._names), np.int64), np.zeros(len(self._names))
      self._persons[track] = Person(track, time, time, 0, counts, total)
    person = self._persons[track]
    person.last = time
    person.frames += 1
    person.total += scores
    person.expressions[np.argmax(smoothed)] += 1
    return person

  def keep_portrait(
    self, person: Person, image: UInt8[np.ndarray, "h w 3"], box: Box | None, score: float
  ) -> None:
    """Keeps the face if it is the clearest so far; only those of persons seen often are kept."""
    if score <= person.portrait_score:
      return
    x1, y1, x2, y2 = (0, 0, image.shape[1], image.shape[0]) if box is None else box
    crop = image[max(0, int(y1)) : max(1, int(y2)), max(0, int(x1)) : max(1, int(x2))]
    if not crop.size:
      return
    scale = _PORTRAIT / max(crop.shape[:2])
    size = (max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale)))
    person.portrait = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
    person.portrait_score = score
    with_portraits = [other for other in self._persons.values() if other.portrait is not None]
    if len(with_portraits) > _MOST_PORTRAITS:
      least = min(
        (other for other in with_portraits if other is not person), key=lambda other: other.frames
      )
      least.portrait = None

  def all(self) -> list[Person]:
    """The persons in order of appearance."""
    return list(self._persons.values())

  def longest(self) -> list[Person]:
    """Those seen in most frames, in order of appearance; at most 20."""
    ordered = sorted(self._persons.values(), key=lambda person: -person.frames)
    return sorted(ordered[:MOST_TIMELINES], key=lambda person: person.track)

  def fields(self, person: Person) -> dict[str, Any]:
    """The summary as a row of a table: numbers are rounded as in the other files."""
    best = int(np.argmax(person.expressions))
    means = person.total / person.frames
    return {
      "track": person.track,
      "first": round(person.first, 3),
      "last": round(person.last, 3),
      "frames": person.frames,
      "expression": self._names[best],
      "share": round(int(person.expressions[best]) / person.frames, 4),
      **{f"mean_{name}": round(float(x), 6) for name, x in zip(self._names, means, strict=True)},
    }

  def write(self, folder: pathlib.Path) -> None:
    """Writes `tracks.csv`, a row for each person."""
    columns = ["track", "first", "last", "frames", "expression", "share"]
    columns += [f"mean_{name}" for name in self._names]
    with atomic_writer(folder / TRACKS) as file:
      table = csv.DictWriter(file, columns)
      table.writeheader()
      table.writerows(map(self.fields, self.all()))

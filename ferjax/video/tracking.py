"""Keeps the identities of faces from frame to frame, by position and appearance.

Ready-made trackers were considered: `trackers` and `boxmot` install a second OpenCV over the
headless one, or PyTorch, and `norfair` needs NumPy 1 and a library that is no longer maintained.
Two assignments by SciPy do the same for faces.
"""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.optimize import linear_sum_assignment

from ferjax.inference.results import Box

_MIN_IOU = 0.2
# Similarity of appearance, -1..1, that a face needs to be the same as in the last frame, and as a
# second ago. Of the pairs of portraits of different persons, all taken in one studio, 0.1 % are
# above the first number and 5 % above the second (docs/video.md).
_CONTINUES = (0.92, 0.85)
# For a lost face to be known again. It is compared with many.
_THE_SAME = 0.92
_STILL_THERE = 1.0  # seconds during which a lost face is expected where it was
_REMEMBERED = 60.0  # seconds during which a lost face is known again by its appearance
_MOST_REMEMBERED = 64
_FOLLOWED = 0.3  # weight of a new frame in the appearance of a track

_MARGIN = 0.1  # of the box: hair, but little of the background
_SIDE, _COARSE = 48, 12  # pixels


@dataclasses.dataclass
class _Track:
  """A face so far; `latest` is its appearance in the last frame, `appearance` over the last few."""

  number: int
  time: float
  box: Box
  appearance: np.ndarray
  latest: np.ndarray


class Tracker:
  """Gives each face the number of its track: 1, 2, ... in order of appearance.

  A face continues the track whose last box it overlaps, unless it looks like somebody else, as
  after a cut. Otherwise it continues a lost track that it looks the same as; the last 64 tracks
  are remembered, for a minute. Otherwise it begins a track.
  """

  def __init__(self):
    self._tracks: list[_Track] = []
    self._begun = 0

  def update(
    self, time: float, image: UInt8[np.ndarray, "h w 3"], boxes: Sequence[Box]
  ) -> list[int]:
    """The track of each face of the next frame; all differ.

    Args:
      time: seconds; increases.
      image: the frame, RGB.
      boxes: of its faces.
    """
    known = [track for track in self._tracks if time - track.time <= _REMEMBERED]
    looks = [appearance(image, box) for box in boxes]
    similar = np.array([[look @ track.appearance for track in known] for look in looks])
    similar = similar.reshape(len(boxes), len(known))
    overlap = np.array([[_iou(box, track.box) for track in known] for box in boxes])
    overlap = overlap.reshape(similar.shape)
    alike = np.array([[look @ track.latest for track in known] for look in looks])
    alike = alike.reshape(similar.shape)
    ages = np.array([time - track.time for track in known])
    asked = np.interp(ages, (0, _STILL_THERE), _CONTINUES)
    near = ages <= _STILL_THERE
    found = _assign(overlap, (overlap >= _MIN_IOU) & (alike >= asked) & near)
    free = np.ones(similar.shape, bool)
    for face, track in found.items():
      free[face], free[:, track] = False, False
    found |= _assign(similar, free & (similar >= _THE_SAME))
    numbers = []
    for face, (box, look) in enumerate(zip(boxes, looks, strict=True)):
      if face in found:
        track = known[found[face]]
        track.time, track.box, track.latest = time, box, look
        track.appearance = _unit((1 - _FOLLOWED) * track.appearance + _FOLLOWED * look)
      else:
        self._begun += 1
        track = _Track(self._begun, time, box, look, look)
        known.append(track)
      numbers.append(track.number)
    # The latest ones last; those of this frame are never forgotten.
    known.sort(key=lambda track: track.time)
    self._tracks = known[-max(_MOST_REMEMBERED, len(boxes)) :]
    return numbers


def _assign(gain: Float[np.ndarray, "n m"], allowed: Bool[np.ndarray, "n m"]) -> dict[int, int]:
  """Pairs of the largest sum of gains, only allowed ones; as many as the sum needs."""
  rows, columns = linear_sum_assignment(np.where(allowed, gain, 0.0), maximize=True)
  return {
    int(row): int(column) for row, column in zip(rows, columns, strict=True) if allowed[row, column]
  }


def _iou(a: Box, b: Box) -> float:
  width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
  height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
  both = width * height
  union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
  return both / union if union > 0 else 0.0


def appearance(image: UInt8[np.ndarray, "h w 3"], box: Box) -> Float[np.ndarray, "d"]:
  """A unit vector of the colours around a face: where they are, and how much of each.

  The scalar product of two is their similarity.
  """
  crop = cv2.resize(_surroundings(image, box), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
  crop = cv2.GaussianBlur(crop, (0, 0), 1)  # noise would move colours to other bins
  lab = cv2.cvtColor(crop, cv2.COLOR_RGB2LAB)
  coarse = cv2.resize(lab, (_COARSE, _COARSE), interpolation=cv2.INTER_AREA).astype(np.float64)
  coarse -= coarse.mean(axis=(0, 1))
  # Skin, hair and most clothes have few of the colours of Lab: bins are narrower there.
  bins = [0, 256, 96, 176, 96, 176]
  counts = cv2.calcHist([lab], [0, 1, 2], None, [8, 8, 8], bins).ravel().astype(np.float64)
  return _unit(np.concatenate([_unit(coarse.ravel()), _unit(np.sqrt(counts))]))


def _surroundings(image: np.ndarray, box: Box) -> np.ndarray:
  """The part of the image around a box, at least one pixel."""
  x1, y1, x2, y2 = box
  across, down = _MARGIN * (x2 - x1), _MARGIN * (y2 - y1)
  height, width = image.shape[:2]
  left, top = (
    int(min(max(edge, 0), end - 1)) for edge, end in ((x1 - across, width), (y1 - down, height))
  )
  return image[top : max(top + 1, int(y2 + down)), left : max(left + 1, int(x2 + across))]


def _unit(vector: np.ndarray) -> np.ndarray:
  return vector / max(float(np.linalg.norm(vector)), 1e-12)

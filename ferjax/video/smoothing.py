"""Scores of a person, smoothed over time."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_FORGOTTEN = 20  # time constants: exp(-20) is below the resolution of a score


class _State(NamedTuple):
  time: float
  scores: np.ndarray  # weighted sum
  weight: float


class Smoother:
  """A mean of the scores of each track so far, with weights exp(-age / seconds).

  It does not depend on the frame rate, nor on the frames to come, and after a long gap it starts
  anew. A film with varying times between frames is smoothed as one with constant ones.
  """

  def __init__(self, seconds: float):
    """`seconds` is the age at which a frame counts 1/e; with 0, scores stay as they are.

    Raises:
      ValueError: it is negative or not finite.
    """
    if not 0 <= seconds < math.inf:
      raise ValueError(f"the smoothing is {seconds} s; expected 0 or a positive number of seconds")
    self._seconds = seconds
    self._states: dict[int, _State] = {}

  def smooth(self, track: int, time: float, scores: Float[np.ndarray, "k"]) -> np.ndarray:
    """The smoothed scores of a track at this time, f64[k].

    Args:
      track: number of the track.
      time: seconds; increases.
      scores: of this frame.
    """
    if not self._seconds:
      return scores
    total, weight = scores.astype(np.float64), 1.0
    if track in self._states:
      before = self._states[track]
      kept = math.exp((before.time - time) / self._seconds)
      total, weight = total + kept * before.scores, weight + kept * before.weight
    self._states[track] = _State(time, total, weight)
    return total / weight

  def forget(self, time: float) -> None:
    """Forgets the tracks that no longer count at this time."""
    oldest = time - _FORGOTTEN * self._seconds
    self._states = {track: state for track, state in self._states.items() if state.time >= oldest}

"""Maps an expression's name to the movements of a face, with facial action units.

An expression is a set of action units (EMFACS: Friesen & Ekman 1983, "EMFACS-7"; Ekman, Friesen &
Hager 2002, "Facial Action Coding System"). A unit changes a few control values of the face, which
are zero at rest and linear in the unit's intensity. Amplitudes are larger than in real faces, for
clarity.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ferjax.expressions import EXPRESSIONS

EMFACS = {
  "neutral": (),
  "happiness": (6, 12),
  "sadness": (1, 4, 15),
  "surprise": (1, 2, 5, 26),
  "fear": (1, 2, 4, 5, 20, 26),
  "disgust": (9, 15, 16),
  "anger": (4, 5, 7, 23),
  "contempt": (12, 14),  # on one side only
}
UNIT_NAMES = {
  1: "inner brow raiser",
  2: "outer brow raiser",
  4: "brow lowerer",
  5: "upper lid raiser",
  6: "cheek raiser",
  7: "lid tightener",
  9: "nose wrinkler",
  12: "lip corner puller",
  14: "dimpler",
  15: "lip corner depressor",
  16: "lower lip depressor",
  20: "lip stretcher",
  23: "lip tightener",
  26: "jaw drop",
}
UNITS = tuple(UNIT_NAMES)
ONE_SIDED = ("contempt",)

_Pair = Float[np.ndarray, "2"]


class Movement(NamedTuple):
  """Control values; pairs are (image left, image right), positions in face heights.

  `brow_inner`, `brow_outer` and `lip_corner_up` point upwards, `lip_corner_out` and `brow_gather`
  away from and towards the middle line. The others are degrees of movement, 0 at rest.
  """

  brow_inner: _Pair
  brow_outer: _Pair
  brow_gather: _Pair
  brow_furrow: _Pair
  forehead: _Pair
  lid_upper: _Pair
  lid_lower: _Pair
  cheek: _Pair
  lip_corner_out: _Pair
  lip_corner_up: _Pair
  smile: _Pair
  dimple: _Pair
  nose_wrinkle: float
  lower_lip: float
  lip_stretch: float
  lip_press: float
  jaw_drop: float


def action_units(expression: str, intensity: float, side: int = 0) -> Float[np.ndarray, "u 2"]:
  """The intensities of `UNITS` (rows) on the image's left and right (columns).

  Args:
    expression: One of `EXPRESSIONS`.
    intensity: 0 (neutral) to 1.
    side: 0 left, 1 right: the side that a one-sided expression moves.

  Raises:
    ValueError: For an unknown expression or an intensity outside 0..1.
  """
  if expression not in EMFACS:
    raise ValueError(f"unknown expression {expression!r}; known: {', '.join(EXPRESSIONS)}")
  if not 0 <= intensity <= 1:
    raise ValueError(f"intensity is {intensity}; expected 0 (neutral) to 1")
  units = np.zeros((len(UNITS), 2))
  rows = [UNITS.index(unit) for unit in EMFACS[expression]]
  units[rows] = intensity
  if expression in ONE_SIDED:
    units[:, 1 - side] = 0
  return units


def movement(units: Float[np.ndarray, "u 2"]) -> Movement:
  """The control values of the face under the given action units."""
  au = dict(zip(UNITS, units, strict=True))
  both = {unit: float(sides.min()) for unit, sides in au.items()}
  jaw = both[26]
  return Movement(
    brow_inner=0.1 * au[1] - 0.09 * au[4] * (1 - au[1]) - 0.05 * au[9],
    brow_outer=0.09 * au[2] - 0.06 * au[1] * (1 - au[2]) - 0.02 * au[9],
    brow_gather=0.035 * au[4] + 0.01 * au[9],
    brow_furrow=np.maximum(au[4], 0.5 * au[9]),
    forehead=np.minimum(au[1], au[2]),
    lid_upper=0.044 * au[5] * (1 - 0.75 * au[7]) - 0.016 * au[7] - 0.016 * au[9] - 0.008 * au[6],
    lid_lower=0.04 * au[6]
    + 0.012 * au[12]
    + 0.022 * au[7]
    + 0.03 * au[9]
    - 0.012 * au[5] * (1 - au[7]),
    cheek=au[6],
    lip_corner_out=0.05 * au[12] + 0.12 * au[20] - 0.065 * au[23] - 0.065 * jaw + 0.015 * au[15],
    lip_corner_up=0.085 * au[12] + 0.08 * au[14] - 0.1 * au[15] - 0.015 * au[20],
    smile=au[12],
    dimple=au[14],
    nose_wrinkle=both[9],
    lower_lip=both[16],
    lip_stretch=both[20],
    lip_press=both[23],
    jaw_drop=jaw,
  )

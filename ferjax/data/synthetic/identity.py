"""The identity of a synthetic face: proportions, colours, hair and glasses."""

import dataclasses

import numpy as np

from ferjax.data.synthetic.drawing import Color, mix, scale

HAIR_STYLES = (
  "bald",
  "short",
  "parted",
  "curly",
  "spiky",
  "bob",
  "long",
  "bun",
  "hat",
  "headscarf",
)
SKINS = (
  (255, 224, 196),
  (246, 205, 170),
  (229, 180, 140),
  (204, 148, 104),
  (166, 112, 74),
  (126, 82, 54),
  (92, 60, 44),
)
_HAIRS = ((28, 24, 24), (60, 38, 26), (106, 66, 36), (168, 112, 58), (218, 176, 104), (150, 62, 34))
_GREY_HAIR = (186, 186, 190)
_IRISES = ((70, 44, 26), (52, 34, 24), (58, 98, 140), (70, 116, 74), (96, 96, 100))


@dataclasses.dataclass(frozen=True)
class Identity:
  """Properties of a person that do not depend on the expression; lengths in face heights."""

  half_width: float
  jaw: float  # widths of the jaw and the chin, relative to half_width
  chin: float
  skin: Color
  hair: Color
  hair_style: str  # of `HAIR_STYLES`
  hat: Color  # of hat, headscarf and glasses
  cloth: Color
  ears: bool
  eye_size: float
  eye_distance: float
  eye_tilt: float
  iris: Color
  gaze: float
  brow_width: float
  nose_width: float
  nose_length: float
  mouth_width: float
  lip_fullness: float
  lip: Color
  glasses: str  # "none", "round", "square"
  facial_hair: str  # "none", "moustache", "goatee", "beard"
  freckles: bool
  side: int  # of the image that moves in a one-sided expression: 0 left, 1 right


def random_color(rng: np.random.Generator) -> Color:
  """A colour of cloth or paint, rarely saturated."""
  color = rng.uniform(15, 240, 3)
  return tuple(round(c) for c in (0.7 * color + 0.3 * color.mean()).tolist())


def random_identity(rng: np.random.Generator) -> Identity:
  """Samples a random person."""
  skin = rng.uniform(0, len(SKINS) - 1)
  low = SKINS[int(skin)]
  skin_color = mix(low, SKINS[int(skin) + 1], skin % 1)
  grey = rng.random() < 0.12
  # Dark skin gets dark hair colours.
  shades = len(_HAIRS) if skin < 3 else 2
  hair_color = _GREY_HAIR if grey else _HAIRS[rng.integers(shades)]
  style = str(rng.choice(HAIR_STYLES))
  bearded = rng.random() < 0.25 and style != "headscarf"
  u = rng.uniform(0, 1, 12)
  return Identity(
    half_width=0.35 + 0.075 * u[0],
    jaw=0.76 + 0.16 * u[1],
    chin=0.34 + 0.2 * u[2],
    skin=skin_color,
    hair=mix(hair_color, skin_color, 0.12 * u[3]),
    hair_style=style,
    hat=random_color(rng),
    cloth=random_color(rng),
    ears=True,
    eye_size=0.088 + 0.018 * u[4],
    eye_distance=0.44 + 0.05 * u[5],
    eye_tilt=0.016 * (u[6] - 0.4),
    iris=_IRISES[rng.integers(len(_IRISES) if skin < 3 else 2)],
    gaze=0.03 * (u[7] - 0.5),
    brow_width=0.034 + 0.016 * u[8],
    nose_width=0.05 + 0.03 * u[9],
    nose_length=0.13 + 0.04 * u[10],
    mouth_width=0.14 + 0.03 * u[11],
    lip_fullness=rng.uniform(0.7, 1.3),
    lip=mix(scale(skin_color, 0.82), (196, 50, 66), rng.uniform(0.25, 0.75)),
    glasses=str(rng.choice(("none", "round", "square"), p=(0.76, 0.12, 0.12))),
    facial_hair=str(rng.choice(("moustache", "goatee", "beard"))) if bearded else "none",
    freckles=bool(rng.random() < 0.12),
    side=int(rng.integers(2)),
  )

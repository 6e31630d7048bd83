"""Hair, hats and headscarves of a synthetic face, in face coordinates (see `head`)."""

import numpy as np
from jaxtyping import Float

from ferjax.data.synthetic.drawing import Shape, ellipse, scale, spline, stroke
from ferjax.data.synthetic.identity import Identity


def _crown(identity: Identity, margin: float, low: float) -> Float[np.ndarray, "17 2"]:
  """The arc over the head, from the left at height `low` to the right."""
  angle = np.linspace(np.pi, 2 * np.pi, 17)
  x = (identity.half_width + margin) * np.cos(angle)
  return np.stack([x, low + (0.52 + margin + low) * np.sin(angle)], 1)


def behind(identity: Identity) -> list[Shape]:
  """The hair or headscarf behind the head."""
  w, style = identity.half_width, identity.hair_style
  color = scale(identity.hair, 0.8)
  if style in ("long", "bob"):
    end = 0.72 if style == "long" else 0.34
    crown = _crown(identity, 0.09, -0.05)
    sides = [(w + 0.13, 0.15), (w + 0.1, end), (0, end + 0.02), (-w - 0.1, end), (-w - 0.13, 0.15)]
    return [(np.concatenate([crown, spline(sides)]), color)]
  if style == "headscarf":
    sides = [(w + 0.1, 0.2), (w + 0.06, 0.5), (0, 0.74), (-w - 0.06, 0.5), (-w - 0.1, 0.2)]
    return [(np.concatenate([_crown(identity, 0.1, -0.05), spline(sides)]), identity.hat)]
  if style == "bun":
    return [(ellipse(0.0, -0.66, 0.14, 0.12), color)]
  if style == "curly":
    return [(ellipse(x, y, 0.13, 0.13), color) for x, y in _crown(identity, 0.0, -0.1)[::2]]
  return []


def in_front(identity: Identity) -> list[Shape]:
  """The hair, hat or headscarf in front of the head."""
  w, style = identity.half_width, identity.hair_style
  if style == "bald":
    return []
  lock = identity.side - 0.5  # position of the parting
  low = -0.12 if style in ("short", "spiky") else -0.05
  crown = _crown(identity, 0.05, low)
  line = [(0.97 * w, low), (0.9 * w, -0.28), (0.5 * w, -0.41), (0, -0.43)]
  line += [(-0.5 * w, -0.41), (-0.9 * w, -0.28), (-0.97 * w, low)]
  if style == "parted":
    sweep = 0.1 * lock
    line[2:5] = [(0.6 * w, -0.35 - sweep), (0.8 * lock * w, -0.46), (-0.6 * w, -0.35 + sweep)]
  if style == "spiky":
    crown = crown * np.where(np.arange(17) % 2, 1.0, 1.14)[:, None]
    line[2:5] = [(0.5 * w, -0.37), (0.2 * w, -0.45), (-0.1 * w, -0.36), (-0.5 * w, -0.44)]
  if style == "hat":
    dome = np.concatenate([_crown(identity, 0.07, -0.34), [(0, -0.38)]])
    brim = stroke(spline([(-w - 0.12, -0.33), (0, -0.4), (w + 0.12, -0.33)]), 0.06)
    sides = [
      (np.array(p) * (s, 1), identity.hair)
      for s in (-1, 1)
      for p in ([(w + 0.03, -0.36), (w + 0.03, -0.1), (0.94 * w, -0.1), (0.9 * w, -0.36)],)
    ]
    return [*sides, (dome, identity.hat), (brim, scale(identity.hat, 0.75))]
  if style == "headscarf":
    return [(np.concatenate([_crown(identity, 0.06, -0.05), spline(line)]), identity.hat)]
  shapes = [(np.concatenate([crown, spline(line)]), identity.hair)]
  if style == "curly":
    shapes += [(ellipse(x * w, -0.46, 0.09, 0.07), identity.hair) for x in (-0.6, -0.2, 0.2, 0.6)]
  return shapes

"""One synthetic face: the features of an `Identity` under a `Movement`.

A face is a list of filled polygons in face coordinates: the middle of the face is the origin, y
points down, and the face at rest has height 1 from hairline (-0.5) to chin (0.5). A `Pose`
transforms points, never pixels, so the face's outline in the image is known exactly.
"""

import numpy as np
from jaxtyping import Float
from PIL import ImageDraw

from ferjax.data.synthetic import hair
from ferjax.data.synthetic.action_units import Movement
from ferjax.data.synthetic.drawing import (
  Color,
  Pose,
  Shape,
  band,
  ellipse,
  mix,
  paint,
  scale,
  spline,
  stroke,
)
from ferjax.data.synthetic.identity import Identity

_DARK = (34, 22, 24)
_MOUTH = (84, 14, 22)
_TONGUE = (208, 88, 88)
_TEETH = (253, 251, 246)
_EYE_Y, _BROW_Y, _MOUTH_Y = -0.055, -0.2, 0.275
_LID_T = np.linspace(-1, 1, 11)
_LIP_T = np.sin(np.linspace(-0.5, 0.5, 19) * np.pi)  # denser at the corners


def outline(identity: Identity, move: Movement) -> Float[np.ndarray, "p 2"]:
  """The closed outline of the face: hairline to chin, cheek to cheek, without hair and ears."""
  w, drop = identity.half_width, 0.11 * move.jaw_drop
  right = np.array(
    [
      (0.55, -0.465),
      (0.9, -0.3),
      (1.0, -0.06),
      (0.97, 0.12 + 0.3 * drop),
      (identity.jaw, 0.3 + 0.7 * drop),
      (identity.chin, 0.455 + drop),
    ]
  ) * (w, 1)
  left = right[::-1] * (-1, 1)
  return spline([(0, -0.5), *right, (0, 0.5 + drop), *left], closed=True)


def draw_face(
  draw: ImageDraw.ImageDraw, identity: Identity, move: Movement, pose: Pose, light: int = 1
) -> None:
  """Paints a head; the side away from `light` (-1 left, 1 right) is in shade."""
  contour = outline(identity, move)
  shapes = [
    *hair.behind(identity),
    *_ears(identity),
    (contour, identity.skin),
    *_shade(identity, contour, light),
    *_facial_hair(identity, move, contour),
    *_lines(identity, move),
    *_eye(identity, move, 0),
    *_eye(identity, move, 1),
    *_nose(identity, move),
    *_mouth(identity, move),
    *hair.in_front(identity),
    *_brow(identity, move, 0),
    *_brow(identity, move, 1),
    *_glasses(identity),
  ]
  paint(draw, shapes, pose)


def draw_shoulders(draw: ImageDraw.ImageDraw, identity: Identity, pose: Pose) -> None:
  """Paints neck and clothes; called before all heads, so that no shoulder hides a face."""
  neck = np.array([(-0.19, 0.2), (0.19, 0.2), (0.2, 0.62), (-0.2, 0.62)])
  shoulders = spline(
    [
      (-0.8, 2.4),
      (-0.7, 1.3),
      (-0.66, 0.8),
      (-0.42, 0.64),
      (-0.2, 0.58),
      (0, 0.66),
      (0.2, 0.58),
      (0.42, 0.64),
      (0.66, 0.8),
      (0.7, 1.3),
      (0.8, 2.4),
    ]
  )
  paint(draw, [(neck, scale(identity.skin, 0.82)), (shoulders, identity.cloth)], pose)


def _sign(side: int) -> int:
  return 2 * side - 1


def _shade(identity: Identity, contour: np.ndarray, light: int) -> list[Shape]:
  far = contour[contour[:, 0] * light <= 0]
  far = far[np.argsort(far[:, 1])]
  crescent = np.concatenate([far, far[::-1] * (0.8, 1)])
  return [(crescent, (40, 10, 20, 44))]


def _ears(identity: Identity) -> list[Shape]:
  if not identity.ears or identity.hair_style in ("bob", "long", "headscarf"):
    return []
  inner = scale(identity.skin, 0.78)
  shapes = []
  for sign in (-1, 1):
    x = sign * (identity.half_width + 0.01)
    shapes.append((ellipse(x, 0.0, 0.055, 0.1), scale(identity.skin, 0.94)))
    shapes.append((ellipse(x + sign * 0.012, 0.0, 0.026, 0.06), inner))
  return shapes


def _eye(identity: Identity, move: Movement, side: int) -> list[Shape]:
  sign = _sign(side)
  x0 = sign * identity.eye_distance * identity.half_width
  half = identity.eye_size
  upper, lower = 0.056 + move.lid_upper[side], 0.042 - move.lid_lower[side]
  # The fold above the eye follows the brow: the lid slopes with it.
  slope = 0.3 * (move.brow_inner[side] - move.brow_outer[side]) + identity.eye_tilt * -1
  x = x0 + half * _LID_T
  bump = 1 - np.abs(_LID_T) ** 2.4
  tilt = sign * _LID_T * slope
  y_up = _EYE_Y + tilt * 0.8 - upper * bump
  y_low = _EYE_Y + tilt * 0.8 + lower * bump
  y_up = np.minimum(y_up, y_low)
  shapes: list[Shape] = [(band(x, y_up, y_low), (250, 250, 250))]
  center = (x0 + identity.gaze, _EYE_Y - 0.004)
  for radius, color in ((0.054, identity.iris), (0.029, (14, 10, 12))):
    disc = ellipse(*center, radius, radius)
    disc[:, 1] = np.clip(
      disc[:, 1], np.interp(disc[:, 0], x, y_up), np.interp(disc[:, 0], x, y_low)
    )
    shapes.append((disc, color))
  if upper + lower > 0.05:
    shapes.append((ellipse(center[0] + 0.014, center[1] - 0.014, 0.011, 0.011), (255, 255, 255)))
  lash = np.stack([x, y_up], 1)
  lash[0 if side == 0 else -1] += (sign * 0.012, 0.004)
  shapes.append((stroke(lash, 0.021), _DARK))
  shapes.append((stroke(np.stack([x, y_low], 1), 0.009), scale(identity.skin, 0.5)))
  return shapes


def _brow(identity: Identity, move: Movement, side: int) -> list[Shape]:
  sign = _sign(side)
  w = identity.half_width
  inner_x = 0.17 * w + 0.02 - move.brow_gather[side]
  outer_x = 0.76 * w
  inner_y = _BROW_Y - move.brow_inner[side]
  outer_y = _BROW_Y + 0.02 - move.brow_outer[side]
  furrow = move.brow_furrow[side]
  arch = 0.022 + 0.25 * max(move.brow_outer[side], 0) * (1 - furrow) - 0.014 * furrow
  middle = ((inner_x + outer_x) / 2, (inner_y + outer_y) / 2 - arch)
  line = spline([(inner_x, inner_y), middle, (outer_x, outer_y)]) * (sign, 1)
  width = identity.brow_width * np.linspace(1.15 + 0.3 * furrow, 0.45, len(line))
  return [(stroke(line, width), mix(scale(identity.hair, 0.7), _DARK, 0.5))]


def _nose(identity: Identity, move: Movement) -> list[Shape]:
  up = 0.03 * move.nose_wrinkle
  w = identity.nose_width * (1 + 0.3 * move.nose_wrinkle)
  tip = 0.14 - up
  dark = scale(identity.skin, 0.66)
  wings = spline(
    [
      (-w, tip - 0.04),
      (-w, tip - 0.005),
      (-0.4 * w, tip + 0.012),
      (0, tip + 0.02),
      (0.4 * w, tip + 0.012),
      (w, tip - 0.005),
      (w, tip - 0.04),
    ]
  )
  bridge = spline(
    [(0.35 * w, tip - identity.nose_length), (0.4 * w, tip - 0.07), (0.75 * w, tip - 0.03)]
  )
  shapes = [(wings, scale(identity.skin, 0.9)), (stroke(wings, 0.012), dark)]
  shapes.append((stroke(bridge, 0.01), scale(identity.skin, 0.8)))
  for sign in (-1, 1):
    shapes.append((ellipse(sign * 0.45 * w, tip + 0.004, 0.016, 0.009), scale(identity.skin, 0.35)))
  return shapes


def _lines(identity: Identity, move: Movement) -> list[Shape]:
  """Skin folds, whose depth follows the movement; cheeks and freckles."""
  w = identity.half_width
  fold = scale(identity.skin, 0.55)

  def crease(points, depth, width=0.014):
    return (stroke(spline(points), width), (*fold, round(255 * min(depth, 1.0))))

  shapes = []
  if identity.freckles:
    spots = ((0.3, 0.07), (0.42, 0.11), (0.5, 0.06), (0.6, 0.1))
    for x, y in (*spots, *((-x, y) for x, y in spots)):
      shapes.append((ellipse(x * w, y, 0.009, 0.009), (*scale(identity.skin, 0.7), 190)))
  for side in (0, 1):
    sign = _sign(side)
    cheek, smile, dimple = move.cheek[side], move.smile[side], move.dimple[side]
    if cheek > 0:
      blush = mix(identity.skin, (232, 70, 80), 0.55)
      shapes.append((ellipse(sign * 0.6 * w, 0.1, 0.1, 0.065), (*blush, round(150 * cheek))))
      eye = sign * (identity.eye_distance * w + identity.eye_size)
      for dy in (-0.03, 0.03):
        points = [(eye + sign * 0.025, _EYE_Y + 0.3 * dy), (eye + sign * 0.075, _EYE_Y + 1.3 * dy)]
        shapes.append(crease(points, cheek))
    furrow = move.brow_furrow[side]
    if furrow > 0:
      points = [(sign * 0.02, _BROW_Y - 0.05), (sign * 0.025, _BROW_Y + 0.035)]
      shapes.append(crease(points, furrow, 0.015))
    deep = max(move.nose_wrinkle, 0.8 * smile * (dimple == 0))
    if deep > 0:
      x, y = identity.nose_width + 0.02, 0.11
      points = [(sign * x, y), (sign * (x + 0.055), y + 0.06), (sign * (x + 0.075), y + 0.13)]
      shapes.append(crease(points, deep))
  if move.forehead.min() > 0:
    for y in (-0.4, -0.36):
      points = [(-0.5 * w, y + 0.01), (0, y), (0.5 * w, y + 0.01)]
      shapes.append(crease(points, 0.8 * move.forehead.min(), 0.011))
  if move.nose_wrinkle > 0:
    for y, half in ((-0.075, 0.05), (-0.035, 0.06), (0.005, 0.05)):
      points = [(-half, y + 0.016), (0, y - 0.012), (half, y + 0.016)]
      shapes.append(crease(points, move.nose_wrinkle, 0.014))
  return shapes


def _mouth(identity: Identity, move: Movement) -> list[Shape]:
  jaw, stretch, press, lower = move.jaw_drop, move.lip_stretch, move.lip_press, move.lower_lip
  grin = float(move.smile.min())  # both corners pulled: the lips part
  opening = 0.21 * jaw * (1 - 0.45 * stretch) + 0.13 * grin + 0.11 * lower
  y_top = _MOUTH_Y - 0.035 * move.nose_wrinkle + 0.01 * grin - 0.02 * jaw
  y_bottom = y_top + opening
  half = identity.mouth_width + move.lip_corner_out
  corner = _MOUTH_Y + 0.4 * opening * (1 - grin) - move.lip_corner_up
  t = _LIP_T
  x = t * np.where(t < 0, half[0], half[1])
  y_corner = np.where(t < 0, corner[0], corner[1])
  # Closed lips are parabolas; an open mouth is rounder, a stretched one is squarer.
  power = 2 + 2 * stretch + 1.2 * lower
  flat = 1 - np.abs(t) ** power
  roundness = min(1.0, opening / 0.08)

  def curve(y, bend):
    return y_corner + (y - y_corner) * flat ** (1 - bend * roundness)

  upper_bend = 0.5 * (1 - grin)
  thick = identity.lip_fullness * (1 - 0.75 * press) * (1 - 0.3 * grin)
  up, low = curve(y_top, upper_bend), curve(y_bottom, 0.45)
  edge = flat**0.5
  cupid = 0.006 * np.cos(3 * t * np.pi / 2) ** 2
  lips_up = up - (0.026 * thick + cupid * (1 - press)) * edge - 0.004
  lips_low = low + 0.036 * thick * edge + 0.004

  shapes = [(band(x, lips_up, lips_low), identity.lip)]
  if opening > 0:
    shapes.append((band(x, up, low), _MOUTH))
    tongue = np.maximum(low - 0.05 * flat * min(1.0, opening / 0.1), up)
    shapes.append((band(x, tongue, low), _TONGUE))
    teeth = np.minimum(up + (0.016 * jaw + 0.07 * grin + 0.05 * lower + 0.01 * stretch) * edge, low)
    shapes.append((band(x, up, teeth), _TEETH))
    if stretch > 0:
      bottom = np.maximum(low - 0.028 * stretch * edge, teeth)
      shapes.append((band(x, bottom, low), _TEETH))
  line = scale(identity.lip, 0.4)
  shapes.append((stroke(np.stack([x, up], 1), 0.015 + 0.01 * press), line))
  if opening > 0:
    shapes.append((stroke(np.stack([x, low], 1), 0.008), line))
  for side in (0, 1):
    dimple = move.dimple[side]
    if dimple > 0:
      cx, cy = _sign(side) * (half[side] + 0.012), corner[side]
      arc = [(cx, cy - 0.055), (cx + _sign(side) * 0.022, cy), (cx, cy + 0.05)]
      shapes.append((stroke(spline(arc), 0.027 * dimple), scale(identity.skin, 0.42)))
  return shapes


def _facial_hair(identity: Identity, move: Movement, contour: np.ndarray) -> list[Shape]:
  kind = identity.facial_hair
  if kind == "none":
    return []
  color: Color = (*mix(identity.hair, identity.skin, 0.12), 235)
  drop = 0.11 * move.jaw_drop
  lip = _MOUTH_Y - 0.03 - 0.03 * move.nose_wrinkle
  tip = -0.5 * float(move.lip_corner_up.mean())
  moustache = spline(
    [
      (-0.14, lip + 0.03 + tip),
      (-0.07, lip - 0.04),
      (0, lip - 0.045),
      (0.07, lip - 0.04),
      (0.14, lip + 0.03 + tip),
      (0, lip + 0.02),
    ],
    closed=True,
  )
  if kind == "moustache":
    return [(moustache, color)]
  if kind == "goatee":
    return [(moustache, color), (ellipse(0.0, 0.43 + drop, 0.085, 0.06), color)]
  low = contour[contour[:, 1] > 0.1]
  right, left = low[low[:, 0] >= 0], low[low[:, 0] < 0]
  w = identity.half_width
  edge = spline(
    [(-0.8 * w, 0.14), (-0.6 * w, 0.25), (0, lip - 0.03), (0.6 * w, 0.25), (0.8 * w, 0.14)]
  )
  return [(np.concatenate([right, left, edge]), color)]


def _glasses(identity: Identity) -> list[Shape]:
  if identity.glasses == "none":
    return []
  frame = scale(identity.hat, 0.4)
  x0 = identity.eye_distance * identity.half_width
  shapes = [(stroke(np.array([(-0.05, -0.07), (0.05, -0.07)]), 0.014), frame)]
  for sign in (-1, 1):
    rim = ellipse(0.0, 0.0, 1.0, 1.0)
    if identity.glasses == "square":
      rim = np.clip(rim * 1.25, -1, 1)
    rim = rim * (min(0.118, x0 - 0.015), 0.1) + (sign * x0, _EYE_Y)
    shapes.append((rim, (225, 240, 255, 24)))
    shapes.append((stroke(np.concatenate([rim, rim[:2]]), 0.014), frame))
    temple = np.array([(sign * (x0 + 0.11), -0.07), (sign * identity.half_width, -0.06)])
    shapes.append((stroke(temple, 0.014), frame))
  return shapes

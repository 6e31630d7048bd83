"""Synthetic faces: their outline, and the regions that each expression changes."""

import dataclasses
import itertools

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ferjax.data.synthetic import action_units, drawing, head, identity
from ferjax.expressions import EXPRESSIONS

SIZE = 200
UNIT = 150.0
POSE = drawing.Pose(100.0, 95.0, UNIT, 0.0)


def person(seed: int, **changes) -> identity.Identity:
  plain = {"hair_style": "bald", "glasses": "none", "facial_hair": "none"}
  return dataclasses.replace(
    identity.random_identity(np.random.default_rng(seed)), **plain | changes
  )


def rendered(who, expression: str, intensity: float = 1.0, pose=POSE) -> np.ndarray:
  units = action_units.action_units(expression, intensity, who.side)
  canvas = Image.new("RGB", (SIZE, SIZE))
  draw = ImageDraw.Draw(canvas, "RGBA")
  head.draw_face(draw, who, action_units.movement(units), pose)
  return np.asarray(canvas, np.int32)


def region(image: np.ndarray, top: float, bottom: float) -> np.ndarray:
  """The rows between two heights in face coordinates."""
  return image[round(POSE.y + UNIT * top) : round(POSE.y + UNIT * bottom)]


def changed(a: np.ndarray, b: np.ndarray) -> float:
  """The fraction of pixels that differ clearly."""
  return float((np.abs(a - b).max(-1) > 30).mean())


def test_emfacs_table():
  """Copied from the EMFACS table of the manual."""
  expected = {
    "neutral": "",
    "happiness": "6+12",
    "sadness": "1+4+15",
    "surprise": "1+2+5+26",
    "fear": "1+2+4+5+20+26",
    "disgust": "9+15+16",
    "anger": "4+5+7+23",
    "contempt": "12+14",
  }
  found = {name: "+".join(map(str, units)) for name, units in action_units.EMFACS.items()}
  assert found == expected
  assert tuple(found) == EXPRESSIONS
  used = set(itertools.chain.from_iterable(action_units.EMFACS.values()))
  assert used == set(action_units.UNITS)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_units_have_the_intensity(name):
  units = action_units.action_units(name, 0.6, side=1)
  left, right = ([0.6 * (u in action_units.EMFACS[name]) for u in action_units.UNITS],) * 2
  if name == "contempt":
    left = [0.0] * len(right)
  np.testing.assert_array_equal(units, np.stack([left, right], 1))


def test_every_unit_moves_the_face():
  rest = action_units.movement(np.zeros((len(action_units.UNITS), 2)))
  assert all(np.all(value == 0) for value in rest)
  for row in range(len(action_units.UNITS)):
    units = np.zeros((len(action_units.UNITS), 2))
    units[row] = 1
    moved = action_units.movement(units)
    assert any(np.any(value != 0) for value in moved), action_units.UNITS[row]


def test_unknown_expression_and_intensity():
  with pytest.raises(ValueError, match=r"unknown expression 'joy'; known: neutral, happiness"):
    action_units.action_units("joy", 1.0)
  with pytest.raises(ValueError, match=r"intensity is 1\.5; expected 0 \(neutral\) to 1"):
    action_units.action_units("fear", 1.5)


@pytest.mark.parametrize("name", EXPRESSIONS[1:])
def test_intensity_0_is_neutral(name):
  who = person(1)
  np.testing.assert_array_equal(rendered(who, name, 0.0), rendered(who, "neutral"))


@pytest.mark.parametrize("intensity", [0.5, 1.0])
def test_expressions_differ_in_brows_or_mouth(intensity):
  for seed in range(4):
    who = person(seed)
    images = {name: rendered(who, name, intensity) for name in EXPRESSIONS}
    for a, b in itertools.combinations(EXPRESSIONS, 2):
      brows = changed(*(region(images[name], -0.36, 0.03) for name in (a, b)))
      mouth = changed(*(region(images[name], 0.12, 0.48) for name in (a, b)))
      assert max(brows, mouth) > 0.01, (a, b, seed)


def test_expression_grows_with_intensity():
  who = person(2)
  rest = rendered(who, "neutral")
  for name in EXPRESSIONS[1:]:
    weak, strong = (np.abs(rendered(who, name, i) - rest).sum() for i in (0.25, 1.0))
    assert 0 < weak < strong


@pytest.mark.parametrize("side", [0, 1])
def test_contempt_moves_one_side(side):
  who = person(3, side=side)
  mouth = region(np.abs(rendered(who, "contempt") - rendered(who, "neutral")).sum(-1), 0.1, 0.5)
  # The middle, where the sides meet, belongs to neither.
  left, right = mouth[:, : SIZE // 2 - 2].sum(), mouth[:, SIZE // 2 + 2 :].sum()
  moved, still = (left, right) if side == 0 else (right, left)
  assert moved > 0
  assert still == 0


@pytest.mark.parametrize("name", EXPRESSIONS)
@pytest.mark.parametrize("angle", [-0.5, 0.0, 0.3])
def test_outline_is_what_is_painted(name, angle):
  """Without hair and ears, the painted pixels span the outline's extent."""
  for seed in range(6):
    who = person(seed, ears=False, glasses=("none", "round", "square")[seed % 3])
    pose = drawing.Pose(101.3, 97.6, UNIT, angle)
    rows, columns = rendered(who, name, pose=pose).any(-1).nonzero()
    move = action_units.movement(action_units.action_units(name, 1.0, who.side))
    contour = drawing.place(head.outline(who, move), pose)
    low, high = (columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)
    np.testing.assert_allclose(contour.min(0), low, atol=1)
    np.testing.assert_allclose(contour.max(0), high, atol=1)


def test_outline_measures():
  who = person(0)
  rest = action_units.movement(action_units.action_units("neutral", 0.0))
  contour = head.outline(who, rest)
  np.testing.assert_allclose(contour[:, 1].min(), -0.5, atol=0.01)
  np.testing.assert_allclose(contour[:, 1].max(), 0.5, atol=0.01)
  np.testing.assert_allclose(np.abs(contour[:, 0]).max(), who.half_width, atol=0.01)
  dropped = action_units.movement(action_units.action_units("surprise", 1.0))
  assert head.outline(who, dropped)[:, 1].max() > contour[:, 1].max() + 0.05


def test_place_rotates_clockwise():
  """A quarter turn brings the point on the right to the bottom (y points down)."""
  placed = drawing.place(np.array([[1.0, 0.0]]), drawing.Pose(10, 20, 5, np.pi / 2))
  np.testing.assert_allclose(placed, [[10, 25]], atol=1e-12)


def test_spline_passes_through_its_points():
  points = np.random.default_rng(0).normal(size=(5, 2))
  np.testing.assert_allclose(drawing.spline(points, steps=4)[::4], points, atol=1e-12)
  np.testing.assert_allclose(drawing.spline(points, closed=True, steps=4)[::4], points, atol=1e-12)


@pytest.mark.parametrize("style", identity.HAIR_STYLES)
def test_hair_leaves_brows_and_mouth_free(style):
  """The hair of a style hides nothing between the brows and the mouth's corners."""
  bald, haired = (rendered(person(4, hair_style=s), "anger") for s in ("bald", style))
  middle = slice(round(100 - 0.2 * UNIT), round(100 + 0.2 * UNIT))
  np.testing.assert_array_equal(
    region(haired, -0.27, 0.4)[:, middle], region(bald, -0.27, 0.4)[:, middle]
  )

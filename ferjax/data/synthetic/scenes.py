"""Synthetic scenes: people with known expressions and exact boxes, from a seed and an index.

For the demo, tests, benchmarks and controlled robustness studies, without a data set. Results on
these images say nothing about people. docs/synthetic.md describes the drawings.

  python -m ferjax.data.synthetic.scenes --sheet OUT.png
"""

import argparse
import math
import operator
from collections.abc import Sequence
from typing import NamedTuple, SupportsIndex

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from ferjax import expressions
from ferjax.data.detection.augment import Example
from ferjax.data.synthetic import action_units, head
from ferjax.data.synthetic.background import background
from ferjax.data.synthetic.camera import SUPERSAMPLE, photograph
from ferjax.data.synthetic.drawing import Pose, ellipse, paint, place, stroke
from ferjax.data.synthetic.identity import Identity, random_color, random_identity

MIN_IMAGE_SIZE = 32  # pixels
_EMPTY = 0.05  # probability of a scene without faces
_HAIR = 0.14  # margin of the hair on each side of a box, relative to the box
_MAX_COVERED = 0.15  # fraction of a box covered by a nearer head; keeps the IoU of boxes below 0.09
_MAX_ANGLE = math.radians(30)
_ATTEMPTS = 25  # to place a face before it is left out


class SyntheticScenes:
  """A source of `num_examples` synthetic scenes; each record depends only on (seed, index).

  A record contains `image` u8[s s 3], `boxes` f32[m 4] (xyxy pixels, of the face's outline from
  hairline to chin and cheek to cheek, hidden parts included, clipped to the image) and `label`
  i32[m] (index into `class_names`), with 0 <= m <= max_faces.
  """

  task = "detection"

  def __init__(
    self,
    num_examples: int,
    *,
    image_size: int,
    seed: int,
    class_names: Sequence[str] = expressions.SEVEN_EXPRESSIONS,
    min_faces: int = 0,
    max_faces: int = 6,
    scale: tuple[float, float] = (0.12, 0.8),
    intensity: tuple[float, float] = (0.5, 1.0),
  ):
    """Checks the arguments; images are rendered on access.

    Args:
      num_examples: Number of records.
      image_size: Side of the square images, in pixels.
      seed: Not negative; use different ones for training and validation.
      class_names: The expressions that occur, each equally often; a subset of
        `expressions.EXPRESSIONS`.
      min_faces: Minimum per image. With 0, the distribution of `docs/synthetic.md`: one face is
        more likely than two, and so on. From 1, all numbers up to `max_faces` are equally likely.
      max_faces: Maximum per image. A face that does not fit is left out.
      scale: Range of the longer side of a face's box, relative to the image's side.
      intensity: Range of the expressions' intensity, within 0..1; not used for neutral.

    Raises:
      ValueError: For an argument outside the ranges above.
    """
    for name, value in (("num_examples", num_examples), ("seed", seed)):
      if value < 0:
        raise ValueError(f"{name} is {value}; expected 0 or more")
    _check(image_size, class_names, min_faces, max_faces, scale, intensity)
    self.class_names = tuple(class_names)
    self.skipped: list[str] = []
    self._num_examples, self._seed = num_examples, seed
    self._size = image_size
    self._options = {
      "min_faces": min_faces,
      "max_faces": max_faces,
      "scale": scale,
      "intensity": intensity,
    }

  def __len__(self) -> int:
    return self._num_examples

  def __getitem__(self, index: SupportsIndex) -> Example:
    index = self._checked(index)
    return render_scene(
      self._seed, index, self._size, class_names=self.class_names, **self._options
    )

  def origin(self, index: SupportsIndex) -> str:
    """The name of a record in messages."""
    return f"synthetic scene {self._checked(index)} of seed {self._seed}"

  def _checked(self, index: SupportsIndex) -> int:
    index = operator.index(index)
    if not 0 <= index < self._num_examples:
      raise IndexError(f"scene {index} of {self._num_examples}; expected 0 <= index < length")
    return index


def render_scene(
  seed: int,
  index: int,
  size: int,
  *,
  class_names: Sequence[str] = expressions.SEVEN_EXPRESSIONS,
  min_faces: int = 0,
  max_faces: int = 6,
  scale: tuple[float, float] = (0.12, 0.8),
  intensity: tuple[float, float] = (0.5, 1.0),
) -> Example:
  """Renders one scene; arguments, result and errors as in `SyntheticScenes`."""
  _check(size, class_names, min_faces, max_faces, scale, intensity)
  rng = np.random.default_rng((seed, index))
  people = _sample_people(rng, class_names, min_faces, max_faces, scale, intensity)
  side = size * SUPERSAMPLE
  canvas, draw = background(rng, side, clutter=int(rng.integers(4, 22)))
  people.sort(key=lambda person: person.pose.unit)
  light = int(rng.choice((-1, 1)))
  for person in people:
    head.draw_shoulders(draw, person.identity, _enlarged(person.pose, side))
  for person in people:
    pose = _enlarged(person.pose, side)
    head.draw_face(draw, person.identity, person.move, pose, light)
    if rng.random() < 0.2:
      _occlude(draw, rng, person, pose)
  boxes = np.array([person.box for person in people], np.float32).reshape(-1, 4)
  return {
    "image": photograph(rng, canvas, size),
    "boxes": np.clip(boxes * np.float32(size), 0, size),
    "label": np.array([person.label for person in people], np.int32),
  }


def render_face(
  expression: str, intensity: float, size: int, rng: np.random.Generator
) -> UInt8[np.ndarray, "{size} {size} 3"]:
  """Renders the crop of one face; the same `rng` state gives the same person and surroundings.

  Args:
    expression: One of `expressions.EXPRESSIONS`.
    intensity: 0 (neutral) to 1.
    size: Side of the image, in pixels.
    rng: Source of all other choices.

  Raises:
    ValueError: For an unknown expression, an intensity outside 0..1, or a size below 32.
  """
  face = _posed_face(expression, intensity, size, rng)
  head.draw_shoulders(face.draw, face.identity, face.pose)
  head.draw_face(face.draw, face.identity, face.move, face.pose, face.light)
  return photograph(rng, face.canvas, size)


def face_factors(
  expression: str, intensity: float, size: int, rng: np.random.Generator
) -> dict[str, str]:
  """What `render_face` shows for these arguments, by factor; rotation and size as numbers."""
  face = _posed_face(expression, intensity, size, rng)
  luma = np.dot(face.identity.skin, (0.299, 0.587, 0.114))
  return {
    "intensity": "" if expression == "neutral" else f"{intensity:.3f}",
    "skin brightness": f"{luma:.0f}",
    "hair": face.identity.hair_style,
    "glasses": face.identity.glasses,
    "facial hair": face.identity.facial_hair,
    "freckles": "yes" if face.identity.freckles else "no",
    "rotation": f"{abs(math.degrees(face.pose.angle)):.2f}",
    "face height": f"{face.pose.unit / (size * SUPERSAMPLE):.3f}",
  }


class _PosedFace(NamedTuple):
  canvas: Image.Image
  draw: ImageDraw.ImageDraw
  identity: Identity
  move: action_units.Movement
  pose: Pose  # on the canvas
  light: int


def _posed_face(expression, intensity, size, rng) -> _PosedFace:
  """A face that is not painted yet, on its background."""
  _check_size(size)
  identity = random_identity(rng)
  units = action_units.action_units(expression, intensity, identity.side)
  side = size * SUPERSAMPLE
  canvas, draw = background(rng, side, clutter=int(rng.integers(0, 8)))
  x, y = rng.uniform((0.46, 0.45), (0.54, 0.53))
  pose = Pose(x * side, y * side, rng.uniform(0.68, 0.82) * side, rng.uniform(-0.25, 0.25))
  light = int(rng.choice((-1, 1)))
  return _PosedFace(canvas, draw, identity, action_units.movement(units), pose, light)


class _Person(NamedTuple):
  identity: Identity
  label: int
  move: action_units.Movement
  pose: Pose  # on an image of side 1
  box: Float[np.ndarray, "4"]  # xyxy, of an image of side 1, not clipped


def _check_size(size: int) -> None:
  if size < MIN_IMAGE_SIZE:
    raise ValueError(f"image size is {size}; expected at least {MIN_IMAGE_SIZE} pixels")


def _check(size, class_names, min_faces, max_faces, scale, intensity) -> None:
  _check_size(size)
  if not class_names or len(set(class_names)) < len(class_names):
    raise ValueError(f"class names are {tuple(class_names)}; expected at least one, none twice")
  for name in class_names:
    expressions.index_of(name)
  if max_faces < 1:
    raise ValueError(f"max_faces is {max_faces}; expected 1 or more")
  if not 0 <= min_faces <= max_faces:
    raise ValueError(f"min_faces is {min_faces}; expected 0 to max_faces ({max_faces})")
  if not 0 < scale[0] <= scale[1] <= 1:
    raise ValueError(f"scale is {scale}; expected (low, high) with 0 < low <= high <= 1")
  if not 0 <= intensity[0] <= intensity[1] <= 1:
    raise ValueError(f"intensity is {intensity}; expected (low, high) with 0 <= low <= high <= 1")


def _sample_people(rng, class_names, min_faces, max_faces, scale, intensity) -> list[_Person]:
  """Samples people and positions, largest first; a person who does not fit is left out."""
  if min_faces == 0:
    count = int(rng.choice(max_faces + 1, p=np.r_[_EMPTY, (1 - _EMPTY) * _halving(max_faces)]))
  else:
    count = int(rng.integers(min_faces, max_faces + 1))
  # Many large faces do not fit: the upper limit decreases with the number of faces.
  low, high = np.log(scale[0]), np.log(scale[1] / max(count, 1) ** 0.5)
  sizes = np.exp(low + max(high - low, 0) * rng.uniform(size=count) ** (0.25 + 0.12 * count))
  people: list[_Person] = []
  for longest in np.sort(sizes)[::-1]:
    person = _person(rng, class_names, intensity, float(longest))
    for _ in range(_ATTEMPTS):
      moved = _moved(rng, person)
      if all(_covered(moved.box, other.box) <= _MAX_COVERED for other in people):
        people.append(moved)
        break
  return people


def _halving(max_faces: int) -> Float[np.ndarray, "n"]:
  weights = 0.5 ** np.arange(max_faces)
  return weights / weights.sum()


def _person(rng, class_names, intensity, longest: float) -> _Person:
  """A person at the origin; the longer side of the box is `longest`."""
  identity = random_identity(rng)
  label = int(rng.integers(len(class_names)))
  units = action_units.action_units(
    class_names[label], float(rng.uniform(*intensity)), identity.side
  )
  move = action_units.movement(units)
  angle = float(np.clip(rng.normal(0, 0.2), -_MAX_ANGLE, _MAX_ANGLE))
  contour = place(head.outline(identity, move), Pose(0, 0, 1, angle))
  low, high = contour.min(0), contour.max(0)
  unit = longest / float((high - low).max())
  return _Person(identity, label, move, Pose(0, 0, unit, angle), np.r_[low, high] * unit)


def _moved(rng, person: _Person) -> _Person:
  """The person at a random position; the border crops at most an eighth of some."""
  box = person.box
  extent = box[2:] - box[:2]
  beyond = extent / 8 if rng.random() < 0.15 else 0 * extent
  x, y = rng.uniform(-beyond, 1 - extent + beyond) - box[:2]
  return person._replace(
    pose=person.pose._replace(x=float(x), y=float(y)), box=box + np.array((x, y, x, y))
  )


def _covered(box: np.ndarray, nearer: np.ndarray) -> float:
  """The fraction of a box that a nearer (larger) face and its hair may cover."""
  hair = _HAIR * (nearer[2:] - nearer[:2])
  low, high = np.maximum(box[:2], nearer[:2] - hair), np.minimum(box[2:], nearer[2:] + hair)
  return float(np.prod(np.maximum(high - low, 0)) / np.prod(box[2:] - box[:2]))


def _enlarged(pose: Pose, side: int) -> Pose:
  return Pose(pose.x * side, pose.y * side, pose.unit * side, pose.angle)


def _occlude(draw: ImageDraw.ImageDraw, rng, person: _Person, pose: Pose) -> None:
  """Hides a part of the face's edge with a ball, or an arm and hand."""
  contour = head.outline(person.identity, person.move)
  x, y = contour[rng.integers(len(contour))] * 1.05
  radius = rng.uniform(0.1, 0.22)
  if rng.random() < 0.5:
    shapes = [(ellipse(x, y, radius, radius), random_color(rng))]
  else:
    arm = stroke(np.array([(x, y), (x * 2.2, y * 1.4 + 0.9)]), 1.3 * radius)
    skin = person.identity.skin
    shapes = [(arm, random_color(rng)), (ellipse(x, y, 0.8 * radius, 0.8 * radius), skin)]
  paint(draw, shapes, pose)


def contact_sheet(seed: int = 1, people: int = 5, size: int = 128) -> Image.Image:
  """Rows that each show one person in all expressions, then two rows of scenes."""
  names = expressions.EXPRESSIONS
  sheet = Image.new("RGB", (len(names) * size, (people + 2) * size))
  for row in range(people):
    for column, name in enumerate(names):
      face = render_face(name, 1.0 - 0.1 * row, size, np.random.default_rng((seed, row)))
      sheet.paste(Image.fromarray(face), (column * size, row * size))
  for index in range(2 * len(names)):
    row, column = divmod(index, len(names))
    scene = render_scene(seed, index, size, class_names=names)
    image = Image.fromarray(scene["image"])
    draw = ImageDraw.Draw(image)
    for box, label in zip(scene["boxes"], scene["label"], strict=True):
      draw.rectangle(box.tolist(), outline=(255, 255, 0))
      draw.text((box[0] + 2, box[1] + 1), names[label][:3], fill=(255, 255, 0))
    sheet.paste(image, (column * size, (people + row) * size))
  return sheet


if __name__ == "__main__":
  parser = argparse.ArgumentParser(description="Renders a contact sheet.")
  parser.add_argument("--sheet", required=True, help="PNG file to write")
  contact_sheet().save(parser.parse_args().sheet)

"""Draws predictions: a box and a label per face, or a label for the image."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from ferjax.fonts import Lettering, lettering
from ferjax.inference.results import Face

# The colour-blind-safe palette of Okabe and Ito (2008), with grey instead of black. Other class
# names take these colours by index.
_COLOURS = {
  "neutral": (187, 187, 187),
  "happiness": (240, 228, 66),
  "sadness": (0, 114, 178),
  "surprise": (230, 159, 0),
  "fear": (204, 121, 167),
  "disgust": (0, 158, 115),
  "anger": (213, 94, 0),
  "contempt": (86, 180, 233),
}
_TEXT_HEIGHT = 0.035  # of the image's shorter side
_SMALLEST_TEXT = 8  # pixels
_LARGEST_TEXT = 64
_LEGEND_COLOUR = (255, 255, 255)


class _Rectangle(NamedTuple):
  left: int
  top: int
  right: int
  bottom: int


def draw_faces(
  image: UInt8[np.ndarray, "h w 3"],
  faces: Sequence[Face],
  letters: Lettering | None = None,
  *,
  numbers: Sequence[int] | None = None,
) -> np.ndarray:
  """A copy of `image` (RGB) with the box and the label of each face, such as "happiness 0.87".

  The label of a face without a box (a classified image) is in the upper left corner. Labels stay
  inside the image, avoid faces if possible, and are omitted if not even the smallest text fits. If
  no font can render a class name, its label shows the index, and a legend is drawn in a corner.

  Args:
    image: RGB.
    faces: of one predictor.
    letters: of the class names; None chooses among the installed fonts.
    numbers: of the faces or persons, shown before the expressions: "3 happiness 0.87".

  Returns:
    u8[h w 3].
  """
  if letters is None:
    letters = lettering(tuple(faces[0].scores) if faces else ())
  canvas = Image.fromarray(image)
  pen = ImageDraw.Draw(canvas)
  whole = (0, 0, *canvas.size)
  boxes = [_Rectangle(*map(round, whole if face.box is None else face.box)) for face in faces]
  occupied = [box for face, box in zip(faces, boxes, strict=True) if face.box is not None]
  # The line width scales with the text, so both are legible at the same distance.
  text_size = _text_size(canvas)
  stroke = max(2, round(text_size / 6))
  for face, box in zip(faces, boxes, strict=True):
    if face.box is not None:
      _draw_box(pen, box, _colour(face), stroke)
  for index, (face, box) in enumerate(zip(faces, boxes, strict=True)):
    number = "" if numbers is None else f"{numbers[index]} "
    words = f"{number}{letters.names.get(face.expression, face.expression)} {face.score:.2f}"
    text, font = _fit_text(words, text_size, canvas.width, letters.font)
    size = _label_size(text, font)
    if not text or size[1] > canvas.height:
      continue
    place = _place_label(box, size, canvas.size, stroke, occupied)
    _draw_label(pen, place, text, font, _colour(face))
    occupied.append(place)
  legend = dict.fromkeys(face.expression for face in faces if face.expression in letters.legend)
  _draw_legend(pen, [letters.legend[name] for name in legend], text_size, occupied)
  return np.array(canvas)


def _text_size(canvas: Image.Image) -> int:
  wanted = round(_TEXT_HEIGHT * min(canvas.size))
  return min(max(wanted, _SMALLEST_TEXT + 4), _LARGEST_TEXT)


def class_colours(class_names: Sequence[str]) -> list[tuple[int, int, int]]:
  """The RGB colour of each class, 0..255, the same in all pictures."""
  palette = list(_COLOURS.values())
  return [
    _COLOURS.get(name, palette[index % len(palette)]) for index, name in enumerate(class_names)
  ]


def _colour(face: Face) -> tuple[int, int, int]:
  names = list(face.scores)
  return class_colours(names)[names.index(face.expression)]


def _draw_box(pen: ImageDraw.ImageDraw, box: _Rectangle, colour, stroke: int) -> None:
  """A coloured line with dark borders inside the box's edge: visible on any background."""
  dark = (0, 0, 0)
  rim = max(1, stroke // 3)
  for inset, line, width in ((0, dark, stroke + 2 * rim), (rim, colour, stroke)):
    left, top, right, bottom = box.left + inset, box.top + inset, box.right, box.bottom
    # Pillow's rectangles include their last pixel; a box smaller than its line becomes a dot.
    right, bottom = max(left, right - 1 - inset), max(top, bottom - 1 - inset)
    pen.rectangle((left, top, right, bottom), outline=line, width=width)


@functools.cache
def _font(size: int, path: str) -> ImageFont.FreeTypeFont:
  font = ImageFont.truetype(path, size) if path else ImageFont.load_default(size)
  if not isinstance(font, ImageFont.FreeTypeFont):
    raise RuntimeError("this Pillow was built without FreeType; install a wheel from PyPI")
  return font


def _padding(font: ImageFont.FreeTypeFont) -> int:
  return max(1, round(font.size / 5))


def _label_size(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
  """Width and height of a label; the height does not depend on the letters."""
  ascent, descent = font.getmetrics()
  pad = _padding(font)
  return round(font.getlength(text)) + 2 * pad, ascent + descent + pad


def _fit_text(text: str, size: int, width: int, path: str) -> tuple[str, ImageFont.FreeTypeFont]:
  """The text and the largest font that fit the width; else shortened text, else none."""
  for smaller in range(size, _SMALLEST_TEXT, -1):
    if _label_size(text, _font(smaller, path))[0] <= width:
      return text, _font(smaller, path)
  font = _font(_SMALLEST_TEXT, path)
  name, _, score = text.rpartition(" ")
  shortened = (f"{name[:length]}. {score}" for length in range(len(name) - 1, 0, -1))
  fitting = (words for words in (text, *shortened, score) if _label_size(words, font)[0] <= width)
  return next(fitting, ""), font


def _place_label(
  box: _Rectangle,
  size: tuple[int, int],
  image_size: tuple[int, int],
  stroke: int,
  occupied: Sequence[_Rectangle],
) -> _Rectangle:
  """Above, below or inside the box: the first position with the least overlap."""
  width, height = size
  tops = (box.top - height, box.bottom, box.top + stroke, box.bottom - stroke - height)
  places = []
  for top in tops:
    left = min(max(box.left, 0), image_size[0] - width)
    top = min(max(top, 0), image_size[1] - height)
    places.append(_Rectangle(left, top, left + width, top + height))
  return min(places, key=lambda place: sum(_overlap(place, other) for other in occupied))


def _overlap(a: _Rectangle, b: _Rectangle) -> int:
  width = min(a.right, b.right) - max(a.left, b.left)
  height = min(a.bottom, b.bottom) - max(a.top, b.top)
  return max(width, 0) * max(height, 0)


def _draw_label(pen, place: _Rectangle, text: str, font, colour: tuple[int, int, int]) -> None:
  red, green, blue = colour
  # Rec. 601 luma decides between black and white letters.
  ink = (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else (255, 255, 255)
  pen.rectangle((place.left, place.top, place.right - 1, place.bottom - 1), fill=colour)
  pad = _padding(font)
  pen.text((place.left + pad, place.top + pad // 2), text, font=font, fill=ink)


def _draw_legend(
  pen: ImageDraw.ImageDraw,
  lines: Sequence[str],
  text_size: int,
  occupied: Sequence[_Rectangle],
) -> None:
  """In the corner with the least overlap, in the largest font that fits; else omitted."""
  if not lines:
    return
  width, height = pen.im.size
  for size in range(text_size, _SMALLEST_TEXT - 1, -1):
    font = _font(size, "")
    sizes = [_label_size(line, font) for line in lines]
    across, line_height = max(size[0] for size in sizes), sizes[0][1]
    down = line_height * len(lines)
    if across <= width and down <= height:
      break
  else:
    return
  corners = [
    _Rectangle(left, top, left + across, top + down)
    for top in (height - down, 0)
    for left in (0, width - across)
  ]
  place = min(corners, key=lambda corner: sum(_overlap(corner, other) for other in occupied))
  for number, line in enumerate(lines):
    top = place.top + number * line_height
    row = _Rectangle(place.left, top, place.right, top + line_height)
    _draw_label(pen, row, line, font, _LEGEND_COLOUR)

"""Fonts for class names of any script in images and plots."""

import functools
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from absl import logging

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

_DEFAULT_FONT = "DejaVu Sans"  # included in Matplotlib
# Fonts with a box or a blank for every character.
_PLACEHOLDER_FONTS = ("last resort", "lastresort", ".lastresort", "adobe blank", "adobe notdef")
_ASCII = frozenset(string.ascii_letters + string.digits + string.punctuation + " ")
_NORMAL_WEIGHT = 400
_LEGEND_SIZE = 7  # points


class Lettering(NamedTuple):
  """How class names are rendered.

  Attributes:
    names: class name -> rendered text: the name, or its index if the font lacks its letters.
    font: path of the font for all text; "" if any font has the letters.
    legend: class name -> `0: \\u4e2d\\u6027`, for names rendered as their index.
  """

  names: Mapping[str, str]
  font: str
  legend: Mapping[str, str]

  @property
  def warning(self) -> str:
    """A warning if some names cannot be rendered; else empty."""
    if not self.legend:
      return ""
    return (
      f"no font has all letters of the class names {', '.join(self.legend)}: images and plots "
      "show their indices and a legend; install a font for them, such as Noto Sans"
    )


def lettering(class_names: Sequence[str], fonts: Sequence[str] | None = None) -> Lettering:
  """Chooses the first font with the letters of all names, or else of the most names.

  Args:
    class_names: in the order of their indices.
    fonts: paths to choose from; None for DejaVu Sans, then the installed fonts that Matplotlib
      finds.
  """
  return _lettering(tuple(class_names), None if fonts is None else tuple(fonts))


@functools.cache
def _lettering(class_names: tuple[str, ...], fonts: tuple[str, ...] | None) -> Lettering:
  font, rendered = "", {name for name in class_names if _ASCII.issuperset(name)}
  everything = set(class_names)
  if rendered == everything:  # without importing Matplotlib, which takes 0.2 s
    fonts = ()
  for path in _installed_fonts() if fonts is None else fonts:
    if rendered == everything:
      break
    covered = _covered_names(path, class_names)
    if len(covered) > len(rendered):
      font, rendered = path, covered
  names, legend = {}, {}
  for index, name in enumerate(class_names):
    number = str(index) if str(index) not in class_names else f"#{index}"
    names[name] = name if name in rendered else number
    if name not in rendered:
      legend[name] = f"{number}: {name.encode('ascii', 'backslashreplace').decode()}"
  return Lettering(names, font, legend)


def lettering_with_warning(class_names: Sequence[str]) -> Lettering:
  """`lettering` with the installed fonts; logs its warning once."""
  letters = lettering(class_names)
  if letters.warning:
    _warn_once(letters.warning)
  return letters


@functools.cache
def _warn_once(message: str) -> None:
  logging.warning("%s", message)


def _covered_names(path: str, class_names: Sequence[str]) -> set[str]:
  """The names whose letters a font has; empty if it cannot be used or lacks ASCII characters."""
  # Matplotlib is slow to import, and most class names do not need it.
  from matplotlib.ft2font import FT2Font

  try:
    font = FT2Font(path)
  except (OSError, RuntimeError):  # FreeType's own errors are RuntimeErrors
    return set()
  if not font.scalable or not all(font.get_char_index(ord(letter)) for letter in _ASCII):
    return set()
  return {name for name in class_names if all(font.get_char_index(ord(letter)) for letter in name)}


def _installed_fonts() -> Iterator[str]:
  """Font paths: DejaVu Sans, then upright fonts of normal weight; otherwise sorted by name."""
  from matplotlib import font_manager

  def weight(entry: font_manager.FontEntry) -> int:
    number = entry.weight
    return font_manager.weight_dict[number] if isinstance(number, str) else number

  entries = [
    entry
    for entry in font_manager.fontManager.ttflist
    if not entry.name.lower().startswith(_PLACEHOLDER_FONTS)
  ]
  entries.sort(
    key=lambda entry: (
      entry.name != _DEFAULT_FONT,
      entry.style != "normal",
      abs(weight(entry) - _NORMAL_WEIGHT),
      entry.name,
      entry.fname,
    )
  )
  yield from dict.fromkeys(entry.fname for entry in entries)


def apply_lettering(figure: "Figure", letters: Lettering, axes: "Axes | None" = None) -> None:
  """Sets the font of all text in a figure, and adds a legend if indices are rendered.

  The legend is below the figure, or is the x label of `axes`, which must have no other.
  """
  from matplotlib.text import Text

  if letters.legend:
    add = figure.supxlabel if axes is None else axes.set_xlabel
    add("\n".join(letters.legend.values()), fontsize=_LEGEND_SIZE, parse_math=False)
  if letters.font:
    for text in figure.findobj(Text):
      properties = text.get_fontproperties().copy()
      properties.set_file(letters.font)
      text.set_fontproperties(properties)

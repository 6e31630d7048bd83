"""Letters of class names in pictures and plots, whatever their script."""

import functools
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from absl import logging

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

_FIRST = "DejaVu Sans"  # which Matplotlib brings along
# Fonts that have a box or a blank for every letter there is.
_WITHOUT_LETTERS = ("last resort", "lastresort", ".lastresort", "adobe blank", "adobe notdef")
_PLAIN = frozenset(string.ascii_letters + string.digits + string.punctuation + " ")
_NORMAL_WEIGHT = 400
_LEGEND_SIZE = 7  # points


class Lettering(NamedTuple):
  """How class names are drawn.

  Attributes:
    names: class name -> what is drawn: itself, or its index if no font has its letters.
    font: path of the font for all text around them; "" where any font has the letters.
    legend: class name -> `0: \\u4e2d\\u6027`, of those whose index is drawn.
  """

  names: Mapping[str, str]
  font: str
  legend: Mapping[str, str]

  @property
  def warning(self) -> str:
    """What is to be said once where names cannot be drawn; else empty."""
    if not self.legend:
      return ""
    return (
      f"no font has all letters of the class names {', '.join(self.legend)}: pictures and plots "
      "show their indices and a legend; install a font for them, such as Noto Sans"
    )


def lettering(class_names: Sequence[str], fonts: Sequence[str] | None = None) -> Lettering:
  """Chooses the first font that has the letters of all names, or of as many as there are.

  Args:
    class_names: in the order of their indices.
    fonts: paths to choose from; None for DejaVu Sans, then those that Matplotlib finds installed.
  """
  return _lettering(tuple(class_names), None if fonts is None else tuple(fonts))


@functools.cache
def _lettering(class_names: tuple[str, ...], fonts: tuple[str, ...] | None) -> Lettering:
  font, drawn = "", {name for name in class_names if _PLAIN.issuperset(name)}
  for path in _installed() if fonts is None else fonts:
    if len(drawn) == len(set(class_names)):
      break
    covered = _covered(path, class_names)
    if len(covered) > len(drawn):
      font, drawn = path, covered
  names, legend = {}, {}
  for index, name in enumerate(class_names):
    number = str(index) if str(index) not in class_names else f"#{index}"
    names[name] = name if name in drawn else number
    if name not in drawn:
      legend[name] = f"{number}: {name.encode('ascii', 'backslashreplace').decode()}"
  return Lettering(names, font, legend)


def warned_lettering(class_names: Sequence[str]) -> Lettering:
  """As `lettering` of the installed fonts; a warning is said once, in the log."""
  letters = lettering(class_names)
  if letters.warning:
    _warn_once(letters.warning)
  return letters


@functools.cache
def _warn_once(message: str) -> None:
  logging.warning("%s", message)


def _covered(path: str, class_names: Sequence[str]) -> set[str]:
  """The names that a font has all letters of; none if it cannot be used or lacks plain ones."""
  # Matplotlib is slow to import, and most class names need none of this.
  from matplotlib.ft2font import FT2Font

  try:
    font = FT2Font(path)
  except (OSError, RuntimeError):  # FreeType's own errors are RuntimeErrors
    return set()
  if not font.scalable or not all(font.get_char_index(ord(letter)) for letter in _PLAIN):
    return set()
  return {name for name in class_names if all(font.get_char_index(ord(letter)) for letter in name)}


def _installed() -> Iterator[str]:
  """Paths of fonts: upright ones of normal weight first, else in the order of their names."""
  from matplotlib import font_manager

  def weight(entry: font_manager.FontEntry) -> int:
    number = entry.weight
    return font_manager.weight_dict[number] if isinstance(number, str) else number

  entries = [
    entry
    for entry in font_manager.fontManager.ttflist
    if not entry.name.lower().startswith(_WITHOUT_LETTERS)
  ]
  entries.sort(
    key=lambda entry: (
      entry.name != _FIRST,
      entry.style != "normal",
      abs(weight(entry) - _NORMAL_WEIGHT),
      entry.name,
      entry.fname,
    )
  )
  yield from dict.fromkeys(entry.fname for entry in entries)


def set_letters(figure: "Figure", letters: Lettering, axes: "Axes | None" = None) -> None:
  """Gives all text of a figure the font, and a legend where indices are drawn.

  The legend stands below the figure, or is the label below `axes`, which has no other.
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

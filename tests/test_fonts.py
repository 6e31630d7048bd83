"""A font with the letters is found, or indices and a legend replace the names."""

import string

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ferjax.fonts import apply_lettering, lettering

CHINESE = ("中性", "高兴", "悲伤")
NOWHERE = ("\U0010fffd", "happiness")  # in a private plane, for which no font has a letter
PLAIN = string.ascii_letters + string.digits + string.punctuation + " "


@pytest.fixture
def make_font(tmp_path):
  """Makes a font whose letters are all the same square."""

  def make(name, letters):
    glyphs = {ord(letter): f"u{ord(letter):X}" for letter in letters}
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((100, 700), (800, 700), (800, 0)):
      pen.lineTo(corner)
    pen.closePath()
    square = pen.glyph()
    names = [".notdef", *glyphs.values()]
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(names)
    font.setupCharacterMap(glyphs)
    font.setupGlyf(dict.fromkeys(names, square) | {".notdef": TTGlyphPen(None).glyph()})
    font.setupHorizontalMetrics(dict.fromkeys(names, (900, 100)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": name, "styleName": "Regular"})
    font.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    font.setupPost()
    path = tmp_path / f"{name}.ttf"
    font.save(path)
    return str(path)

  return make


def test_ascii_names_need_no_font():
  letters = lettering(("happiness", "anger"), [])
  assert letters.names == {"happiness": "happiness", "anger": "anger"}
  assert (letters.font, letters.legend, letters.warning) == ("", {}, "")


def test_the_first_font_that_has_all_letters(make_font):
  some = make_font("some", PLAIN + "中性")
  every = make_font("every", PLAIN + "".join(CHINESE))
  without_digits = make_font("without", string.ascii_letters + "".join(CHINESE))
  letters = lettering(CHINESE, [some, without_digits, every, make_font("other", PLAIN)])
  assert letters.font == every
  assert letters.names == {name: name for name in CHINESE}
  assert letters.warning == ""


def test_names_without_letters_are_rendered_as_their_index(make_font):
  some = make_font("some", PLAIN + "中性")
  letters = lettering(CHINESE, [make_font("plain", PLAIN), some])
  assert letters.font == some
  assert letters.names == {"中性": "中性", "高兴": "1", "悲伤": "2"}
  assert letters.legend == {"高兴": "1: \\u9ad8\\u5174", "悲伤": "2: \\u60b2\\u4f24"}
  assert "高兴, 悲伤" in letters.warning
  assert "中性" not in letters.warning


def test_an_index_differs_from_all_names(make_font):
  letters = lettering(("1", "中"), [make_font("plain", PLAIN)])
  assert letters.names == {"1": "1", "中": "#1"}
  assert letters.legend == {"中": "#1: \\u4e2d"}


def test_installed_fonts():
  # DejaVu Sans, which Matplotlib includes, has these; no font has the others.
  letters = lettering(("joie é", "радость", "χαρά"))
  assert letters.names == {name: name for name in ("joie é", "радость", "χαρά")}
  assert "DejaVuSans.ttf" in letters.font
  letters = lettering(NOWHERE)
  assert letters.names == {NOWHERE[0]: "0", "happiness": "happiness"}
  assert letters.legend == {NOWHERE[0]: "0: \\U0010fffd"}


def test_files_that_are_not_fonts_are_ignored(tmp_path, make_font):
  (tmp_path / "broken.ttf").write_bytes(b"no font")
  font = make_font("font", PLAIN + "中性")
  paths = [str(tmp_path / "gone.ttf"), str(tmp_path / "broken.ttf"), font]
  assert lettering(("中性",), paths).font == font
  letters = lettering(("happiness", "高"), paths)
  assert (letters.font, letters.names) == ("", {"happiness": "happiness", "高": "1"})


def _pixels(figure):
  canvas = FigureCanvasAgg(figure)
  canvas.draw()
  return np.array(canvas.buffer_rgba())[..., :3]


def _figure(label):
  figure = Figure(figsize=(4, 4), layout="constrained")
  figure.add_subplot().set_xticks([0.5], [label])
  return figure


@pytest.mark.parametrize("names", [CHINESE, NOWHERE])
def test_figures_render_names_whatever_is_installed(names):
  """Warnings are errors here: Matplotlib warns about every letter that it cannot render."""
  figure, letters = _figure(lettering(names).names[names[0]]), lettering(names)
  apply_lettering(figure, letters)
  _pixels(figure)
  legend = [text.get_text() for text in figure.texts]
  assert legend == (["\n".join(letters.legend.values())] if letters.legend else [])


def test_figures_use_the_font(make_font):
  letters = lettering(("中",), [make_font("squares", PLAIN + "中性")])
  renderings = []
  for label in ("中", "性", "高"):  # the font lacks the last letter and leaves it out
    figure = _figure(label)
    apply_lettering(figure, letters)
    if label == "高":
      with pytest.warns(UserWarning, match="Glyph"):
        renderings.append(_pixels(figure))
    else:
      renderings.append(_pixels(figure))
  np.testing.assert_array_equal(renderings[0], renderings[1])
  assert (renderings[0] != renderings[2]).any()

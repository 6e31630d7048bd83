import itertools

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ferjax.fonts import Lettering, lettering
from ferjax.inference.explanation.draw import (
  _caption,
  _crop,
  _face_sheet,
  _overlay,
  _surroundings,
  draw_explanations,
)
from ferjax.inference.explanation.maps import Explanation
from ferjax.inference.results import Face

INFERNO = matplotlib.colormaps["inferno"]


def _explanation(
  cells, width, height, *, box=None, target="anger", names=("anger", "fear"), **more
):
  """An explanation whose map covers the whole image."""
  scores = dict.fromkeys(names, 0.25) | {names[0]: 0.75}
  box = None if box is None else tuple(map(float, box))
  return Explanation(
    face=Face(box, 0.75, names[0], scores),
    target=target,
    layer="map",
    cells=np.array(cells, np.float32),
    to_image=np.array([[width, 0, 0], [0, height, 0]], np.float64),
    view=(0.0, 0.0, float(width), float(height)),
    **more,
  )


def _image(height, width):
  return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_heat_is_on_the_pixels_of_its_cell():
  """An image of 480 pixels is not resized: pixels computed by hand."""
  image = _image(240, 480)
  cells = np.zeros((3, 6))
  cells[1, 4] = 7
  overlay = _overlay(image, _explanation(cells, 480, 240), (0.0, 0.0, 480.0, 240.0))
  grey = image @ np.array([0.299, 0.587, 0.114])
  for x, y in ((359, 119), (320, 119), (380, 80), (100, 30), (479, 239)):
    heat = max(1 - abs(x + 0.5 - 360) / 80, 0) * max(1 - abs(y + 0.5 - 120) / 80, 0)
    expected = 0.5 * grey[y, x] + 0.5 * 255 * np.array(INFERNO(heat)[:3])
    np.testing.assert_allclose(overlay[y, x], expected, atol=0.51)


def test_pixels_outside_the_input_are_unchanged():
  image = _image(240, 480)
  explanation = _explanation(np.ones((2, 2)), 480, 240)
  explanation = Explanation(**{**vars(explanation), "view": (100.0, 0.0, 300.0, 240.0)})
  overlay = _overlay(image, explanation, (0.0, 0.0, 480.0, 240.0))
  np.testing.assert_array_equal(overlay[:, :100], image[:, :100])
  np.testing.assert_array_equal(overlay[:, 300:], image[:, 300:])
  assert (overlay[:, 100:300] != image[:, 100:300]).any(-1).mean() > 0.99


def test_a_region_is_enlarged():
  image = _image(60, 80)
  assert _crop(image, (0.0, 0.0, 80.0, 60.0)).shape == (360, 480, 3)
  assert _crop(image, (10.0, 10.0, 20.0, 50.0)).shape == (480, 120, 3)


def test_surroundings_include_the_box_and_distant_warm_cells():
  whole = (0.0, 0.0, 400.0, 400.0)
  cells = np.zeros((8, 8))
  cells[4, 4] = 1
  near = _explanation(cells, 400, 400, box=(180, 180, 260, 260))
  assert _surroundings(near, whole) == (160, 160, 280, 280)
  cells[0, 7] = 0.5
  far = _explanation(cells, 400, 400, box=(180, 180, 260, 260))
  assert _surroundings(far, whole) == (115, 0, 400, 325)
  cold = _explanation(-np.ones((8, 8)), 400, 400, box=(180, 180, 260, 260))
  assert _surroundings(cold, whole) == (160, 160, 280, 280)


def test_the_caption_names_the_explained_class():
  assert _caption(_explanation([[1]], 8, 8)) == "anger 0.75"
  assert _caption(_explanation([[1]], 8, 8, target="fear")) == "fear 0.25 (predicted: anger 0.75)"


@pytest.mark.parametrize(("width", "height"), [(80, 240), (1, 300), (300, 60)])
def test_panels_of_a_long_image_fit_their_titles_and_share_a_scale(width, height):
  explanation = _explanation(
    np.eye(3), width, height, target="fear", theta=np.eye(2, 3), resampled=_image(32, 32)
  )
  # The sampled region begins left of the image.
  explanation.to_image[0, 2] = -0.25 * width
  figure = _face_sheet(_image(height, width), explanation)
  FigureCanvasAgg(figure).draw()
  panels = figure.axes[:4]
  titles = [panel.title.get_window_extent() for panel in panels]
  assert titles[0].x0 >= 0
  assert all(left.x1 < right.x0 for left, right in itertools.pairwise(titles))
  assert titles[-1].x1 <= figure.bbox.width
  assert np.ptp([title.y0 for title in titles]) < 5  # pixels: one line, except for descenders
  image, heat = (panel.get_window_extent() for panel in panels[:2])
  np.testing.assert_allclose(
    (heat.width, heat.height, heat.y0), (image.width, image.height, image.y0)
  )
  assert panels[0].get_xlim() == panels[1].get_xlim()
  assert panels[0].get_xlim()[0] <= -0.25 * width


def _sheets():
  resampled = np.zeros((32, 32, 3), np.uint8)
  theta = np.eye(2, 3)
  boxes = [(5 * i, 3, 5 * i + 20, 40) for i in range(3)]
  cells = np.eye(3)
  yield (60, 80), [_explanation(-cells, 80, 60, target="fear", names=("$a_b$", "fear"))]
  yield (20, 300), [_explanation(cells, 300, 20, theta=theta, resampled=resampled)]
  yield (1, 1), [_explanation(cells, 1, 1)]
  yield (60, 80), [_explanation(cells, 80, 60, box=box) for box in boxes]
  yield (300, 20), [_explanation(-cells, 20, 300, box=(0, 0, 20, 20))]
  yield (60, 80), []


@pytest.mark.parametrize("size_and_explanations", list(_sheets()))
def test_all_kinds_of_sheets(size_and_explanations):
  (height, width), explanations = size_and_explanations
  image = _image(height, width)
  before = image.copy()
  sheet = draw_explanations(image, explanations)
  assert sheet.dtype == np.uint8
  assert min(sheet.shape[:2]) > 200
  assert np.unique(sheet.reshape(-1, 3), axis=0).shape[0] > 50
  np.testing.assert_array_equal(image, before)


def test_class_names_without_glyphs_are_drawn_as_indices():
  """Warnings are errors here: Matplotlib warns about each missing glyph."""
  names = ("\U0010fffd", "fear")  # the first is from a private plane, for which no font has glyphs
  image, cells = _image(60, 90), np.eye(3)
  letters = lettering(names)
  without = Lettering({"0": "0", "fear": "fear"}, letters.font, {})
  for box in (None, (10, 10, 50, 50)):
    explanation = _explanation(cells, 90, 60, box=box, target=names[0], names=names)
    indexed = _explanation(cells, 90, 60, box=box, target="0", names=("0", "fear"))
    drawn = draw_explanations(image, [explanation])
    np.testing.assert_array_equal(drawn, draw_explanations(image, [explanation], letters))
    expected = draw_explanations(image, [indexed], without)
    assert (drawn != expected).any()  # the legend
    legend = Lettering(without.names, letters.font, {"0": letters.legend[names[0]]})
    np.testing.assert_array_equal(drawn, draw_explanations(image, [indexed], legend))

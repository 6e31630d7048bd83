import numpy as np
import pytest

from ferjax.expressions import EXPRESSIONS
from ferjax.fonts import Lettering, lettering
from ferjax.inference.draw import draw_faces
from ferjax.inference.results import Face


def _face(box, expression="happiness", score=0.87, names=EXPRESSIONS):
  box = None if box is None else tuple(map(float, box))
  return Face(box, score, expression, dict.fromkeys(names, 0.1))


def _changed(before, after):
  """Left, top, right, bottom (exclusive) of the pixels that differ."""
  rows, columns = np.nonzero((before != after).any(axis=-1))
  return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.fixture
def image():
  return np.random.default_rng(0).integers(0, 80, (240, 320, 3), np.uint8)


def test_the_outline_is_the_box_and_its_inside_is_unchanged(image):
  drawn = draw_faces(image, [_face((100, 60, 180, 160))])
  left, _, right, bottom = _changed(image, drawn)
  assert (left, bottom) == (100, 160)
  assert right >= 180  # the label may be wider than the box
  assert not drawn[60:160, 100].any()  # the dark rim
  assert not drawn[159, 100:180].any()
  np.testing.assert_array_equal(drawn[70:150, 110:170], image[70:150, 110:170])


def test_the_input_is_not_modified(image):
  before = image.copy()
  drawn = draw_faces(image, [_face((10, 10, 90, 90))])
  np.testing.assert_array_equal(image, before)
  assert drawn.dtype == np.uint8
  assert drawn.shape == image.shape


def test_without_faces_nothing_is_drawn(image):
  np.testing.assert_array_equal(draw_faces(image, []), image)


def test_a_strided_view_is_drawn_like_its_copy(image):
  view = image[:, ::-1]
  face = _face((10, 40, 90, 120))
  np.testing.assert_array_equal(draw_faces(view, [face]), draw_faces(view.copy(), [face]))


def test_the_label_is_above_the_box_if_there_is_room(image):
  box = (100, 60, 180, 160)
  left, top, right, _ = _changed(image, draw_faces(image, [_face(box)]))
  assert top < 60
  label = draw_faces(image, [_face(box)])[top:60, left:right]
  assert (label == (240, 228, 66)).all(axis=-1).mean() > 0.5


@pytest.mark.parametrize(
  "box", [(0, 0, 60, 60), (260, 0, 320, 60), (0, 180, 60, 240), (260, 180, 320, 240)]
)
def test_labels_of_boxes_in_the_corners_are_whole(image, box):
  """They have as many coloured pixels as a label in the middle."""

  def coloured(box):
    return (draw_faces(image, [_face(box)]) == (240, 228, 66)).all(axis=-1).sum()

  assert coloured(box) == coloured((130, 90, 190, 150))


def test_without_a_box_only_the_label_is_drawn(image):
  drawn = draw_faces(image, [_face(None)])
  left, top, right, bottom = _changed(image, drawn)
  assert (left, top) == (0, 0)
  assert right < 160
  assert bottom < 40
  label = drawn[:bottom, :right]
  assert (label == (240, 228, 66)).all(axis=-1).mean() > 0.5


def test_labels_of_neighbours_do_not_overlap(image):
  first, second = _face((100, 80, 160, 140), "anger"), _face((104, 80, 164, 140), "disgust")
  together = draw_faces(image, [first, second])
  for face, colour in ((first, (213, 94, 0)), (second, (0, 158, 115))):
    alone = draw_faces(image, [face])
    expected = (alone == colour).all(axis=-1).sum()
    assert (together == colour).all(axis=-1).sum() > 0.8 * expected


def test_every_expression_has_its_own_colour(image):
  drawn = [draw_faces(image, [_face((100, 60, 180, 160), name)]) for name in EXPRESSIONS]
  outline = {tuple(copy[100, 102]) for copy in drawn}
  assert len(outline) == len(EXPRESSIONS)


def test_other_vocabularies_get_colours_too(image):
  names = [f"class {number}" for number in range(11)]
  for name in names:
    assert (draw_faces(image, [_face((100, 60, 180, 160), name, names=names)]) != image).any()


@pytest.mark.parametrize("name", ["a very long name of an expression that nobody uses", "W" * 300])
@pytest.mark.parametrize("width", [1, 7, 40, 64, 320])
def test_long_names_fit_the_width(name, width):
  image = np.zeros((64, width, 3), np.uint8)
  drawn = draw_faces(image, [_face((0, 30, width, 60), name, names=[name])])
  assert drawn.shape == image.shape


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (12, 12), (40, 2000), (1500, 1000)])
def test_any_size_of_image(size):
  height, width = size
  drawn = draw_faces(np.zeros((height, width, 3), np.uint8), [_face((0, 0, width, height))])
  assert drawn.shape == (height, width, 3)


def test_text_grows_with_the_image():
  def label_height(scale):
    image = np.zeros((300 * scale, 400 * scale, 3), np.uint8)
    box = np.array([100, 100, 300, 200]) * scale
    top = _changed(image, draw_faces(image, [_face(box)]))[1]
    return box[1] - top

  assert label_height(1) >= 12
  assert label_height(4) > 2 * label_height(1)


def test_names_without_glyphs_have_an_index_and_a_legend(image):
  names = ("happiness", "\U0010fffd")  # from a private plane, for which no font has glyphs
  letters = lettering(names)
  box = (100, 60, 180, 160)
  face, plain = _face(box, names[1], names=names), _face(box, "1", names=("happiness", "1"))
  drawn = draw_faces(image, [face])
  np.testing.assert_array_equal(drawn, draw_faces(image, [face], letters))
  # In a corner without the face; the label equals that of a class called "1".
  expected = draw_faces(image, [plain], Lettering({"1": "1"}, letters.font, {}))
  rows, columns = np.nonzero((drawn != expected).any(-1))
  assert columns.min() == 0
  assert rows.max() == 239
  assert (drawn[rows.min() : 240, : columns.max() + 1] == 255).mean() > 0.5
  assert columns.max() < 100
  assert rows.min() > 160
  # Faces of other classes need no legend, and an image without room has none.
  other = _face(box, names=names)
  np.testing.assert_array_equal(_corner(draw_faces(image, [other])), _corner(image))
  tiny = np.zeros((6, 6, 3), np.uint8)
  assert not draw_faces(tiny, [_face(None, names[1], names=names)]).any()


def _corner(image):
  return image[170:, :90]

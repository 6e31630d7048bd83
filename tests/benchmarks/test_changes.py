import numpy as np
import pytest
from cards import changes

RNG = np.random.default_rng(0)


def image(height: int, width: int) -> np.ndarray:
  return RNG.integers(0, 256, (height, width, 3)).astype(np.uint8)


def disc(height: int, width: int, box: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
  """A white ellipse that fills a box, on black."""
  x1, y1, x2, y2 = box
  y, x = np.mgrid[:height, :width] + 0.5
  inside = ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1
  return np.repeat(np.uint8(255) * inside[..., None], 3, axis=2), np.array([box], float)


def extent(picture: np.ndarray) -> list[int]:
  """The box of the pixels brighter than the frame."""
  rows, columns = np.nonzero(picture[..., 0] > 192)
  return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_boxes_follow_a_smaller_photograph():
  picture, boxes = disc(120, 200, (30, 20, 90, 100))
  small, expected = changes.shrink_photograph(picture, boxes, 30)
  assert small.shape == picture.shape
  np.testing.assert_array_equal(small[0, 0], [128, 128, 128])
  assert changes.side_of(expected[0]) == pytest.approx(30, rel=0.02)
  np.testing.assert_allclose(extent(small), expected[0], atol=1.6)
  same, same_boxes = changes.shrink_photograph(picture, boxes, 90)
  assert same is picture
  assert same_boxes is boxes


def test_every_change_has_its_unchanged_level():
  for change in (*changes.OF_FACES.values(), *changes.OF_PHOTOGRAPHS.values()):
    assert change.unchanged in change.levels


def test_levels_of_faces_change_them():
  picture = image(48, 48)
  for change in changes.OF_FACES.values():
    for level in change.levels:
      if level != change.unchanged:
        assert not np.array_equal(change.apply(picture, level), picture)

"""Boxes are checked against their image."""

import numpy as np
import pytest

from ferjax.data import examples
from ferjax.data.datasets.entries import RecordError


def _fit(*boxes, **options):
  boxes = np.array(boxes, np.float32).reshape(-1, 4)
  return examples.fit_boxes(boxes, 100, 80, origin="list.txt:1", **options).tolist()


def test_small_overhang_is_clipped():
  assert _fit((-2, -1, 102, 81), (1, 2, 3, 4)) == [[0, 0, 100, 80], [1, 2, 3, 4]]
  assert _fit() == []


def test_large_overhang_must_be_allowed():
  with pytest.raises(RecordError, match=r"list.txt:1: box .* 3 pixels beyond"):
    _fit((1, 2, 3, 4), (50, 10, 103, 20))
  with pytest.raises(RecordError, match=r"box .* inf pixels beyond"):
    _fit((50, 10, np.inf, 20))
  assert _fit((-50, 10, 300, 20), overhang=np.inf) == [[0, 10, 100, 20]]


@pytest.mark.parametrize("box", [(100, 10, 101, 20), (-2, 10, 0, 20), (5, 300, 9, 400)])
def test_box_outside_is_always_an_error(box):
  with pytest.raises(RecordError, match="is outside the image of 100x80 pixels"):
    _fit(box, overhang=np.inf)

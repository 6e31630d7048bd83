import argparse

import numpy as np
import pytest
from cards import photographs
from cards.photographs import Portrait, number_range, pairs_of, step_of


def test_ranges_include_both_ends():
  assert list(number_range("3-5")) == [3, 4, 5]


@pytest.mark.parametrize("text", ["5", "5-3", "a-b", "-3"])
def test_a_bad_range_is_named(text):
  with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is no range"):
    number_range(text)


def test_photographs_are_chosen_by_number_with_all_their_boxes(tmp_path):
  folder = tmp_path / "scenes" / "faces"
  folder.mkdir(parents=True)
  rows = ["image,x1,y1,x2,y2", "0001.jpg,0,0,1,1", "0002.jpg,1,2,3,4", "0002.jpg,5,6,7,8.5"]
  (folder / "boxes.csv").write_text("\n".join(rows) + "\n")
  (found,) = photographs.scenes_with_faces(tmp_path, range(2, 9))
  assert found.path == folder / "0002.jpg"
  np.testing.assert_array_equal(found.boxes, [[1, 2, 3, 4], [5, 6, 7, 8.5]])
  with pytest.raises(FileNotFoundError, match="numbers 3-8"):
    photographs.scenes_with_faces(tmp_path, range(3, 9))


def test_portraits_are_paired_by_person(tmp_path):
  folder = tmp_path / "london"
  folder.mkdir()
  rows = ["image,label,person", "b8.jpg,happiness,b", "a3.jpg,neutral,a", "b3.jpg,neutral,b"]
  (folder / "labels.csv").write_text("\n".join(rows) + "\n")
  boxes = [f"{name}.jpg 1,2,3,4,0" for name in ("a3", "b3", "b8")]
  (folder / "annotations.txt").write_text("\n".join(boxes) + "\n")
  portraits = photographs.london(tmp_path)
  assert [portrait.path.name for portrait in portraits] == ["a3.jpg", "b8.jpg", "b3.jpg"]
  assert isinstance(portraits[0], Portrait)
  assert pairs_of(portraits, "neutral", "happiness") == [(2, 1)]


def test_a_limit_leaves_evenly_spaced_items():
  assert step_of(10, 0) == 1
  assert list(range(10))[:: step_of(10, 4)] == [0, 3, 6, 9]

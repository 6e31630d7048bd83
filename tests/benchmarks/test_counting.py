import numpy as np
import pytest
from cards import counting

from ferjax.inference.results import Face, Prediction


def prediction(*faces: tuple[tuple[float, ...], float]) -> Prediction:
  scored = (
    Face(tuple(map(float, box)), score, "happiness", {"happiness": score / 2})
    for box, score in faces
  )
  return Prediction(None, 100, 100, tuple(scored))


def result(faces, truth):
  return counting.image_result(prediction(*faces), np.array(truth, float).reshape(-1, 4))


FACE, OTHER, FAR = (10, 10, 30, 30), (50, 50, 70, 70), (80, 0, 90, 10)


def test_a_face_is_found_once_and_further_boxes_are_false():
  results = [
    result([(FACE, 0.9), ((11, 10, 31, 30), 0.8), (FAR, 0.4)], [FACE, OTHER]),
    result([], [FACE]),
    result([(FAR, 0.6)], []),
  ]
  assert counting.count(results) == counting.Counts(3, 3, 1, 3, 2)
  strong = counting.count(counting.above(results, 0.6))
  assert strong == counting.Counts(3, 3, 1, 2, 2)
  assert strong.recall == pytest.approx(1 / 3)
  assert strong.false_per_image == pytest.approx(2 / 3)


def test_a_tighter_box_counts_at_a_lower_iou():
  results = [result([(FACE, 0.9)], [(10, 10, 30, 19)])]  # IoU 0.45
  assert counting.count(results).found == 0
  assert counting.count(results, 0.4) == counting.Counts(1, 1, 1, 0, 0)


def test_thresholds_trade_recall_for_false_boxes():
  faces = [result([(FACE, 0.9)], [FACE]), result([(FACE, 0.3), (FAR, 0.2)], [FACE])]
  backgrounds = [result([(FAR, 0.2), (FACE, 0.2)], []), result([(FAR, 0.5)], [])]
  rows = counting.threshold_table(faces, backgrounds, (0.1, 0.3, 0.6))
  columns = np.array([list(row.values()) for row in rows])
  np.testing.assert_allclose(
    columns, [[0.1, 1, 1, 2, 1.5], [0.3, 1, 0, 1, 0.5], [0.6, 0.5, 0, 0, 0]]
  )
  assert counting.lowest_threshold(rows, 2, 0.5) == 0.3
  assert counting.lowest_threshold(rows, 2, 0.02) == 0.6
  assert counting.lowest_threshold(rows[:2], 2, 0.02) is None


def test_average_precision_by_hand_and_by_pycocotools():
  # By decreasing score: found, false, found. Precision 1 up to recall 0.5, then 2/3.
  results = [result([(FACE, 0.9)], [FACE]), result([(FAR, 0.8), (FACE, 0.7)], [FACE])]
  measured = counting.face_ap(results)
  assert measured["ap50"] == pytest.approx(0.5 + 0.5 * 2 / 3)
  assert measured["coco_ap50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
  # The resamples are the first image twice (AP 1), both, and the second twice (AP 0.5).
  assert (measured["ap50_low"], measured["ap50_high"]) == (0.5, 1.0)


def test_portraits_have_one_box_on_the_face():
  assert counting.found_once(prediction((FACE, 0.9)), FACE)
  assert not counting.found_once(prediction((FAR, 0.9)), FACE)
  assert not counting.found_once(prediction((FACE, 0.9), (FAR, 0.9)), FACE)
  assert not counting.found_once(prediction(), FACE)


def test_the_score_of_a_portrait_is_that_of_its_face():
  both = prediction((FAR, 0.9), (FACE, 0.6))
  assert counting.score_of_face(both, FACE, "happiness") == 0.3
  assert counting.score_of_face(both, OTHER, "happiness") is None
  assert counting.score_of_face(prediction(), FACE, "happiness") is None


def test_a_pair_needs_two_faces_and_a_higher_second_score():
  assert counting.higher_pairs([(0.1, 0.2), (0.2, 0.1), (0.2, 0.2), (None, 0.9), (0, None)]) == 1


def test_a_proportion_has_the_interval_of_wilson():
  measured = counting.proportion(5, 10)
  assert measured["value"] == 0.5
  # Newcombe, Statistics in Medicine 1998, formula 3 without continuity correction.
  np.testing.assert_allclose((measured["low"], measured["high"]), (0.2366, 0.7634), atol=1e-4)

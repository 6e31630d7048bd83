import numpy as np
import pytest

from ferjax.tasks.detection.voc import (
  average_precision,
  interpolate,
  iou_matrix,
  match_boxes,
  precision_recall,
  suppress,
)


def _boxes(*rows) -> np.ndarray:
  return np.array(rows, np.float64).reshape(-1, 4)


def test_iou_by_hand():
  ious = iou_matrix(
    _boxes((0, 0, 10, 10), (3, 3, 3, 3)), _boxes((5, 0, 15, 10), (20, 20, 30, 30), (3, 3, 3, 3))
  )
  np.testing.assert_allclose(ious, [[1 / 3, 0, 0], [0, 0, 0]])


def test_iou_of_exactly_the_threshold_is_a_hit():
  truth = _boxes((0, 0, 8, 4))
  assert match_boxes(_boxes((0, 0, 4, 4)), np.array([0.9]), truth).tolist() == [0]
  assert match_boxes(_boxes((0, 0, 3.9, 4)), np.array([0.9]), truth).tolist() == [-1]


def test_second_detection_of_a_box_is_wrong():
  truth = _boxes((0, 0, 10, 10))
  boxes = _boxes((0, 0, 10, 9), (0, 0, 10, 10))
  assert match_boxes(boxes, np.array([0.9, 0.8]), truth).tolist() == [0, -1]
  assert match_boxes(boxes, np.array([0.8, 0.9]), truth).tolist() == [-1, 0]
  assert match_boxes(boxes, np.array([0.9, 0.9]), truth).tolist() == [0, -1]


def test_best_overlap_decides_even_if_already_matched():
  # VOC: the second detection overlaps box 0 most, which is already matched. It does not fall back
  # to box 1, although their IoU is above the threshold.
  truth = _boxes((0, 0, 10, 10), (0, 0, 10, 6))
  boxes = _boxes((0, 0, 10, 10), (0, 0, 10, 9))
  assert match_boxes(boxes, np.array([0.9, 0.8]), truth).tolist() == [0, -1]


def test_no_truth_and_no_detection():
  none = _boxes()
  assert match_boxes(_boxes((0, 0, 1, 1)), np.array([0.5]), none).tolist() == [-1]
  assert match_boxes(none, np.zeros(0), _boxes((0, 0, 1, 1))).tolist() == []
  recall, precision = precision_recall(np.zeros(0), np.zeros(0, bool), 3)
  assert average_precision(recall, precision) == 0.0


@pytest.mark.parametrize(
  ("correct", "num_boxes", "expected"),
  [
    ([True, True], 2, 1.0),
    ([False, False], 2, 0.0),
    ([True, True], 4, 0.5),
    ([False, True], 1, 0.5),
    ([True, False, True], 2, 1 / 2 * 1 + 1 / 2 * 2 / 3),
    ([False, True, True], 2, 2 / 3),  # the later, higher precision counts from recall 0
    ([True, False, False, True, True], 4, 1 / 4 * 1 + 2 / 4 * 3 / 5),
  ],
)
def test_average_precision_by_hand(correct, num_boxes, expected):
  scores = np.linspace(0.9, 0.1, len(correct))
  order = np.random.default_rng(0).permutation(len(correct))
  curve = precision_recall(scores[order], np.array(correct)[order], num_boxes)
  assert average_precision(*curve) == pytest.approx(expected)


def test_precision_recall_and_envelope_by_hand():
  scores, correct = np.array([0.1, 0.9, 0.5]), np.array([True, True, False])
  recall, precision = precision_recall(scores, correct, 4)
  np.testing.assert_allclose(recall, [1 / 4, 1 / 4, 2 / 4])
  np.testing.assert_allclose(precision, [1, 1 / 2, 2 / 3])
  np.testing.assert_allclose(interpolate(precision), [1, 2 / 3, 2 / 3])


def test_suppress_keeps_the_best_of_overlapping_boxes():
  boxes = _boxes((0, 0, 10, 10), (0, 0, 10, 9), (0, 0, 10, 5), (50, 50, 60, 60))
  # The second is dropped by the first and so cannot drop the third, whose IoU with the first is
  # exactly the threshold.
  kept = suppress(boxes, np.array([0.9, 0.8, 0.7, 0.1]))
  assert kept.tolist() == [True, False, True, True]
  assert suppress(boxes[:2], np.array([0.8, 0.9])).tolist() == [False, True]
  assert suppress(_boxes(), np.zeros(0)).tolist() == []

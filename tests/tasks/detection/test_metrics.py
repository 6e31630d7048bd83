import numpy as np
import pytest

from ferjax.expressions import UNLABELLED
from ferjax.tasks.detection.metrics import DetectionMetrics
from ferjax.typing import Detections

NAMES = ("happy", "sad", "calm")
A, B, C = (0, 0, 20, 20), (50, 50, 90, 90), (100, 0, 140, 30)


def _detections(*images, width: int = 6) -> Detections:
  """From lists of (box, score, label); padding rows have plausible values."""
  shape = (len(images), width)
  boxes = np.tile(np.array(A, np.float32), (*shape, 1))
  scores, labels = np.ones(shape, np.float32), np.zeros(shape, np.int32)
  mask = np.zeros(shape, bool)
  for i, rows in enumerate(images):
    for j, (box, score, label) in enumerate(rows):
      boxes[i, j], scores[i, j], labels[i, j], mask[i, j] = box, score, label, True
  class_scores = np.eye(len(NAMES), dtype=np.float32)[labels] * scores[..., None]
  return Detections(boxes, scores, labels, class_scores, mask)


def _truth(*images, width: int = 4) -> dict:
  """From lists of (box, label)."""
  shape = (len(images), width)
  boxes = np.tile(np.array(B, np.float32), (*shape, 1))
  label, box_mask = np.full(shape, 1, np.int32), np.zeros(shape, bool)
  for i, rows in enumerate(images):
    for j, (box, name) in enumerate(rows):
      boxes[i, j], label[i, j], box_mask[i, j] = box, name, True
  return {"boxes": boxes, "label": label, "box_mask": box_mask, "mask": np.ones(len(images), bool)}


def _computed(detections: Detections, truth: dict) -> dict[str, float]:
  metrics = DetectionMetrics(NAMES)
  metrics.add(detections, truth)
  return metrics.compute()


def test_perfect():
  result = _computed(
    _detections([(A, 0.9, 0), (B, 0.8, 1)], [(C, 0.7, 2)]), _truth([(A, 0), (B, 1)], [(C, 2)])
  )
  shares = {name: value for name, value in result.items() if not name.startswith("num_")}
  assert shares == pytest.approx(dict.fromkeys(shares, 1.0))
  assert set(shares) == {
    "map50", "map", "coco_map50", "ap50/happy", "ap50/sad", "ap50/calm",
    "precision50", "recall50", "face_ap50", "expression_accuracy",
  }  # fmt: skip
  assert (result["num_images"], result["num_boxes"]) == (2, 3)
  assert all(type(value) is float for value in result.values())


def test_nothing_detected():
  result = _computed(_detections([], []), _truth([(A, 0)], [(B, 1)]))
  assert {name for name, value in result.items() if value} == {"num_images", "num_boxes"}


def test_mixed_by_hand():
  detections = _detections(
    [(A, 0.9, 0), (B, 0.8, 1), ((1, 0, 20, 20), 0.6, 0)],  # correct, wrong class, duplicate
    [(C, 0.7, 0)],  # an image without faces
    [(A, 0.4, 0)],
  )
  truth = _truth([(A, 0), (B, 0)], [], [(A, 0), (C, 1)])
  result = _computed(detections, truth)
  # happy: 0.9 correct, 0.7 wrong, 0.6 duplicate, 0.4 correct; 3 boxes.
  happy = 1 / 3 * 1 + 1 / 3 * 2 / 4
  assert result["ap50/happy"] == pytest.approx(happy)
  assert result["ap50/sad"] == 0.0
  assert "ap50/calm" not in result
  assert result["map50"] == pytest.approx(happy / 2)
  # At score 0.5: four detections, one correct, of four boxes.
  assert result["precision50"] == pytest.approx(1 / 4)
  assert result["recall50"] == pytest.approx(1 / 4)
  # Faces: 0.9, 0.8 correct, 0.7 wrong, duplicate suppressed, 0.4 correct; 4 faces.
  assert result["face_ap50"] == pytest.approx(2 / 4 * 1 + 1 / 4 * 3 / 4)
  assert result["expression_accuracy"] == pytest.approx(2 / 3)


def test_unlabelled_boxes_by_hand():
  shifted = (55, 50, 90, 90)
  metrics = DetectionMetrics(NAMES)
  metrics.add(
    _detections(
      # On A: correct. On B, whose class is unknown: ignored, also for another class; and a
      # duplicate, which is wrong. On C: no face.
      [(A, 0.9, 0), (B, 0.85, 1), (B, 0.8, 0), (shifted, 0.7, 0), (C, 0.6, 0)],
      [(A, 0.5, 0)],
    ),
    _truth([(A, 0), (B, UNLABELLED)], [(A, 0)]),
  )
  result = metrics.compute()
  # happy: 0.9 correct, 0.7 and 0.6 wrong, 0.5 correct; 2 boxes.
  assert result["ap50/happy"] == result["map50"] == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 4)
  # COCO: precision 1 at the recalls 0, 0.01, ..., 0.5, then 1/2.
  assert result["map"] == result["coco_map50"] == pytest.approx((51 + 50 / 2) / 101)
  assert "ap50/sad" not in result
  assert result["precision50"] == pytest.approx(2 / 4)
  assert result["recall50"] == 1
  # Faces: 0.9 and 0.85 correct, 0.6 wrong, 0.5 correct; 3 faces.
  assert result["face_ap50"] == pytest.approx(2 / 3 * 1 + 1 / 3 * 3 / 4)
  assert result["expression_accuracy"] == 1
  assert (result["num_boxes"], result["num_unlabelled"]) == (3, 1)
  expected = np.zeros((4, 4), int)
  expected[0, 0], expected[3, 0] = 2, 1
  np.testing.assert_array_equal(metrics.confusion_matrix(), expected)


def test_a_missed_unlabelled_face_is_missed_by_no_class():
  metrics = DetectionMetrics(NAMES)
  metrics.add(_detections([(A, 0.9, 0)]), _truth([(A, 0), (B, UNLABELLED)]))
  result = metrics.compute()
  assert [result[x] for x in ("map50", "map", "recall50")] == pytest.approx([1, 1, 1])
  assert result["face_ap50"] == pytest.approx(1 / 2)
  assert metrics.confusion_matrix()[:, 3].tolist() == [0] * 4


def test_faces_alone_have_no_metrics_of_classes():
  result = _computed(
    _detections([(A, 0.9, 0), (C, 0.8, 1)], [(B, 0.7, 2)]),
    _truth([(A, UNLABELLED)], [(B, UNLABELLED)]),
  )
  assert set(result) == {"face_ap50", "num_images", "num_boxes", "num_unlabelled"}
  assert result["face_ap50"] == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)


def test_outcomes_of_images_by_hand():
  """A found face with the wrong expression, an unsure one, a missed one, one without a label."""
  metrics = DetectionMetrics(NAMES)
  detections = _detections([(A, 0.9, 1), (B, 0.2, 0)], [(A, 0.8, 2)], [(C, 0.9, 0)])
  metrics.add(detections, _truth([(A, 0), (B, 0)], [(A, 2), (C, 1)], [(C, UNLABELLED)]))
  outcomes = metrics.outcomes()
  assert outcomes["face_recall"].successes.ravel().tolist() == [1, 1, 1]
  assert outcomes["face_recall"].trials.ravel().tolist() == [2, 2, 1]
  successes, trials = outcomes["expression_accuracy"]
  assert (successes.ravel().tolist(), trials.ravel().tolist()) == ([1, 1, 0], [2, 1, 0])
  assert metrics.compute()["expression_accuracy"] == successes.sum() / trials.sum()


def test_classes_without_ground_truth_are_named():
  metrics = DetectionMetrics(NAMES)
  assert metrics.classes_without_boxes == NAMES
  metrics.add(_detections([(A, 0.9, 2)]), _truth([(B, 1)]))
  assert metrics.classes_without_boxes == ("happy", "calm")
  assert list(metrics.curves()) == ["sad"]


def test_detections_of_several_classes_are_one_face():
  """Three classes in one place are one face, of the best class."""
  result = _computed(
    _detections([(A, 0.3, 0), (A, 0.32, 1), (A, 0.31, 2)], [(B, 0.2, 1)]),
    _truth([(A, 1)], [(B, 0)]),
  )
  assert result["face_ap50"] == pytest.approx(1)
  assert result["expression_accuracy"] == pytest.approx(1 / 2)


def test_confusion_matrix_by_hand():
  metrics = DetectionMetrics(NAMES)
  metrics.add(
    _detections(
      [(A, 0.9, 0), (A, 0.8, 1), (B, 0.8, 2), (C, 0.7, 1)],  # correct, duplicate, wrong, no face
      [(A, 0.5, 1), (B, 0.49, 1)],  # correct, below the threshold
    ),
    _truth([(A, 0), (B, 1)], [(A, 1), (B, 1), (C, 2)]),
  )
  expected = [
    [1, 0, 0, 0],
    [0, 1, 1, 1],
    [0, 0, 0, 1],
    [0, 1, 0, 0],
  ]
  np.testing.assert_array_equal(metrics.confusion_matrix(), expected)


def test_batches_equal_one_batch():
  rng = np.random.default_rng(0)
  boxes, label = np.array([A, B, C]), rng.integers(0, 3, (8, 3))
  truth = _truth(*[[(boxes[j], label[i, j]) for j in range(i % 4)] for i in range(8)])
  found = _detections(
    *[[(boxes[j] + rng.normal(0, 3, 4), rng.random(), rng.integers(0, 3)) for j in range(3)]
      for _ in range(8)]
  )  # fmt: skip
  metrics = DetectionMetrics(NAMES)
  for part in (slice(0, 3), slice(3, 4), slice(4, 8)):
    metrics.add(
      Detections(*(field[part] for field in found)), {k: v[part] for k, v in truth.items()}
    )
  assert metrics.compute() == _computed(found, truth)


def test_masked_examples_do_not_count():
  detections = _detections([(A, 0.9, 0)], [(B, 0.8, 0)])
  truth = _truth([(A, 0)], [(C, 1)])
  truth["mask"][1] = False
  # The placement of a padding example is all zeros.
  truth["placement"] = np.array([[1, 1, 0, 0, 200, 200], [0] * 6], np.float32)
  result = _computed(detections, truth)
  assert result["map50"] == 1.0
  assert result["num_images"] == 1


def test_placement_maps_the_truth_to_original_pixels():
  truth = _truth([(A, 0), (B, 1)])
  placement = np.array([[0.5, 0.25, 3, 40, 640, 480]], np.float32)
  scale, offset = placement[0, [0, 1, 0, 1]], placement[0, [2, 3, 2, 3]]
  placed = truth | {"boxes": truth["boxes"] * scale + offset, "placement": placement}
  result = _computed(_detections([(A, 0.9, 0), (B, 0.9, 1)]), placed)
  assert result["map"] == pytest.approx(1)


def test_without_any_ground_truth():
  metrics = DetectionMetrics(NAMES)
  metrics.add(_detections([(A, 0.9, 0)]), _truth([]))
  with pytest.raises(ValueError, match="none of the 1 images added has a ground-truth box"):
    metrics.compute()


def test_batches_of_different_size():
  with pytest.raises(ValueError, match="Detections of 2 images and ground truth of 1"):
    DetectionMetrics(NAMES).add(_detections([], []), _truth([(A, 0)]))


def test_invalid_label():
  for label in (3, -2):
    with pytest.raises(
      ValueError, match=rf"label {label}; expected 0\.\.2 for the classes happy, sad, calm, or -1"
    ):
      DetectionMetrics(NAMES).add(_detections([]), _truth([(A, label)]))

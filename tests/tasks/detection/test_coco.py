import numpy as np
import pytest

from ferjax.tasks.detection.coco import coco_average_precision
from ferjax.tasks.detection.voc import ImageResult


def _image(detections=(), truth=()) -> ImageResult:
  """From (box, score, label) and (box, label)."""
  return ImageResult(
    boxes=np.array([d[0] for d in detections], np.float64).reshape(-1, 4),
    scores=np.array([d[1] for d in detections], np.float64),
    labels=np.array([d[2] for d in detections], np.int32),
    truth_boxes=np.array([t[0] for t in truth], np.float64).reshape(-1, 4),
    truth_labels=np.array([t[1] for t in truth], np.int32),
  )


BOX = (10, 10, 110, 110)


def test_perfect_detections():
  images = [_image([(BOX, 0.9, 0)], [(BOX, 0)]), _image([(BOX, 0.3, 2)], [(BOX, 2)])]
  assert coco_average_precision(images, 3) == pytest.approx((1, 1))


def test_thresholds_from_50_to_95():
  # IoU 0.81: correct at 0.50, 0.55, ..., 0.80, which are 7 of the 10 thresholds.
  images = [_image([((10, 10, 91, 110), 0.9, 0)], [(BOX, 0)])]
  assert coco_average_precision(images, 1) == pytest.approx((0.7, 1))


def test_mean_over_the_classes_that_have_boxes():
  images = [_image([(BOX, 0.9, 0), (BOX, 0.8, 2)], [(BOX, 0), (BOX, 1)])]
  assert coco_average_precision(images, 3) == pytest.approx((0.5, 0.5))


def test_first_ground_truth_box_counts():
  """pycocotools would read an id of 0 as "no match"."""
  images = [_image([(BOX, 0.9, 0)], [(BOX, 0)])]
  assert coco_average_precision(images, 1) == pytest.approx((1, 1))


def test_false_positive_in_an_image_without_faces():
  images = [_image([(BOX, 0.9, 0)]), _image([(BOX, 0.5, 0)], [(BOX, 0)])]
  assert coco_average_precision(images, 1) == pytest.approx((0.5, 0.5))


def test_no_detection_no_truth_and_no_output(capsys):
  assert coco_average_precision([_image((), [(BOX, 0)])], 1) == (0, 0)
  assert np.isnan(coco_average_precision([_image([(BOX, 0.9, 0)])], 1)).all()
  assert np.isnan(coco_average_precision([_image()], 1)).all()
  assert capsys.readouterr().out == ""

"""A resample's values are those of the images that it draws, computed as in any evaluation."""

import numpy as np
import pytest

from ferjax.expressions import UNLABELLED
from ferjax.tasks.detection.metrics import DetectionMetrics
from ferjax.tasks.detection.resampling import differences, intervals
from ferjax.tasks.detection.voc import ImageResult

NAMES = ("happy", "sad", "calm")


def detector(seed, *, images=12, truth_seed=0, names=NAMES):
  """Noisy detections of random faces, of which some have no label."""
  rng, truth_rng = np.random.default_rng(seed), np.random.default_rng(truth_seed)
  metrics = DetectionMetrics(names)
  for number in range(images):
    faces = int(truth_rng.integers(0, 4))
    corner = np.array([[200 * i, 0] for i in range(faces)]).reshape(-1, 2) * 1.0
    boxes = np.concatenate([corner, corner + truth_rng.uniform(40, 90, (faces, 2))], axis=1)
    labels = truth_rng.choice([0, 1, 2, UNLABELLED], faces, p=[0.4, 0.3, 0.2, 0.1])
    false = rng.uniform(0, 300, (2, 2))
    found = np.concatenate(
      [boxes + rng.normal(0, 8, boxes.shape), np.concatenate([false, false + 50], axis=1)]
    )
    guesses = np.where(rng.random(faces) < 0.6, np.maximum(labels, 0), rng.integers(0, 3, faces))
    metrics.index.append(number)
    metrics.images.append(
      ImageResult(
        found,
        rng.uniform(0.1, 1, len(found)),
        np.concatenate([guesses, rng.integers(0, 3, 2)]),
        boxes,
        labels,
      )
    )
  return metrics


def drawn(metrics, seed):
  """The images of the first resample."""
  number = len(metrics.images)
  result = DetectionMetrics(metrics.class_names)
  for i in np.sort(np.random.default_rng(seed).integers(number, size=number)):
    result.images.append(metrics.images[i])
    result.index.append(int(i))
  return result


@pytest.mark.parametrize("seed", range(4))
def test_values_of_a_resample(seed):
  metrics = detector(7)
  expected, whole = drawn(metrics, seed).compute(), metrics.compute()
  found = intervals(metrics, resamples=1, seed=seed)
  assert set(found) == {
    "map50",
    "face_ap50",
    "expression_accuracy",
    *(f"ap50/{name}" for name in NAMES),
  }
  for name, value in found.items():
    assert value.value == pytest.approx(whole[name], abs=1e-12)
    if name in expected:
      assert value.low == value.high == pytest.approx(expected[name], abs=1e-12)
    else:
      assert np.isnan(value.low)


@pytest.mark.parametrize("seed", range(2))
def test_difference_of_a_resample(seed):
  first, second = detector(7), detector(8)
  found = differences(first, second, resamples=1, seed=seed)
  before, after = (drawn(x, seed).compute() for x in (first, second))
  assert found["map50"].low == pytest.approx(after["map50"] - before["map50"], abs=1e-12)
  whole = second.compute()["face_ap50"] - first.compute()["face_ap50"]
  assert found["face_ap50"].value == pytest.approx(whole, abs=1e-12)


def test_intervals_contain_their_values_and_shrink():
  few, many = (intervals(detector(7, images=n))["map50"] for n in (20, 200))
  assert few.low < few.value < few.high
  # By the square root of ten.
  assert 2 < (few.high - few.low) / (many.high - many.low) < 5
  same = differences(detector(7), detector(7))
  assert all(x == (0, 0, 0) for x in same.values())


def test_classes_and_faces_that_are_missing():
  metrics = DetectionMetrics(NAMES)
  metrics.index = [0]
  box, none = np.array([[0.0, 0, 9, 9]]), np.zeros((0, 4))
  metrics.images = [ImageResult(none, none[:, 0], none[:, 0].astype(int), box, np.array([0]))]
  found = intervals(metrics)
  assert found["ap50/happy"] == (0, 0, 0)
  assert "ap50/sad" not in found
  assert found["map50"] == found["face_ap50"] == (0, 0, 0)
  assert np.isnan(found["expression_accuracy"].value)


def test_what_cannot_be_compared():
  with pytest.raises(ValueError, match="the classes are happy, sad, calm and calm, sad, happy"):
    differences(detector(1), detector(1, names=NAMES[::-1]))
  with pytest.raises(ValueError, match=r"different images \(their index differs"):
    differences(detector(1), detector(1, images=11))
  with pytest.raises(ValueError, match=r"different images \(their num_truth differs"):
    differences(detector(1), detector(1, truth_seed=1))
  with pytest.raises(ValueError, match="no images"):
    intervals(DetectionMetrics(NAMES))


def test_arrays_have_everything_in_the_order_of_the_records():
  metrics, shuffled = detector(7), DetectionMetrics(NAMES)
  for i in np.random.default_rng(0).permutation(12):
    shuffled.images.append(metrics.images[i])
    shuffled.index.append(int(i))
  restored = DetectionMetrics.from_arrays(NAMES, shuffled.arrays())
  assert restored.index == list(range(12))
  assert restored.compute() == metrics.compute()
  empty = DetectionMetrics(NAMES)
  assert DetectionMetrics.from_arrays(NAMES, empty.arrays()).images == []

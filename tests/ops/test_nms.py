import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ferjax.ops.nms import nms


def _scene(seed: int, n: int, num_classes: int = 3):
  rng = np.random.default_rng(seed)
  corner = rng.uniform(0, 60, (n, 2))
  boxes = np.concatenate([corner, corner + rng.uniform(10, 50, (n, 2))], -1).astype(np.float32)
  # Few distinct scores: ties are common.
  scores = (rng.integers(0, 40, n) / 40).astype(np.float32)
  return boxes, scores, rng.integers(0, num_classes, n).astype(np.int32)


def _iou(a, b):
  low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
  intersection = np.prod(np.maximum(high - low, 0))
  union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - intersection
  return intersection / union if union > 0 else 0.0


def _greedy(boxes, scores, labels, iou_threshold, score_threshold, max_detections):
  kept = []
  for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
    if len(kept) == max_detections or scores[i] < score_threshold:
      break
    same = [j for j in kept if labels is None or labels[j] == labels[i]]
    if all(_iou(boxes[i], boxes[j]) <= iou_threshold for j in same):
      kept.append(i)
  return kept


def _run(boxes, scores, labels, **thresholds):
  run = jax.jit(functools.partial(nms, **thresholds))
  index, mask = run(*(x if x is None else jnp.asarray(x) for x in (boxes, scores, labels)))
  return np.asarray(index), np.asarray(mask)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("iou_threshold", [0.0, 0.3, 0.5])
def test_equals_a_plain_greedy_loop(seed, iou_threshold):
  scene = _scene(seed, 120)
  expected = _greedy(*scene, iou_threshold, 0.1, 30)
  index, mask = _run(*scene, iou_threshold=iou_threshold, score_threshold=0.1, max_detections=30)
  assert index[mask].tolist() == expected
  # Real rows come first, and padding is index 0.
  assert mask.tolist() == [True] * len(expected) + [False] * (30 - len(expected))
  assert not index[~mask].any()


def test_across_classes():
  boxes, scores, labels = _scene(5, 120)
  expected = _greedy(boxes, scores, None, 0.3, 0.1, 30)
  assert expected != _greedy(boxes, scores, labels, 0.3, 0.1, 30)
  index, mask = _run(boxes, scores, None, iou_threshold=0.3, score_threshold=0.1, max_detections=30)
  assert index[mask].tolist() == expected


def test_more_detections_than_boxes():
  scene = _scene(7, 6)
  index, mask = _run(*scene, iou_threshold=1.0, score_threshold=0.0, max_detections=10)
  assert mask.sum() == 6
  assert sorted(index[mask].tolist()) == list(range(6))


def test_thresholds_at_equality_keep_the_box():
  # IoU of the two is exactly 1/2, both scores exactly at the threshold.
  boxes = np.array([[0, 0, 8, 4], [0, 0, 4, 4]], np.float32)
  scores, labels = np.full(2, 0.5, np.float32), np.zeros(2, np.int32)
  _, mask = _run(boxes, scores, labels, iou_threshold=0.5, score_threshold=0.5, max_detections=2)
  assert mask.tolist() == [True, True]
  _, mask = _run(boxes, scores, labels, iou_threshold=0.49, score_threshold=0.5, max_detections=2)
  assert mask.tolist() == [True, False]


def test_other_classes_are_not_suppressed():
  boxes = np.array([[0, 0, 8, 8]] * 3, np.float32)
  scores, labels = np.array([0.5, 0.9, 0.7], np.float32), np.array([0, 1, 1], np.int32)
  index, mask = _run(
    boxes, scores, labels, iou_threshold=0.5, score_threshold=0.0, max_detections=3
  )
  assert index[mask].tolist() == [1, 0]


def test_equal_scores_keep_the_lower_index():
  boxes = np.array([[0, 0, 8, 8]] * 3, np.float32)
  index, mask = _run(
    boxes,
    np.full(3, 0.25, np.float32),
    np.zeros(3, np.int32),
    iou_threshold=0.5,
    score_threshold=0.0,
    max_detections=3,
  )
  assert index[mask].tolist() == [0]


def test_nothing_passes_nan_and_empty_boxes():
  boxes = np.array([[0, 0, 8, 8], [4, 4, 4, 4]], np.float32)
  labels = np.zeros(2, np.int32)
  kwargs = {"iou_threshold": 0.5, "max_detections": 3}
  scores = np.array([0.2, 0.3], np.float32)
  assert not _run(boxes, scores, labels, score_threshold=0.5, **kwargs)[1].any()
  index, mask = _run(boxes, scores, labels, score_threshold=0.0, **kwargs)
  assert index[mask].tolist() == [1, 0]  # a box of zero area is kept once
  index, mask = _run(
    boxes, np.array([0.2, np.nan], np.float32), labels, score_threshold=0.0, **kwargs
  )
  assert index[mask].tolist() == [0]


def test_batch_equals_singles():
  kwargs = {"iou_threshold": 0.4, "score_threshold": 0.2, "max_detections": 12}
  scenes = [_scene(seed, 50) for seed in range(4)]
  stacked = [jnp.asarray(np.stack(part)) for part in zip(*scenes, strict=True)]
  index, mask = jax.jit(jax.vmap(functools.partial(nms, **kwargs)))(*stacked)
  for i, scene in enumerate(scenes):
    single_index, single_mask = _run(*scene, **kwargs)
    np.testing.assert_array_equal(index[i], single_index)
    np.testing.assert_array_equal(mask[i], single_mask)

"""The detector's boxes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ferjax.ops.boxes import undo_placement, xyxy_to_cxcywh
from ferjax.tasks.detection.task import DetectionTask, decode
from ferjax.typing import DetectorOutput

NAMES = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
TASK = DetectionTask(NAMES)
SETTINGS = {  # thresholds, and the placement of a 480x640 image in the 320x320 input
  "predict_letterbox": (0.5, 0.3, (0.5, 0.5, 0, 40, 640, 480)),
  "eval_letterbox": (0.05, 0.5, (0.5, 0.5, 0, 40, 640, 480)),
  "stretch": (0.5, 0.3, (0.5, 2 / 3, 0, 0, 640, 480)),
}


def _postprocess(output, task=TASK, placement=None, **settings):
  run = functools.partial(task.postprocess, **settings)
  return jax.jit(run)(output, placement=placement)


def _output(golden, case: str) -> DetectorOutput:
  maps = (golden.expect(f"{case}/raw{level}").transpose(0, 2, 3, 1) for level in range(3))
  return DetectorOutput(tuple(map(jnp.asarray, maps)))


@pytest.mark.parametrize("case", ["decode_20_20_10", "decode_40_20_10"])
def test_decode_equals_the_released_program(golden, case):
  boxes, obj_logits, cls_logits = decode(_output(golden, case), 320)
  rows = [
    xyxy_to_cxcywh(boxes) / 320,
    jax.nn.sigmoid(obj_logits)[..., None],
    jax.nn.sigmoid(cls_logits),
  ]
  assert golden.rel_l2(f"{case}/decoded", jnp.concatenate(rows, axis=-1)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("case", ["decode_20_20_10", "decode_40_20_10"])
def test_kept_boxes_equal_the_released_program(golden, case, setting):
  score_threshold, iou_threshold, placement = SETTINGS[setting]
  placement = jnp.tile(jnp.array(placement, jnp.float32)[None], (2, 1))
  kept = _postprocess(
    _output(golden, case),
    image_size=320,
    score_threshold=score_threshold,
    iou_threshold=iou_threshold,
    max_detections=900,
  )
  boxes = np.asarray(undo_placement(kept.boxes, placement))
  for i in range(2):
    mask = np.asarray(kept.mask[i])
    rows = golden.expect(f"{case}/{setting}/img{i}")
    assert mask.sum() == len(rows)
    np.testing.assert_allclose(boxes[i][mask], rows[:, [1, 0, 3, 2]], atol=1e-3)
    np.testing.assert_allclose(kept.scores[i][mask], rows[:, 4] * rows[:, 5], rtol=1e-5)
    np.testing.assert_array_equal(kept.labels[i][mask], rows[:, 6])
    np.testing.assert_allclose(
      np.asarray(kept.class_scores[i])[mask, kept.labels[i][mask]], kept.scores[i][mask]
    )


@pytest.mark.parametrize("case", ["decode_20_20_10", "decode_40_20_10"])
def test_no_detection_above_the_threshold(golden, case):
  shapes = golden.train[f"{case}_empty"]["result_when_nothing_passes"]
  kept = _postprocess(
    _output(golden, case),
    image_size=320,
    score_threshold=1.0,
    iou_threshold=0.3,
    max_detections=4,
  )
  assert kept.mask.sum(axis=1).tolist() == [rows for rows, _ in shapes]
  assert kept.boxes.shape == (2, 4, 4)
  for field in kept:
    assert not field.any()


def test_placement_gives_clipped_original_pixels(golden):
  case = "decode_20_20_10"
  score_threshold, iou_threshold, placement = SETTINGS["stretch"]
  kept = _postprocess(
    _output(golden, case),
    image_size=320,
    placement=jnp.array([placement] * 2, jnp.float32),
    score_threshold=score_threshold,
    iou_threshold=iou_threshold,
    max_detections=100,
  )
  for i in range(2):
    rows = golden.expect(f"{case}/stretch/img{i}")
    clipped = np.clip(rows[:, [1, 0, 3, 2]], 0, [640, 480, 640, 480])
    np.testing.assert_allclose(kept.boxes[i][kept.mask[i]], clipped, atol=1e-3)


def _row_of_cells(*cells: tuple[float, ...]) -> DetectorOutput:
  """One image with a map of one row; raw values per cell."""
  return DetectorOutput((jnp.array([[list(cells)]], jnp.float32),))


def test_rectangular_input_and_boxes_outside_the_image():
  # Two cells of 32x64 pixels (width x height): centres (16, 32) and (48, 32), a quarter wide.
  size = float(np.log(0.25))
  output = _row_of_cells((0.5, 0.5, size, size, 9, 9, -9), (0.5, 0.5, size, size, 9, -9, 9))
  task = DetectionTask(("a", "b"))
  thresholds = {"score_threshold": 0.5, "iou_threshold": 0.5, "max_detections": 3}
  kept = _postprocess(output, task, image_size=(64, 64), **thresholds)
  np.testing.assert_allclose(
    kept.boxes[0], [[12, 24, 20, 40], [44, 24, 52, 40], [0, 0, 0, 0]], rtol=1e-6
  )
  assert kept.labels[0].tolist() == [0, 1, 0]
  # The image ends at input column 14: a quarter of the first box remains, and the second is
  # dropped.
  placement = jnp.array([[0.5, 1, 0, 0, 28, 64]], jnp.float32)
  kept = _postprocess(output, task, image_size=64, placement=placement, **thresholds)
  assert kept.mask[0].tolist() == [True, False, False]
  np.testing.assert_allclose(kept.boxes[0, 0], [24, 24, 28, 40], rtol=1e-6)


def test_box_outside_the_image_suppresses_nothing():
  size = float(np.log(0.5))
  # Both predict boxes 32 wide around x = 32 and x = 40; the image begins at column 50.
  output = _row_of_cells((0.5, 0.5, size, 0, 9, 9), (-0.375, 0.5, size, 0, 5, 5))
  task = DetectionTask(("face",))
  thresholds = {"score_threshold": 0.5, "iou_threshold": 0.3, "max_detections": 2}
  kept = _postprocess(output, task, image_size=(64, 128), **thresholds)
  np.testing.assert_allclose(kept.boxes[0], [[16, 0, 48, 64], [0, 0, 0, 0]], rtol=1e-6)
  placement = jnp.array([[1, 1, 50, 0, 78, 64]], jnp.float32)
  kept = _postprocess(output, task, placement, image_size=(64, 128), **thresholds)
  np.testing.assert_allclose(kept.boxes[0], [[0, 0, 6, 64], [0, 0, 0, 0]], rtol=1e-6)


def test_one_box_for_a_face_with_two_likely_expressions():
  size = float(np.log(0.5))
  # Boxes 32 wide around x = 32 and x = 40, of IoU 24 / 40, with different best classes.
  output = _row_of_cells((0.5, 0.5, size, 0, 9, 3, 1), (-0.375, 0.5, size, 0, 9, 1, 2))
  task = DetectionTask(("happiness", "surprise"))
  thresholds = {"score_threshold": 0.5, "iou_threshold": 0.5, "max_detections": 3}
  kept = _postprocess(output, task, image_size=(64, 128), **thresholds)
  assert kept.labels[0, :2].tolist() == [0, 1]
  assert kept.mask[0].tolist() == [True, True, False]
  kept = _postprocess(output, task, image_size=(64, 128), per_class_nms=False, **thresholds)
  assert kept.mask[0].tolist() == [True, False, False]
  assert kept.labels[0, 0] == 0
  np.testing.assert_allclose(kept.boxes[0, 0], [16, 0, 48, 64], rtol=1e-6)
  expected = 1 / (1 + np.exp(-9)) / (1 + np.exp([-3, -1]))
  np.testing.assert_allclose(kept.class_scores[0, 0], expected, rtol=1e-6)


def test_cells_of_detections():
  # Two maps, of two and of three cells: the first and the last of the second are faces.
  levels = (
    _row_of_cells((0.5, 0.5, -1, -1, -9, 9), (0.5, 0.5, -1, -1, -9, 9)),
    _row_of_cells((0.5, 0.5, -2, -2, 3, 9), (0.5, 0.5, 0, 0, -9, 9), (0.5, 0.5, -2, -2, 5, 9)),
  )
  output = DetectorOutput(tuple(level for output in levels for level in output.levels))
  settings = {"score_threshold": 0.5, "iou_threshold": 0.5, "max_detections": 3}
  task = DetectionTask(("face",))
  run = jax.jit(functools.partial(task.postprocess_cells, image_size=64, **settings))
  kept, cells = run(output)
  assert kept.mask[0].tolist() == [True, True, False]
  assert cells[0, :2].tolist() == [4, 2]
  boxes, *_ = decode(output, 64)
  np.testing.assert_allclose(kept.boxes[0, :2], boxes[0, cells[0, :2]], rtol=1e-6)


def test_batch_equals_singles(golden):
  output = _output(golden, "decode_40_20_10")
  postprocess = functools.partial(
    _postprocess, image_size=320, score_threshold=0.05, iou_threshold=0.5, max_detections=50
  )
  batched = postprocess(output)
  for i in range(2):
    single = postprocess(DetectorOutput(tuple(x[i : i + 1] for x in output.levels)))
    for a, b in zip(batched, single, strict=True):
      np.testing.assert_allclose(a[i], b[0], rtol=1e-6)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"score_threshold": 1.5}, r"score_threshold is 1.5; it must be in 0..1"),
    ({"iou_threshold": -0.1}, r"iou_threshold is -0.1; it must be in 0..1"),
    ({"max_detections": 0}, r"max_detections is 0; it must be at least 1"),
  ],
)
def test_invalid_thresholds(golden, change, message):
  thresholds = {"score_threshold": 0.5, "iou_threshold": 0.5, "max_detections": 10} | change
  with pytest.raises(ValueError, match=message):
    TASK.postprocess(_output(golden, "loss_no_gt"), image_size=32, **thresholds)


def test_task_is_a_value():
  assert DetectionTask(NAMES) == TASK
  assert hash(DetectionTask(NAMES)) == hash(TASK)
  assert TASK.num_classes == 7
  assert TASK.metrics().class_names == NAMES
  assert TASK.primary_metric == "map50"

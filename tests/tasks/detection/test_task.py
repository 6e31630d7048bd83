import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ferjax.expressions import UNLABELLED
from ferjax.ops.boxes import CellGrid, cell_grid, undo_placement, xyxy_to_cxcywh
from ferjax.tasks.base import merge_losses
from ferjax.tasks.detection.task import DetectionTask, decode, detection_loss
from ferjax.typing import DetectorOutput

NAMES = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
TASK = DetectionTask(NAMES)
LOSSES = ["loss_40_20_10", "loss_20_20_10", "loss_conflict", "loss_no_gt"]
SETTINGS = {  # thresholds, and the placement of a 480x640 image in the 320x320 input
  "predict_letterbox": (0.5, 0.3, (0.5, 0.5, 0, 40, 640, 480)),
  "eval_letterbox": (0.05, 0.5, (0.5, 0.5, 0, 40, 640, 480)),
  "stretch": (0.5, 0.3, (0.5, 2 / 3, 0, 0, 640, 480)),
}


_loss = jax.jit(TASK.loss)


def _postprocess(output, task=TASK, placement=None, **settings):
  run = functools.partial(task.postprocess, **settings)
  return jax.jit(run)(output, placement=placement)


def _output(golden, case: str) -> DetectorOutput:
  maps = (golden.expect(f"{case}/raw{level}").transpose(0, 2, 3, 1) for level in range(3))
  return DetectorOutput(tuple(map(jnp.asarray, maps)))


def _released_grid(facts: dict) -> CellGrid:
  """Cells with the strides that the released loss uses whatever the size of the maps."""
  levels = [
    cell_grid([(size, size)], (size * stride, size * stride))
    for size, stride in zip(facts["sizes"], facts["strides"], strict=True)
  ]
  return CellGrid(*map(jnp.concatenate, zip(*levels, strict=True)))


def _truth(golden, case: str, batch_size: int, padding: int = 5) -> dict:
  """Fields of a batch; the values of padding boxes must not matter."""
  boxes = np.tile(np.array([100, 80, 220, 210], np.float32), (batch_size, padding, 1))
  label = np.full((batch_size, padding), 6, np.int32)
  box_mask = np.zeros((batch_size, padding), bool)
  for i in range(batch_size):
    rows = golden.expect(f"{case}/labels{i}")
    center, size = rows[:, :2], rows[:, 2:4]
    boxes[i, : len(rows)] = np.concatenate([center - size / 2, center + size / 2], axis=1)
    label[i, : len(rows)] = rows[:, 4]
    box_mask[i, : len(rows)] = True
  truth = {"boxes": boxes, "label": label, "box_mask": box_mask, "mask": np.ones(batch_size, bool)}
  return {name: jnp.asarray(value) for name, value in truth.items()}


def _batch(golden, case: str, batch_size: int, image_size: int) -> dict:
  return _truth(golden, case, batch_size) | {
    "image": jnp.zeros((batch_size, image_size, image_size, 3))
  }


@pytest.mark.parametrize("case", LOSSES)
def test_loss_and_gradient_equal_the_released_program(golden, with_gradient, case):
  facts, output = golden.train[case], _output(golden, case)
  truth = _truth(golden, case, output.levels[0].shape[0])
  loss_fn = functools.partial(detection_loss, grid=_released_grid(facts), **truth)
  loss, grads = jax.jit(with_gradient(loss_fn))(output)

  parts = loss.parts
  np.testing.assert_allclose(loss.total, facts["loss"], rtol=1e-5)
  assert (loss.weight, loss.weight_name) == (sum(facts["num_fg"]), "num_matched")
  count = max(sum(facts["num_fg"]), 1)
  np.testing.assert_allclose(parts["iou"] * count / 5, facts["loss_iou_sum"], rtol=1e-5)
  np.testing.assert_allclose(parts["objectness"] * count, facts["loss_obj_sum"], rtol=1e-5)
  np.testing.assert_allclose(parts["class"] * count, facts["loss_cls_sum"], rtol=1e-5)
  assert set(parts) == {"iou", "objectness", "class"}
  np.testing.assert_allclose(loss.total, sum(parts.values()), rtol=1e-6)
  for level, grad in enumerate(grads.levels):
    grad = np.asarray(grad).transpose(0, 3, 1, 2)
    assert golden.rel_l2(f"{case}/raw_grad{level}", grad) < 1e-4


def test_task_takes_strides_from_the_image(golden):
  """On the consistent maps the released strides are input size / map size."""
  output = _output(golden, "loss_40_20_10")
  loss = _loss(output, _batch(golden, "loss_40_20_10", 3, 320))
  np.testing.assert_allclose(loss.total, golden.train["loss_40_20_10"]["loss"], rtol=1e-5)
  # The first map of 20 cells then has stride 16, not 8 as in the released loss.
  output = _output(golden, "loss_20_20_10")
  loss = _loss(output, _batch(golden, "loss_20_20_10", 3, 320))
  assert abs(loss.total / golden.train["loss_20_20_10"]["loss"] - 1) > 0.01


def test_padding_changes_nothing(golden, with_gradient):
  case, output = "loss_conflict", _output(golden, "loss_conflict")
  grid = _released_grid(golden.train[case])
  loss = jax.jit(detection_loss)(output, grid, **_truth(golden, case, 2))
  # More padding boxes, and a masked example with boxes.
  padded = jax.tree.map(lambda x: jnp.concatenate([x, x[:1]]), _truth(golden, case, 2, padding=9))
  padded["mask"] = jnp.array([True, True, False])
  larger = DetectorOutput(tuple(jnp.concatenate([x, 3 * x[:1]]) for x in output.levels))
  other, grads = jax.jit(with_gradient(detection_loss))(larger, grid, **padded)
  chex.assert_trees_all_close(other, loss, rtol=1e-6)
  for grad in grads.levels:
    assert grad[:2].any()
    assert not grad[2].any()


def test_losses_of_images_add_up(golden):
  """The sums add up, not the means: the divisor is that of the whole batch."""
  case, output = "loss_40_20_10", _output(golden, "loss_40_20_10")
  batch = _batch(golden, case, 3, 320)
  whole = _loss(output, batch)
  total, losses = 0.0, []
  for i in range(3):
    one = DetectorOutput(tuple(x[i : i + 1] for x in output.levels))
    losses.append(_loss(one, jax.tree.map(lambda x, i=i: x[i : i + 1], batch)))
    total += losses[-1].total * max(losses[-1].weight, 1)
  np.testing.assert_allclose(total / whole.weight, whole.total, rtol=1e-6)
  chex.assert_trees_all_close(merge_losses(losses), whole, rtol=1e-6)


def test_two_devices_equal_one(golden, with_gradient):
  case, output = "loss_conflict", _output(golden, "loss_conflict")
  batch = _batch(golden, case, 2, 320)
  mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  step = with_gradient(TASK.loss)
  loss, grads = jax.jit(step)(output, batch)
  args = jax.device_put((output, batch), sharding)
  compiled = jax.jit(step, in_shardings=sharding).lower(*args).compile()
  assert "all-gather" not in compiled.as_text()  # each device assigns its own images only
  sharded = compiled(*args)
  np.testing.assert_allclose(sharded[0].total, loss.total, rtol=1e-6)
  assert sharded[0].weight == loss.weight == 10
  for a, b in zip(sharded[1].levels, grads.levels, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_bfloat16_maps_give_a_float32_loss(golden):
  output = _output(golden, "loss_no_gt")
  half = DetectorOutput(tuple(x.astype(jnp.bfloat16) for x in output.levels))
  rounded = DetectorOutput(tuple(x.astype(jnp.float32) for x in half.levels))
  batch = _batch(golden, "loss_no_gt", 2, 32)
  loss = _loss(half, batch)
  assert loss.total.dtype == jnp.float32
  # Two programs: a sum of 1000 float32 with errors of random sign is off by 30 * 6e-8.
  np.testing.assert_allclose(loss.total, _loss(rounded, batch).total, rtol=1e-5)


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


def test_an_unlabelled_box_counts_for_all_but_the_class():
  """By hand: two cells of 32x64 pixels; the second box has 3/4 of the area of its prediction."""
  size = float(np.log(0.25))
  output = _row_of_cells((0.5, 0.5, size, size, 0, 1, -1), (0.5, 0.5, size, size, 0, 2, 0))
  task = DetectionTask(("a", "b"))
  batch = {
    "image": jnp.zeros((1, 64, 64, 3)),
    "boxes": jnp.array([[[12.0, 24, 20, 40], [44, 28, 52, 40]]]),
    "label": jnp.array([[0, UNLABELLED]]),
    "box_mask": jnp.ones((1, 2), bool),
    "mask": jnp.ones(1, bool),
  }
  run = jax.jit(jax.value_and_grad(lambda output, batch: _total(task, output, batch), has_aux=True))
  (_, loss), grads = run(output, batch)
  assert loss.weight == 2
  np.testing.assert_allclose(loss.parts["iou"], 5 * (1 - 0.75**2) / 2, rtol=1e-5)
  np.testing.assert_allclose(loss.parts["objectness"], np.log(2), rtol=1e-6)
  # The first cell: targets (1, 0) for logits (1, -1), each with the loss log(1 + 1/e).
  np.testing.assert_allclose(loss.parts["class"], np.log1p(np.exp(-1)), rtol=1e-5)
  gradient = np.asarray(grads.levels[0])[0, 0]
  assert gradient[0, 5:].all()
  assert not gradient[1, 5:].any()
  assert gradient[1, 3] != 0  # height
  assert gradient[1, 4] != 0  # objectness
  # The same box with a label adds its class: targets (3/4, 0) for logits (2, 0).
  (_, labelled), _ = run(output, batch | {"label": jnp.array([[0, 0]])})
  added = (np.log1p(np.exp(2)) - 2 * 0.75 + np.log(2)) / 2
  np.testing.assert_allclose(labelled.parts["class"] - loss.parts["class"], added, rtol=1e-4)
  assert labelled.parts["iou"] == loss.parts["iou"]


def _total(task, output, batch):
  loss = task.loss(output, batch)
  return loss.total, loss


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
  kept, cells = task.postprocess_cells(output, image_size=64, **settings)
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


def test_maps_with_wrong_number_of_classes(golden):
  task = DetectionTask(("happy", "sad"))
  message = r"\(2, 4, 4, 12\) has 12 channels; 2 classes need 5 \+ 2"
  with pytest.raises(ValueError, match=message):
    task.loss(_output(golden, "loss_no_gt"), _batch(golden, "loss_no_gt", 2, 32))


def test_task_is_a_value():
  assert DetectionTask(NAMES) == TASK
  assert hash(DetectionTask(NAMES)) == hash(TASK)
  assert TASK.num_classes == 7
  assert TASK.metrics().class_names == NAMES
  assert TASK.primary_metric == "map50"

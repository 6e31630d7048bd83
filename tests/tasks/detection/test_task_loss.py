"""The detector's loss."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ferjax.expressions import UNLABELLED
from ferjax.ops.boxes import CellGrid, cell_grid
from ferjax.tasks.base import merge_losses
from ferjax.tasks.detection.task import DetectionTask, detection_loss
from ferjax.typing import DetectorOutput

NAMES = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
TASK = DetectionTask(NAMES)
LOSSES = ["loss_40_20_10", "loss_20_20_10", "loss_conflict", "loss_no_gt"]


_loss = jax.jit(TASK.loss)


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


def test_maps_with_wrong_number_of_classes(golden):
  task = DetectionTask(("happy", "sad"))
  message = r"\(2, 4, 4, 12\) has 12 channels; 2 classes need 5 \+ 2"
  with pytest.raises(ValueError, match=message):
    task.loss(_output(golden, "loss_no_gt"), _batch(golden, "loss_no_gt", 2, 32))

"""Suppression by ONNX's operator, against `ferjax.ops.nms`."""

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from ferjax.export.onnx.suppression import suppress
from ferjax.export.onnx.translate import BATCH, translate
from ferjax.tasks.detection.task import Candidates, DetectionTask

CELLS, CLASSES, KEPT = 60, ("a", "b"), 6
SETTINGS = {"score_threshold": 0.25, "iou_threshold": 0.4, "max_detections": KEPT}
SHAPES = {
  "boxes": ((4,), np.float32),
  "scores": ((), np.float32),
  "labels": ((), np.int32),
  "class_scores": ((2,), np.float32),
  "input_boxes": ((4,), np.float32),
  "eligible": ((), np.float32),
}


@pytest.fixture(scope="module")
def session():
  inputs = {name: ((BATCH, CELLS, *shape), dtype) for name, (shape, dtype) in SHAPES.items()}
  builder, cells = translate(lambda *arrays: dict(zip(SHAPES, arrays, strict=True)), inputs)
  for name, value in suppress(builder, cells, **SETTINGS).items():
    builder.graph.add_output(f"{name}_out", builder.name_of(value), value.dtype, value.shape[1:])
    builder.graph.outputs[-1].shape = (BATCH, *value.shape[1:])
  model = builder.graph.to_model({}, "test").SerializeToString()
  options = onnxruntime.SessionOptions()
  options.log_severity_level = 3
  return onnxruntime.InferenceSession(model, options)


def _cells(batch, seed):
  """Random boxes; some scores are equal to each other, to the threshold, or not eligible."""
  rng = np.random.default_rng(seed)
  low = rng.uniform(0, 20, (batch, CELLS, 2))
  boxes = np.concatenate([low, low + rng.uniform(0, 10, low.shape)], -1).astype(np.float32)
  class_scores = (rng.integers(0, 9, (batch, CELLS, 2)) / 8).astype(np.float32)
  scores = class_scores.max(-1)
  eligible = np.where(rng.random(scores.shape) < 0.2, -np.inf, scores).astype(np.float32)
  labels = class_scores.argmax(-1).astype(np.int32)
  return Candidates(2 * boxes, scores, labels, class_scores, boxes, eligible)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("change", [{}, {"score_threshold": 0.9}, {"iou_threshold": 0.0}])
def test_like_greedy_suppression(session, batch, change):
  cells = _cells(batch, seed=batch)
  thresholds = {name: np.asarray(value, np.float32) for name, value in change.items()}
  names = [x.name.removesuffix("_out") for x in session.get_outputs()]
  found = dict(zip(names, session.run(None, cells._asdict() | thresholds), strict=True))
  task = DetectionTask(CLASSES)
  arrays = jax.tree.map(jnp.asarray, cells)
  expected, _ = task.select(arrays, per_class_nms=False, **(SETTINGS | change))
  for name, value in expected._asdict().items():
    np.testing.assert_array_equal(found[name], value)


def test_no_face(session):
  cells = _cells(2, seed=0)
  cells = cells._replace(eligible=np.full_like(cells.eligible, -np.inf))
  found = session.run(None, cells._asdict())
  assert not any(x.any() for x in found)

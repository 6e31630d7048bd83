"""Non-maximum suppression by ONNX's operator, with the fixed-size output of `ferjax.typing`."""

import numpy as np

from ferjax.export.onnx.graph import Graph
from ferjax.export.onnx.values import Builder, Value
from ferjax.typing import Detections

SCORE_THRESHOLD, IOU_THRESHOLD = "score_threshold", "iou_threshold"
_BELOW_ALL, _BETWEEN = np.float32(-1), np.float32(-0.5)


def suppress(
  builder: Builder,
  cells: dict[str, Value],
  *,
  score_threshold: float,
  iou_threshold: float,
  max_detections: int,
) -> dict[str, Value]:
  """Adds the operators after `ferjax.tasks.detection.task.Candidates`.

  The thresholds are inputs of the graph with these defaults. Faces get one box, whatever its class.

  Returns:
    The fields of `Detections`.
  """
  graph = builder.graph
  defaults = {SCORE_THRESHOLD: score_threshold, IOU_THRESHOLD: iou_threshold}
  for name, value in defaults.items():
    graph.add_default(name, np.float32(value))
  names = {field: builder.name_of(value) for field, value in cells.items()}
  # The operator drops scores up to its threshold, and ours drops scores below it.
  is_eligible = graph.add("GreaterOrEqual", names["eligible"], SCORE_THRESHOLD)
  below = graph.constant(_BELOW_ALL)
  scores = graph.add("Where", is_eligible, names["eligible"], below)
  selected = graph.add(
    "NonMaxSuppression",
    names["input_boxes"],
    graph.add("Unsqueeze", scores, graph.constant([1], np.int64)),
    graph.constant([max_detections], np.int64),
    graph.add("Unsqueeze", IOU_THRESHOLD, graph.constant([0], np.int64)),
    graph.constant([_BETWEEN]),
  )
  rows = _rows_by_image(graph, selected, builder.batch_name, max_detections)
  return _taken(builder, cells, rows, max_detections)


def _rows_by_image(graph: Graph, selected: str, batch: str, size: int) -> str:
  """The selected cells of each image, [b size], padded with -1.

  `selected` has the rows (image, class, cell), those of an image by decreasing score.
  """
  image, cell = (
    graph.add("Gather", selected, graph.constant(column, np.int64), axis=1) for column in (0, 2)
  )
  scalar = graph.add("Squeeze", batch, graph.constant([0], np.int64))
  zero, one = (graph.constant(value, np.int64) for value in (0, 1))
  images = graph.add("Range", zero, scalar, one)
  column = graph.add("Unsqueeze", image, graph.constant([1], np.int64))
  belongs = graph.cast(graph.add("Equal", column, images), np.int64)  # [selected b]
  count = graph.add("CumSum", belongs, zero)
  own = graph.add("ReduceSum", graph.add("Mul", belongs, count), graph.constant([1], np.int64))
  place = graph.add("Concat", column, graph.add("Sub", own, one), axis=1)
  shape = graph.add("Concat", batch, graph.constant([size], np.int64), axis=0)
  empty = graph.add("Expand", graph.constant(-1, np.int64), shape)
  return graph.add("ScatterND", empty, place, cell)


def _taken(builder: Builder, cells: dict[str, Value], rows: str, size: int) -> dict[str, Value]:
  """The rows [b size] of each field; zeros where a row is negative."""
  graph = builder.graph
  mask = graph.add("GreaterOrEqual", rows, graph.constant(0, np.int64))
  index = graph.add("Max", rows, graph.constant(0, np.int64))
  index = graph.add("Unsqueeze", index, graph.constant([2], np.int64))
  taken = {}
  for field in Detections._fields:
    if field == "mask":
      continue
    value = cells[field]
    found = graph.add("GatherND", builder.name_of(value), index, batch_dims=1)
    trailing = len(value.shape) - 2
    wide = mask
    if trailing:
      wide = graph.add("Unsqueeze", mask, graph.constant([2], np.int64))
    kept = graph.add("Where", wide, found, graph.constant(0, value.dtype))
    taken[field] = builder.tensor(kept, (builder.batch, size, *value.shape[2:]), value.dtype)
  taken["mask"] = builder.tensor(mask, (builder.batch, size), np.bool_)
  return taken

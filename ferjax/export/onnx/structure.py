"""Primitives that move elements, and reductions."""

from typing import Any

import numpy as np

from ferjax.export.onnx.values import Builder, Value, constant

_LAST = np.iinfo(np.int64).max


def _operand_shape(equation: Any, index: int = 0) -> tuple:
  return tuple(equation.invars[index].aval.shape)


def _out_shape(equation: Any) -> tuple:
  return tuple(equation.outvars[0].aval.shape)


def broadcast(builder: Builder, equation: Any, value: Value) -> Value:
  """Adds axes of size 1; the values of the new axes and of axes of size 1 are not repeated."""
  dimensions = equation.params["broadcast_dimensions"]
  shape = _out_shape(equation)
  sizes: list[Any] = [1] * len(shape)
  for size, axis in zip(value.shape, dimensions, strict=True):
    sizes[axis] = size
  if value.array is not None:
    return constant(value.array.reshape(sizes))
  if len(dimensions) == len(shape):
    return value
  # Each new axis comes after its neighbour, wherever that is in the tensor.
  order = [dimensions[axis] for axis in value.order]
  for axis in range(len(shape)):
    if axis not in dimensions:
      order.insert(order.index(axis - 1) + 1 if axis else 0, axis)
  added = [order.index(axis) for axis in range(len(shape)) if axis not in dimensions]
  name = builder.graph.add("Unsqueeze", value.name, builder.graph.constant(sorted(added), np.int64))
  return builder.tensor(name, sizes, value.dtype, order)


def reshape(builder: Builder, equation: Any, value: Value) -> Value:
  if equation.params.get("dimensions") is not None:
    raise NotImplementedError("a reshape with another order of dimensions")
  shape = _out_shape(equation)
  if shape == _operand_shape(equation):
    return value
  return builder.reshape(builder.full(value, _operand_shape(equation)), shape)


def _squeeze(builder: Builder, equation: Any, value: Value) -> Value:
  dropped = equation.params["dimensions"]
  return _without_axes(builder, value, dropped, "Squeeze")


def _without_axes(builder: Builder, value: Value, axes, operator: str, **attributes) -> Value:
  """Applies an operator that removes axes."""
  value = builder.as_tensor(value)
  positions = sorted(value.order.index(axis) for axis in axes)
  name = builder.graph.add(
    operator, value.name, builder.graph.constant(positions, np.int64), **attributes
  )
  kept = [axis for axis in range(len(value.shape)) if axis not in axes]
  order = [kept.index(axis) for axis in value.order if axis not in axes]
  return builder.tensor(name, [value.shape[axis] for axis in kept], value.dtype, order)


def _transpose(builder: Builder, equation: Any, value: Value) -> Value:
  return builder.transpose(value, equation.params["permutation"])


def _concatenate(builder: Builder, equation: Any, *values: Value) -> Value:
  shapes = [_operand_shape(equation, i) for i in range(len(values))]
  rank, dimension = len(shapes[0]), equation.params["dimension"]
  order = builder.common_order(values, rank)
  names = [
    builder.name_of(builder.full(value, shape), order)
    for value, shape in zip(values, shapes, strict=True)
  ]
  name = builder.graph.add("Concat", *names, axis=order.index(dimension))
  return builder.tensor(name, _out_shape(equation), values[0].dtype, order)


def _stack(builder: Builder, equation: Any, *values: Value) -> Value:
  shape, axis = _operand_shape(equation), equation.params["axis"]
  names = []
  for value in values:
    name = builder.name_of(builder.full(value, shape))
    names.append(builder.graph.add("Unsqueeze", name, builder.graph.constant([axis], np.int64)))
  name = builder.graph.add("Concat", *names, axis=axis)
  return builder.tensor(name, _out_shape(equation), values[0].dtype)


def _tile(builder: Builder, equation: Any, value: Value) -> Value:
  value = builder.as_tensor(builder.full(value, _operand_shape(equation)))
  repeats = [equation.params["reps"][axis] for axis in value.order]
  name = builder.graph.add("Tile", value.name, builder.graph.constant(repeats, np.int64))
  return builder.tensor(name, _out_shape(equation), value.dtype, value.order)


def _split(builder: Builder, equation: Any, value: Value) -> list[Value]:
  value = builder.as_tensor(builder.full(value, _operand_shape(equation)))
  axis, sizes = equation.params["axis"], equation.params["sizes"]
  names = builder.graph.add_many(
    "Split",
    value.name,
    builder.graph.constant(sizes, np.int64),
    outputs=len(sizes),
    axis=value.order.index(axis),
  )
  return [
    builder.tensor(name, variable.aval.shape, value.dtype, value.order)
    for name, variable in zip(names, equation.outvars, strict=True)
  ]


def _pad(builder: Builder, equation: Any, value: Value, fill: Value) -> Value:
  margins = equation.params["padding_config"]
  if any(low < 0 or high < 0 or inside for low, high, inside in margins):
    raise NotImplementedError("padding between elements, or a negative one")
  if not any(low or high for low, high, _ in margins):
    return value
  value = builder.full(value, _operand_shape(equation))
  order = value.order or tuple(range(len(margins)))
  pads = [margins[axis][0] for axis in order] + [margins[axis][1] for axis in order]
  name = builder.graph.add(
    "Pad",
    builder.name_of(value, order),
    builder.graph.constant(pads, np.int64),
    builder.name_of(fill),
  )
  return builder.tensor(name, _out_shape(equation), value.dtype, order)


def _slice(builder: Builder, equation: Any, value: Value) -> Value:
  starts, ends = equation.params["start_indices"], equation.params["limit_indices"]
  steps = equation.params["strides"] or (1,) * len(starts)
  shape = _operand_shape(equation)
  changed = [
    axis
    for axis, size in enumerate(shape)
    if (starts[axis], steps[axis]) != (0, 1) or ends[axis] != size
  ]
  starts, ends, steps = ([x[axis] for axis in changed] for x in (starts, ends, steps))
  value = builder.full(value, shape)
  return _sliced(builder, value, changed, starts, ends, steps, _out_shape(equation))


def _sliced(builder: Builder, value: Value, axes, starts, ends, steps, shape) -> Value:
  value = builder.as_tensor(value)
  positions = [value.order.index(axis) for axis in axes]
  arguments = (builder.graph.constant(x, np.int64) for x in (starts, ends, positions, steps))
  name = builder.graph.add("Slice", value.name, *arguments)
  return builder.tensor(name, shape, value.dtype, value.order)


def _reverse(builder: Builder, equation: Any, value: Value) -> Value:
  axes = list(equation.params["dimensions"])
  value = builder.full(value, _operand_shape(equation))
  ends = [-_LAST] * len(axes)
  steps = [-1] * len(axes)
  return _sliced(builder, value, axes, [-1] * len(axes), ends, steps, value.shape)


def _reduction(operator: str):
  def handle(builder: Builder, equation: Any, value: Value) -> Value:
    axes = equation.params["axes"]
    value = builder.full(value, _operand_shape(equation))
    return _without_axes(builder, value, axes, operator, keepdims=0)

  return handle


def _extreme_index(operator: str):
  def handle(builder: Builder, equation: Any, value: Value) -> Value:
    (axis,) = equation.params["axes"]
    value = builder.as_tensor(builder.full(value, _operand_shape(equation)))
    position = value.order.index(axis)
    name = builder.graph.add(operator, value.name, axis=position, keepdims=0)
    dtype = np.dtype(equation.params["index_dtype"])
    kept = [i for i in range(len(value.shape)) if i != axis]
    order = [kept.index(i) for i in value.order if i != axis]
    cast = builder.graph.cast(name, dtype)
    return builder.tensor(cast, _out_shape(equation), dtype, order)

  return handle


def _iota(builder: Builder, equation: Any) -> Value:
  """Values are equal along all axes but one."""
  axis, shape = equation.params["dimension"], _out_shape(equation)
  sizes = [size if i == axis else 1 for i, size in enumerate(shape)]
  return constant(np.arange(shape[axis], dtype=equation.params["dtype"]).reshape(sizes))


def _gather(builder: Builder, equation: Any, value: Value, index: Value) -> Value:
  """A slice at a constant position, or rows of each example."""
  value = builder.full(value, _operand_shape(equation))
  if index.array is not None and index.array.ndim == 1:
    return _window(builder, equation, value, index.array)
  return _rows(builder, equation, value, builder.full(index, _operand_shape(equation, 1)))


def _window(builder: Builder, equation: Any, value: Value, start: np.ndarray) -> Value:
  """As indexing with constants is traced for a batch of symbolic size."""
  numbers, shape = equation.params["dimension_numbers"], value.shape
  sizes = equation.params["slice_sizes"]
  axes = list(numbers.start_index_map)
  starts = [int(x) for x in start]
  ends = [x + sizes[axis] for x, axis in zip(starts, axes, strict=True)]
  inside = all(
    isinstance(shape[axis], int) and low >= 0 and high <= shape[axis]
    for axis, low, high in zip(axes, starts, ends, strict=True)
  )
  whole = all(sizes[axis] == shape[axis] for axis in range(len(shape)) if axis not in axes)
  if numbers.operand_batching_dims or not inside or not whole:
    raise NotImplementedError(f"a gather with {numbers}")
  value = _sliced(builder, value, axes, starts, ends, [1] * len(axes), sizes)
  if not numbers.collapsed_slice_dims:
    return value
  return _without_axes(builder, value, numbers.collapsed_slice_dims, "Squeeze")


def _rows(builder: Builder, equation: Any, value: Value, index: Value) -> Value:
  """As `jnp.take_along_axis` takes them from [b n c] with indices [b m 1]."""
  numbers = equation.params["dimension_numbers"]
  if not (
    numbers.operand_batching_dims == numbers.start_indices_batching_dims == (0,)
    and numbers.start_index_map == numbers.collapsed_slice_dims == (1,)
    and tuple(equation.params["slice_sizes"]) == (1, 1, *value.shape[2:])
    and numbers.offset_dims == tuple(range(len(_out_shape(equation))))[2:]
  ):
    raise NotImplementedError(f"a gather with {numbers}")
  wide = builder.graph.cast(builder.name_of(index), np.int64)
  name = builder.graph.add("GatherND", builder.name_of(value), wide, batch_dims=1)
  return builder.tensor(name, _out_shape(equation), value.dtype)


HANDLERS = {
  "broadcast_in_dim": broadcast,
  "reshape": reshape,
  "squeeze": _squeeze,
  "transpose": _transpose,
  "concatenate": _concatenate,
  "stack": _stack,
  "tile": _tile,
  "split": _split,
  "pad": _pad,
  "slice": _slice,
  "rev": _reverse,
  "reduce_sum": _reduction("ReduceSum"),
  "reduce_max": _reduction("ReduceMax"),
  "reduce_min": _reduction("ReduceMin"),
  "reduce_prod": _reduction("ReduceProd"),
  "argmax": _extreme_index("ArgMax"),
  "argmin": _extreme_index("ArgMin"),
  "iota": _iota,
  "gather": _gather,
}

"""Convolutions, matrix products and pooling."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ferjax.export.onnx.values import Builder, Value, constant

_CHANNELS_FIRST = (0, 3, 1, 2)  # the tensor's axes, of a map [b h w c]


def _convolution(builder: Builder, equation: Any, value: Value, kernel: Value) -> Value:
  """A convolution of maps by constant kernels."""
  params = equation.params
  numbers = params["dimension_numbers"]
  two_dimensional = len(params["window_strides"]) == 2 and params["batch_group_count"] == 1
  if not two_dimensional or any(x != 1 for x in params["lhs_dilation"]) or kernel.array is None:
    raise NotImplementedError(
      "a convolution that is not of maps, is transposed, or has a kernel that is no parameter"
    )
  value = builder.full(value, equation.invars[0].aval.shape)
  (top, bottom), (left, right) = params["padding"]
  name = builder.graph.add(
    "Conv",
    builder.name_of(value, numbers.lhs_spec),
    builder.graph.constant(kernel.array.transpose(numbers.rhs_spec)),
    strides=list(params["window_strides"]),
    pads=[top, left, bottom, right],
    dilations=list(params["rhs_dilation"]),
    group=params["feature_group_count"],
    kernel_shape=[kernel.shape[axis] for axis in numbers.rhs_spec[2:]],
  )
  aval = equation.outvars[0].aval
  return builder.tensor(name, aval.shape, aval.dtype, numbers.out_spec)


def _dot(builder: Builder, equation: Any, left: Value, right: Value) -> Value:
  """A product of matrices, which may be stacked, or several sums of products."""
  (left_axes, right_axes), (left_batch, right_batch) = equation.params["dimension_numbers"]
  avals = [variable.aval for variable in equation.invars]
  left, right = (builder.full(x, a.shape) for x, a in zip((left, right), avals, strict=True))
  sides = (left, left_axes, left_batch), (right, right_axes, right_batch)
  aval = equation.outvars[0].aval
  # The constant, or else the one with fewer axes, is on the right.
  swap = left.is_constant or (not right.is_constant and len(left.shape) < len(right.shape))
  (x, x_axes, x_batch), (y, y_axes, y_batch) = sides[::-1] if swap else sides
  rows, columns = _others(x, x_axes, x_batch), _others(y, y_axes, y_batch)
  x = builder.transpose(x, (*x_batch, *rows, *x_axes))
  y = builder.transpose(y, (*y_batch, *y_axes, *columns))
  n, m, k = len(x_batch), len(rows), len(columns)
  if (n, m, len(x_axes), k) == (0, 3, 1, 1) and y.array is not None:
    return _pointwise(builder, aval, x, y.array, swap)
  x = _merged(builder, x, n + m, len(x_axes))
  y = _merged(builder, _merged(builder, y, n + len(y_axes), k), n, len(y_axes))
  # The right factor's axes of size 1 are for the rows on the left but one.
  ones = (1,) * (m - 1 if n and m else 0)
  y = builder.reshape(y, (*y.shape[:n], *ones, *y.shape[n:]))
  x = x if m else builder.reshape(x, (*x.shape[:n], 1, *x.shape[n:]))
  product = builder.graph.add("MatMul", builder.name_of(x), builder.name_of(y))
  # JAX's result has the axes batch, left, right.
  axes = [*range(n + m + k)]
  order = [*axes[:n], *axes[n + k :], *axes[n : n + k]] if swap else axes
  shape = [aval.shape[axis] for axis in order]
  if k == 1 and m:
    return builder.tensor(product, aval.shape, aval.dtype, order)
  merged = (*x.shape[: n + max(m, 1)], y.shape[-1])
  product = builder.reshape(builder.tensor(product, merged, aval.dtype), shape)
  return builder.transpose(product, [order.index(axis) for axis in axes])


def _others(x: Value, axes: Sequence[int], batch: Sequence[int]) -> list[int]:
  return [axis for axis in range(len(x.shape)) if axis not in axes and axis not in batch]


def _merged(builder: Builder, x: Value, start: int, count: int) -> Value:
  """Merges axes into one; adds one of size 1 if there is none."""
  if count == 1:
    return x
  size = math.prod(x.shape[start : start + count])
  return builder.reshape(x, (*x.shape[:start], size, *x.shape[start + count :]))


def _pointwise(builder: Builder, aval: Any, x: Value, kernel: np.ndarray, swap: bool) -> Value:
  """A product of a map's cells [b h w c] by a matrix [c o], as a convolution by a kernel of 1x1.

  Channels come first, so that its neighbours, which are convolutions, need no transposition.
  """
  name = builder.graph.add(
    "Conv",
    builder.name_of(x, _CHANNELS_FIRST),
    builder.graph.constant(kernel.T[:, :, None, None]),
    kernel_shape=[1, 1],
  )
  product = builder.tensor(name, (*x.shape[:3], kernel.shape[1]), aval.dtype, _CHANNELS_FIRST)
  return builder.transpose(product, (3, 0, 1, 2)) if swap else product


def _pooling(operator: str, **attributes: Any):
  def handle(builder: Builder, equation: Any, value: Value) -> Value:
    params = equation.params
    window, strides, padding = (
      params[x] for x in ("window_dimensions", "window_strides", "padding")
    )
    dilated = any(x != 1 for key in ("base_dilation", "window_dilation") for x in params[key])
    if len(window) != 4 or dilated or {window[0], window[3], strides[0], strides[3]} != {1}:
      raise NotImplementedError("a reduction of windows other than those of a map [b h w c]")
    value = builder.full(value, equation.invars[0].aval.shape)
    name = builder.graph.add(
      operator,
      builder.name_of(value, _CHANNELS_FIRST),
      kernel_shape=list(window[1:3]),
      strides=list(strides[1:3]),
      pads=[padding[axis][side] for side in (0, 1) for axis in (1, 2)],
      **attributes,
    )
    aval = equation.outvars[0].aval
    return builder.tensor(name, aval.shape, aval.dtype, _CHANNELS_FIRST)

  return handle


def _sum_of_windows(builder: Builder, equation: Any, value: Value) -> Value:
  mean = _pooling("AveragePool", count_include_pad=1)(builder, equation, value)
  size = constant(np.float32(math.prod(equation.params["window_dimensions"])))
  return builder.elementwise(
    lambda *names: builder.graph.add("Mul", *names), mean, size, dtype=mean.dtype, rank=4
  )


HANDLERS = {
  "conv_general_dilated": _convolution,
  "dot_general": _dot,
  "reduce_window_max": _pooling("MaxPool"),
  "reduce_window_sum": _sum_of_windows,
}

"""The values of a jaxpr during translation.

JAX's maps are [b h w c] and ONNX convolves [b c h w]. A transposition is therefore not an operator
but a property of a value, the `order` of its axes, until an operator needs another order. So a
network of convolutions and elementwise operators has none between them. Broadcasting is not an
operator either, because ONNX's elementwise operators broadcast.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ferjax.export.onnx.graph import Graph
from ferjax.typing import DimSize

Shape = tuple[DimSize, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
  """A constant, or a tensor of the graph.

  Attributes:
    shape: its size along each axis in JAX's order; 1 along an axis whose values are all equal.
    dtype: of its elements.
    array: of a constant, in JAX's order.
    name: of a tensor.
    order: of a tensor: axis i of the tensor is axis order[i] of the value.
  """

  shape: Shape
  dtype: np.dtype
  array: np.ndarray | None = None
  name: str = ""
  order: tuple[int, ...] = ()

  @property
  def is_constant(self) -> bool:
    return self.array is not None


def constant(array: Any) -> Value:
  """A constant value."""
  array = np.asarray(array)
  return Value(array.shape, array.dtype, array)


class Builder:
  """Adds operators to a graph.

  Attributes:
    graph: the graph, or the body of a loop.
    batch: the symbolic size of the batch.
    batch_name: of an int64 tensor [1] with the size of the batch.
  """

  def __init__(self, graph: Graph, batch: DimSize, batch_name: str):
    self.graph, self.batch, self.batch_name = graph, batch, batch_name

  def body(self) -> "Builder":
    """A builder of a subgraph."""
    return Builder(Graph(self.graph), self.batch, self.batch_name)

  def tensor(
    self, name: str, shape: Sequence[DimSize], dtype: Any, order: Sequence[int] | None = None
  ) -> Value:
    """A value that a tensor has; `shape` is in JAX's order."""
    order = tuple(range(len(shape))) if order is None else tuple(order)
    return Value(tuple(shape), np.dtype(dtype), name=name, order=order)

  def name_of(self, value: Value, order: Sequence[int] | None = None) -> str:
    """The name of a tensor with the axes in this order; None for JAX's order."""
    order = tuple(range(len(value.shape))) if order is None else tuple(order)
    if value.array is not None:
      return self.graph.constant(value.array.transpose(order))
    if value.order == order:
      return value.name
    permutation = [value.order.index(axis) for axis in order]
    return self.graph.add("Transpose", value.name, perm=permutation)

  def as_tensor(self, value: Value) -> Value:
    """The value as a tensor, also if it is a constant."""
    return self.tensor(
      self.name_of(value, value.order or None), value.shape, value.dtype, value.order or None
    )

  def full(self, value: Value, shape: Sequence[DimSize]) -> Value:
    """The value with all of its elements: nothing is left to broadcast."""
    shape = tuple(shape)
    if value.shape == shape:
      return value
    if value.array is not None and all(isinstance(size, int) for size in shape):
      return constant(np.broadcast_to(value.array, shape))
    order = value.order or tuple(range(len(shape)))
    sizes = self.sizes([shape[axis] for axis in order])
    name = self.graph.add("Expand", self.name_of(value, order), sizes)
    return self.tensor(name, shape, value.dtype, order)

  def sizes(self, shape: Sequence[DimSize]) -> str:
    """The name of an int64 tensor with these sizes, which may be multiples of the batch's."""
    if all(isinstance(size, int) for size in shape):
      return self.graph.constant(shape, np.int64)
    return self.graph.add("Concat", *map(self._size, shape), axis=0)

  def _size(self, size: DimSize) -> str:
    if isinstance(size, int):
      return self.graph.constant([size], np.int64)
    factor = size // self.batch
    if not isinstance(factor, int) or factor * self.batch != size:
      raise NotImplementedError(f"the size {size}, which is no multiple of the batch")
    if factor == 1:
      return self.batch_name
    return self.graph.add("Mul", self.batch_name, self.graph.constant([factor], np.int64))

  def transpose(self, value: Value, permutation: Sequence[int]) -> Value:
    """Axis i of the result is axis permutation[i]; adds no operator."""
    if value.array is not None:
      return constant(value.array.transpose(permutation))
    permutation = list(permutation)
    order = [permutation.index(axis) for axis in value.order]
    return self.tensor(value.name, [value.shape[i] for i in permutation], value.dtype, order)

  def reshape(self, value: Value, shape: Sequence[DimSize]) -> Value:
    """All elements of the value, in JAX's order, in another shape."""
    symbolic = [size for size in shape if not isinstance(size, int)]
    if value.array is not None and not symbolic:
      return constant(value.array.reshape(shape))
    if len(symbolic) > 1:
      raise NotImplementedError(f"the shape {tuple(shape)}")
    order = _merged_order(value, shape)
    target = [shape[axis] if isinstance(shape[axis], int) else -1 for axis in order]
    source = self.name_of(value) if order == [*range(len(shape))] else value.name
    name = self.graph.add("Reshape", source, self.graph.constant(target, np.int64))
    return self.tensor(name, shape, value.dtype, order)

  def elementwise(
    self, operation: Callable[..., str], *values: Value, dtype: Any, rank: int
  ) -> Value:
    """Combines values element by element.

    Args:
      operation: takes the names of tensors, and returns the name of the result.
      values: of this rank, or scalars.
      dtype: of the result.
      rank: of the result.
    """
    order = self.common_order([x for x in values if len(x.shape) == rank], rank)
    names = [self.name_of(x, order if len(x.shape) == rank else ()) for x in values]
    shape = _broadcast([x.shape for x in values if len(x.shape) == rank], rank)
    return self.tensor(operation(*names), shape, dtype, order)

  def common_order(self, values: Sequence[Value], rank: int) -> tuple[int, ...]:
    """The order that most values have; of equally frequent ones, not JAX's."""
    default = tuple(range(rank))
    orders = [x.order for x in values if not x.is_constant and x.shape != (1,) * rank]
    if not orders:
      return default
    return max(dict.fromkeys(orders), key=lambda order: (orders.count(order), order != default))


def _broadcast(shapes: Sequence[Shape], rank: int) -> Shape:
  sizes = [{shape[axis] for shape in shapes} - {1} for axis in range(rank)]
  return tuple(next(iter(found)) if found else 1 for found in sizes)


def _merged_order(value: Value, shape: Sequence[DimSize]) -> list[int]:
  """The order of a reshaped tensor.

  Another order than JAX's is kept if the new shape merges axes that are neighbours in the tensor.
  """
  groups, axis = [], 0
  for size in shape:
    group, product = [axis], value.shape[axis] if axis < len(value.shape) else 0
    while product != size and axis + 1 < len(value.shape):
      axis += 1
      group.append(axis)
      product = product * value.shape[axis]
    if product != size:
      return [*range(len(shape))]
    groups.append(group)
    axis += 1
  starts = {group[0]: i for i, group in enumerate(groups)}
  order = [starts[axis] for axis in value.order if axis in starts]
  merged = [axis for i in order for axis in groups[i]]
  return order if merged == [*value.order] else [*range(len(shape))]

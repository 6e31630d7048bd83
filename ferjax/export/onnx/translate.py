"""Translates a jaxpr to an ONNX graph."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from ferjax.export.onnx import elementwise, products, selective_scan, structure
from ferjax.export.onnx.graph import Graph, TensorInfo
from ferjax.export.onnx.values import Builder, Value, constant

BATCH = "b"  # the name of the symbolic size

# Name of a primitive -> its translation.
HANDLERS: dict[str, Callable[..., Any]] = {
  **elementwise.HANDLERS,
  **structure.HANDLERS,
  **products.HANDLERS,
}
# Jitted functions that have an ONNX form of their own.
_FUNCTIONS = {selective_scan.NAME: selective_scan.selective_scan}
# Constants are broadcast without repeating them, also to symbolic sizes.
_LAZY = ("broadcast_in_dim", "iota", "reshape", "transpose")
_ELEMENTWISE = frozenset(elementwise.HANDLERS)


def translate(
  function: Callable[..., dict[str, Any]],
  inputs: Mapping[str, tuple[Sequence[int | str], Any]],
) -> tuple[Builder, dict[str, Value]]:
  """The graph of a function of arrays, without outputs yet.

  Args:
    function: of the inputs, in their order; returns a dict of arrays. Arrays that it captures are
      constants of the graph.
    inputs: name -> (shape, type); "b" is the size of the batch. The first input begins with it.

  Returns:
    The builder, and the function's outputs.

  Raises:
    NotImplementedError: the program has an operation without a translation; the message names it.
  """
  (batch,) = jax.export.symbolic_shape(BATCH)
  shapes = {
    name: tuple(batch if size == BATCH else size for size in shape)
    for name, (shape, _) in inputs.items()
  }
  arguments = [jax.ShapeDtypeStruct(shapes[name], inputs[name][1]) for name in inputs]
  traced = jax.jit(function).trace(*arguments)
  graph = Graph()
  graph.inputs = [TensorInfo(name, dtype, shape) for name, (shape, dtype) in inputs.items()]
  first = graph.inputs[0].name
  builder = Builder(graph, batch, graph.add("Shape", first, start=0, end=1))
  values = [
    _channels_first(builder, builder.tensor(name, shapes[name], dtype))
    for name, (_, dtype) in inputs.items()
  ]
  outputs = _run_closed(builder, traced.jaxpr, values)
  avals = [variable.aval for variable in traced.jaxpr.jaxpr.outvars]
  full = [builder.full(x, aval.shape) for x, aval in zip(outputs, avals, strict=True)]
  return builder, jax.tree.unflatten(jax.tree.structure(traced.out_info), full)


def _channels_first(builder: Builder, value: Value) -> Value:
  """An image is transposed as bytes: a quarter of what it would be later."""
  if len(value.shape) != 4:
    return value
  order = (0, 3, 1, 2)
  return builder.tensor(builder.name_of(value, order), value.shape, value.dtype, order)


def _run_closed(builder: Builder, closed: ClosedJaxpr, values: Sequence[Value]) -> list[Value]:
  return _run(builder, closed.jaxpr, [constant(x) for x in closed.consts], values)


def _run(
  builder: Builder, jaxpr: Jaxpr, constants: Sequence[Value], values: Sequence[Value]
) -> list[Value]:
  known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *values), strict=True))

  def read(variable) -> Value:
    return constant(variable.val) if isinstance(variable, Literal) else known[variable]

  for equation in jaxpr.eqns:
    results = _apply(builder, equation, [read(variable) for variable in equation.invars])
    known.update(zip(equation.outvars, results, strict=True))
  return [read(variable) for variable in jaxpr.outvars]


def _apply(builder: Builder, equation: JaxprEqn, values: list[Value]) -> list[Value]:
  """The values of the equation's results."""
  name, params = equation.primitive.name, equation.params
  if name == "platform_index":  # the branch for other platforms than those that are named
    return [constant(np.int32(len(params["platforms"]) - 1))]
  if name == "cond":
    return _branch(builder, equation, values)
  called = _called(params)
  if called is not None:
    function = _FUNCTIONS.get(params.get("name", ""))
    if function is not None:
      return [function(builder, equation, *values)]
    return _run_closed(builder, called, values)
  if all(value.is_constant for value in values) and name not in _LAZY:
    folded = _fold(equation, values)
    if folded is not None:
      return folded
  if name not in HANDLERS:
    raise NotImplementedError(f"JAX's operation {name}")
  results = HANDLERS[name](builder, equation, *values)
  return results if isinstance(results, list) else [results]


def _called(params: dict[str, Any]) -> ClosedJaxpr | None:
  """The jaxpr of a call: of a jitted function, or one with its own gradient."""
  for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
    if isinstance(called := params.get(name), ClosedJaxpr):
      return called
    if isinstance(called, Jaxpr):
      return ClosedJaxpr(called, ())
  return None


def _branch(builder: Builder, equation: JaxprEqn, values: list[Value]) -> list[Value]:
  index, *arguments = values
  if index.array is None:
    raise NotImplementedError("a condition that depends on the image")
  return _run_closed(builder, equation.params["branches"][int(index.array)], arguments)


def _fold(equation: Any, values: Sequence[Value]) -> list[Value] | None:
  """The results of constants; None if a size is symbolic."""
  arrays: list[Any] = [value.array for value in values]
  shapes = [variable.aval.shape for variable in equation.invars]
  if equation.primitive.name in _ELEMENTWISE:
    ranked = [x for x in arrays if x.ndim]
    shape = np.broadcast_shapes(*(x.shape for x in ranked))
    arrays = [np.broadcast_to(x, shape) if x.ndim else x for x in arrays]
  elif all(isinstance(size, int) for shape in shapes for size in shape):
    arrays = [np.broadcast_to(x, shape) for x, shape in zip(arrays, shapes, strict=True)]
  else:
    return None
  outputs = [size for variable in equation.outvars for size in variable.aval.shape]
  if equation.primitive.name not in _ELEMENTWISE and not all(isinstance(x, int) for x in outputs):
    return None
  results = equation.primitive.bind(*map(jax.numpy.asarray, arrays), **equation.params)
  return [constant(x) for x in (results if equation.primitive.multiple_results else [results])]

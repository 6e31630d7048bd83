"""Elementwise primitives."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ferjax.export.onnx.graph import Graph
from ferjax.export.onnx.values import Builder, Value

Operation = Callable[..., str]  # (graph, *names) -> name

_OPERATORS = {
  "add": "Add",
  "add_any": "Add",
  "sub": "Sub",
  "mul": "Mul",
  "div": "Div",
  "max": "Max",
  "min": "Min",
  "pow": "Pow",
  "neg": "Neg",
  "exp": "Exp",
  "log": "Log",
  "sqrt": "Sqrt",
  "tanh": "Tanh",
  "sin": "Sin",
  "cos": "Cos",
  "erf": "Erf",
  "abs": "Abs",
  "sign": "Sign",
  "floor": "Floor",
  "ceil": "Ceil",
  "logistic": "Sigmoid",
  "eq": "Equal",
  "lt": "Less",
  "le": "LessOrEqual",
  "gt": "Greater",
  "ge": "GreaterOrEqual",
}
_LOGICAL = {"and": "And", "or": "Or", "xor": "Xor", "not": "Not"}
_IDENTITIES = ("copy", "copy_p", "stop_gradient", "optimization_barrier", "reduce_precision")


def _float(graph: Graph, value: float) -> str:
  return graph.constant(np.float32(value))


def _rsqrt(graph: Graph, x: str) -> str:
  return graph.add("Reciprocal", graph.add("Sqrt", x))


def _log1p(graph: Graph, x: str) -> str:
  return graph.add("Log", graph.add("Add", x, _float(graph, 1.0)))


def _expm1(graph: Graph, x: str) -> str:
  return graph.add("Sub", graph.add("Exp", x), _float(graph, 1.0))


def _exp2(graph: Graph, x: str) -> str:
  return graph.add("Exp", graph.add("Mul", x, _float(graph, math.log(2))))


def _erfc(graph: Graph, x: str) -> str:
  return graph.add("Sub", _float(graph, 1.0), graph.add("Erf", x))


def _square(graph: Graph, x: str) -> str:
  return graph.add("Mul", x, x)


def _not_equal(graph: Graph, x: str, y: str) -> str:
  return graph.add("Not", graph.add("Equal", x, y))


def _is_finite(graph: Graph, x: str) -> str:
  return graph.add("Less", graph.add("Abs", x), _float(graph, math.inf))


def _select(graph: Graph, which: str, if_false: str, if_true: str) -> str:
  return graph.add("Where", which, if_true, if_false)


def _clamp(graph: Graph, low: str, x: str, high: str) -> str:
  return graph.add("Min", graph.add("Max", x, low), high)


_FORMULAS: dict[str, Operation] = {
  "rsqrt": _rsqrt,
  "log1p": _log1p,
  "expm1": _expm1,
  "exp2": _exp2,
  "erfc": _erfc,
  "square": _square,
  "ne": _not_equal,
  "is_finite": _is_finite,
  "select_n": _select,
  "clamp": _clamp,
}


def _simple(operator: str) -> Operation:
  return lambda graph, *names: graph.add(operator, *names)


def _handler(operation: Operation):
  def handle(builder: Builder, equation: Any, *values: Value) -> Value:
    aval = equation.outvars[0].aval
    return builder.elementwise(
      lambda *names: operation(builder.graph, *names),
      *values,
      dtype=aval.dtype,
      rank=len(aval.shape),
    )

  return handle


def _identity(builder: Builder, equation: Any, *values: Value) -> Any:
  del builder, equation
  return values[0] if len(values) == 1 else list(values)


def _logical(operator: str):
  elementwise = _handler(_simple(operator))

  def handle(builder: Builder, equation: Any, *values: Value) -> Value:
    if equation.outvars[0].aval.dtype != np.bool_:
      raise NotImplementedError("bitwise operations on integers")
    return elementwise(builder, equation, *values)

  return handle


def _cast(builder: Builder, equation: Any, value: Value) -> Value:
  dtype = np.dtype(equation.params["new_dtype"])
  if dtype == value.dtype:
    return value
  name = builder.graph.cast(builder.name_of(value, value.order), dtype)
  return builder.tensor(name, value.shape, dtype, value.order)


def _round(builder: Builder, equation: Any, value: Value) -> Value:
  if equation.params["rounding_method"] != 1:  # lax.RoundingMethod.TO_NEAREST_EVEN
    raise NotImplementedError("rounding halves away from zero")
  return _handler(_simple("Round"))(builder, equation, value)


def _integer_power(builder: Builder, equation: Any, value: Value) -> Value:
  exponent = equation.params["y"]
  if exponent == 2:
    return _handler(_square)(builder, equation, value)

  def operation(graph: Graph, x: str) -> str:
    return graph.add("Pow", x, graph.constant(exponent, value.dtype))

  return _handler(operation)(builder, equation, value)


HANDLERS = (
  {name: _handler(_simple(operator)) for name, operator in _OPERATORS.items()}
  | {name: _handler(operation) for name, operation in _FORMULAS.items()}
  | {name: _logical(operator) for name, operator in _LOGICAL.items()}
  | dict.fromkeys(_IDENTITIES, _identity)
  | {"convert_element_type": _cast, "round": _round, "integer_pow": _integer_power}
)

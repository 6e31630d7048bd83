"""The cost of a network: parameters, operations, activations, and XLA's analysis.

All except XLA's analysis are counted on the jaxpr of `model.apply` at inference. This computes and
allocates nothing, and does not depend on the backend.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, Var, jaxprs_in_params

# Per state and position: dt * A, exp, * h, v * B, +, * C, +.
FLOPS_PER_SCAN_UPDATE = 7
_ELSEWHERE = "elsewhere"  # the cost outside all parts


@dataclasses.dataclass(frozen=True)
class Cost:
  """Costs of inference; all are additive counts.

  Attributes:
    parameters: all parameters; running statistics are not included.
    executed: parameters that the output depends on.
    multiply_adds: of convolutions, dense layers and matrix products, including zero padding, as
      in most published numbers.
    scan_updates: state updates of the selective scan: batch * paths * positions * channels *
      states.
    activations: output elements of these operations (Radosavovic et al., "Designing Network
      Design Spaces", CVPR 2020); of the scan, the output without the states.
  """

  parameters: int = 0
  executed: int = 0
  multiply_adds: int = 0
  scan_updates: int = 0
  activations: int = 0

  @property
  def flops(self) -> int:
    """2 per multiply-add, `FLOPS_PER_SCAN_UPDATE` per scan update."""
    return 2 * self.multiply_adds + FLOPS_PER_SCAN_UPDATE * self.scan_updates

  def __add__(self, other: "Cost") -> "Cost":
    return Cost(*map(operator.add, dataclasses.astuple(self), dataclasses.astuple(other)))

  def __mul__(self, times: int) -> "Cost":
    return Cost(*(times * x for x in dataclasses.astuple(self)))


def cost_by_part(model: nn.Module, image_shape: tuple[int, int, int, int]) -> dict[str, Cost]:
  """Top-level group of the parameters -> its cost, for images of shape [b h w 3].

  In order of execution; parts that are not executed come last.

  Raises:
    ValueError: the model does not accept the image shape, or a loop has no fixed length.
  """
  variables = _abstract_variables(model, image_shape)
  image = jax.ShapeDtypeStruct(image_shape, jnp.float32)
  jaxpr = jax.make_jaxpr(functools.partial(model.apply, train=False))(variables, image).jaxpr
  paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(variables)]
  parameters = {
    variable: path[1].key
    for path, variable in zip(paths, jaxpr.invars[:-1], strict=True)
    if path[0].key == "params"
  }
  read = {x: None for equation in _live(jaxpr) for x in _variables(equation.invars)}
  costs = {parameters[x]: Cost() for x in read if x in parameters}
  for variable, part in parameters.items():
    size = math.prod(_shape(variable))
    costs[part] = costs.get(part, Cost()) + Cost(size, size if variable in read else 0)
  for scope, cost in _operations(jaxpr):
    part = next((name for name in scope if name in costs), _ELSEWHERE)
    costs[part] = costs.get(part, Cost()) + cost
  return costs


def total_cost(parts: dict[str, Cost]) -> Cost:
  """The sum of the parts."""
  return functools.reduce(operator.add, parts.values(), Cost())


_Operation = tuple[tuple[str, ...], Cost]  # names of the enclosing modules, outermost first


def _abstract_variables(model: nn.Module, image_shape: tuple[int, ...]) -> Any:
  return jax.eval_shape(
    functools.partial(model.init, train=False),
    jax.random.key(0),
    jax.ShapeDtypeStruct(image_shape, jnp.float32),
  )


def _variables(atoms: Sequence[Any]) -> list[Var]:
  """The variables, without literals."""
  return [x for x in atoms if isinstance(x, Var)]


def _live(jaxpr: Jaxpr) -> list[JaxprEqn]:
  """Equations that the outputs depend on, in order."""
  needed = set(_variables(jaxpr.outvars))
  equations = []
  for equation in reversed(jaxpr.eqns):
    if equation.effects or not needed.isdisjoint(equation.outvars):
      equations.append(equation)
      needed.update(_variables(equation.invars))
  return equations[::-1]


def _operations(jaxpr: Jaxpr, scope: tuple[str, ...] = ()) -> Iterator[_Operation]:
  """All counted operations, multiplied by loop lengths; of branches, the most expensive."""
  for equation in _live(jaxpr):
    names = (*scope, *str(equation.source_info.name_stack).split("/"))
    primitive, inner = equation.primitive.name, list(jaxprs_in_params(equation.params))
    count = _PRIMITIVES.get(primitive) or _FUNCTIONS.get(equation.params.get("name", ""))
    if count is not None:
      yield names, count(equation)
    elif primitive == "while":
      raise ValueError(f"a loop in {'/'.join(names)} has no fixed length, so its cost is unknown")
    elif primitive == "cond":
      yield from max((list(_operations(x, names)) for x in inner), key=_flops)
    else:
      times = equation.params["length"] if primitive == "scan" else 1
      for body in inner:
        yield from ((where, cost * times) for where, cost in _operations(body, names))


def _flops(operations: Sequence[_Operation]) -> int:
  return sum(cost.flops for _, cost in operations)


def _dot_general(equation: JaxprEqn) -> Cost:
  (contracted, _), _ = equation.params["dimension_numbers"]
  shape = _shape(equation.invars[0])
  return _multiply_adds(equation, math.prod(shape[axis] for axis in contracted))


def _convolution(equation: JaxprEqn) -> Cost:
  shape = _shape(equation.invars[1])
  features = shape[equation.params["dimension_numbers"].rhs_spec[0]]
  return _multiply_adds(equation, math.prod(shape) // features)


def _dense_conv(equation: JaxprEqn) -> Cost:
  *window, inputs, _ = _shape(equation.invars[1])
  return _multiply_adds(equation, math.prod(window) * inputs)


def _depthwise_conv(equation: JaxprEqn) -> Cost:
  return _multiply_adds(equation, math.prod(_shape(equation.invars[1])[:2]))


def _multiply_adds(equation: JaxprEqn, per_output: int) -> Cost:
  outputs = math.prod(_shape(equation.outvars[0]))
  return Cost(multiply_adds=outputs * per_output, activations=outputs)


def _selective_scan(equation: JaxprEqn) -> Cost:
  outputs, states = math.prod(_shape(equation.outvars[0])), _shape(equation.invars[2])[-1]
  return Cost(scan_updates=outputs * states, activations=outputs)


def _shape(atom: Any) -> tuple[int, ...]:
  return atom.aval.shape


_PRIMITIVES = {"dot_general": _dot_general, "conv_general_dilated": _convolution}
# Jitted functions whose bodies depend on the backend, by name.
_FUNCTIONS = {
  "dense_conv": _dense_conv,
  "depthwise_conv": _depthwise_conv,
  "selective_scan": _selective_scan,
}


@dataclasses.dataclass(frozen=True)
class CompiledCost:
  """XLA's analysis of the programs compiled for the default backend.

  Attributes:
    flops: of inference, from the cost analysis, which includes elementwise operations, excludes
      zero padding, and counts a loop body once.
    inference_bytes: memory for intermediate values, without parameters, images and outputs.
    gradient_bytes: the same for the gradient of a loss with respect to all parameters, in training
      mode.
  """

  flops: float
  inference_bytes: int
  gradient_bytes: int


def compiled_cost(model: nn.Module, image_shape: tuple[int, int, int, int]) -> CompiledCost:
  """Compiles inference and the gradient of the outputs' mean square, without running them.

  Raises:
    ValueError: the model does not accept the image shape, or XLA cannot analyse the programs.
  """
  variables = _abstract_variables(model, image_shape)
  image = jax.ShapeDtypeStruct(image_shape, jnp.float32)
  inference = jax.jit(functools.partial(model.apply, train=False)).lower(variables, image).compile()

  def loss_fn(params, statistics, image, key):
    output, updates = model.apply(
      {"params": params, **statistics},
      image,
      train=True,
      mutable=list(statistics),
      rngs={"dropout": key},
    )
    return sum(jnp.mean(jnp.square(x)) for x in jax.tree.leaves(output)), updates

  statistics = {name: x for name, x in variables.items() if name != "params"}
  gradient = jax.jit(jax.grad(loss_fn, has_aux=True))
  gradient = gradient.lower(variables["params"], statistics, image, jax.random.key(0)).compile()
  cost = inference.cost_analysis()
  memory, gradient_memory = inference.memory_analysis(), gradient.memory_analysis()
  if cost is None or memory is None or gradient_memory is None:
    raise ValueError(f"XLA cannot analyse programs compiled for {jax.default_backend()}")
  return CompiledCost(cost["flops"], memory.temp_size_in_bytes, gradient_memory.temp_size_in_bytes)

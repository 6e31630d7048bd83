"""The selective scan as an ONNX Scan: one iteration for each position, with six operators.

`ferjax.ops.selective_scan` states the recurrence. Everything that does not depend on the state is
computed before the loop, for all positions at once. In the loop, channels come last: additions and
products of whole rows are what runtimes vectorise.
"""

from typing import Any

import numpy as np

from ferjax.export.onnx.graph import TensorInfo
from ferjax.export.onnx.values import Builder, Value

NAME = "selective_scan"  # of the jitted function, see `ferjax.models.ssm`


def selective_scan(builder: Builder, equation: Any, u: Value, dt: Value, A, B, C, last) -> Value:
  """Translates a call with the arguments (u, dt, A, B, C), and either D or `input_step`."""
  add, avals = builder.graph.add, [variable.aval for variable in equation.invars]
  lead = tuple(avals[0].shape[:-2])
  length, channels, states = *avals[0].shape[-2:], avals[3].shape[-1]
  scaled = len(avals[5].shape) == len(avals[3].shape)  # D has no positions, `input_step` has

  u_name = builder.name_of(builder.full(u, (*lead, length, channels)))
  dt_name = builder.name_of(builder.full(dt, (*lead, length, channels)))
  B_name = builder.name_of(builder.full(B, (*lead, length, states)))
  C_name = builder.name_of(builder.full(C, (*lead, length, states)))
  v_name = u_name if scaled else add("Mul", dt_name, u_name)
  B_name = add("Mul", B_name, builder.name_of(last)) if scaled else B_name
  row, column = (builder.graph.constant([axis], np.int64) for axis in (-2, -1))
  inputs = [
    add("Unsqueeze", dt_name, row),
    add("Unsqueeze", v_name, row),
    add("Unsqueeze", B_name, column),
    add("Unsqueeze", C_name, row),
  ]
  start = add(
    "Expand",
    builder.graph.constant(np.zeros((1,) * (len(lead) + 2), np.float32)),
    builder.sizes((*lead, states, channels)),
  )
  axis = len(lead)
  _, y = builder.graph.add_many(
    "Scan",
    start,
    *inputs,
    outputs=2,
    body=_body(builder, lead, channels, states, _by_state(builder, A, lead)),
    num_scan_inputs=len(inputs),
    scan_input_axes=[axis] * len(inputs),
    scan_output_axes=[axis],
  )
  y = add("Squeeze", y, row)
  if not scaled:
    # D [... d] is the same at all positions.
    D_name = add("Unsqueeze", builder.name_of(last), row)
    y = add("Add", y, add("Mul", D_name, u_name))
  return builder.tensor(y, avals[0].shape, np.float32)


def _by_state(builder: Builder, A: Value, lead: tuple) -> str:
  """A as [... n d], or [n 1] if it is the same for all channels."""
  if A.array is None:
    raise NotImplementedError("a selective scan whose A is no parameter")
  array = A.array[:, None] if A.array.ndim == 1 else np.swapaxes(A.array, -1, -2)
  return builder.graph.constant(array)


def _body(builder: Builder, lead: tuple, channels: int, states: int, A: str):
  body = builder.body().graph
  sizes = [size if isinstance(size, int) else "b" for size in lead]
  h, dt, v, B, C = (body.name() for _ in range(5))
  shapes = ((states, channels), (1, channels), (1, channels), (states, 1), (1, states))
  body.inputs = [
    TensorInfo(name, np.float32, (*sizes, *shape))
    for name, shape in zip((h, dt, v, B, C), shapes, strict=True)
  ]
  decay = body.add("Exp", body.add("Mul", dt, A))
  state = body.add("Add", body.add("Mul", decay, h), body.add("Mul", B, v))
  y = body.add("MatMul", C, state)
  body.outputs = [
    TensorInfo(state, np.float32, (*sizes, states, channels)),
    TensorInfo(y, np.float32, (*sizes, 1, channels)),
  ]
  return body

"""An ONNX graph under construction, in plain Python."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

OPSET = 18
IR_VERSION = 10  # of this opset's time, so that runtimes of 2024 read the files


@dataclasses.dataclass
class Node:
  """One operator; `attributes` may contain a `Graph`."""

  operator: str
  inputs: list[str]
  outputs: list[str]
  attributes: dict[str, Any]


class TensorInfo:
  """The name, type and shape of an input or an output; a size may be a name, such as "b"."""

  def __init__(self, name: str, dtype: Any, shape: Sequence[int | str]):
    self.name, self.dtype, self.shape = name, np.dtype(dtype), tuple(shape)


class Graph:
  """Nodes in order of execution, and constants by name.

  A subgraph, such as the body of a loop, shares the names and the constants of its parent.

  Attributes:
    inputs, outputs: of the graph; an input with a constant of its name has this default.
  """

  def __init__(self, parent: "Graph | None" = None):
    self.nodes: list[Node] = []
    self.constants: dict[str, np.ndarray] = {} if parent is None else parent.constants
    self._known: dict[Any, str] = {} if parent is None else parent._known
    self._numbers: Iterator[int] = itertools.count() if parent is None else parent._numbers
    self._is_body = parent is not None
    self.inputs: list[TensorInfo] = []
    self.outputs: list[TensorInfo] = []

  def name(self, prefix: str = "t") -> str:
    """A new name."""
    return f"{prefix}{next(self._numbers)}"

  def constant(self, value: Any, dtype: Any = None) -> str:
    """The name of a constant; equal ones are stored once."""
    array = np.ascontiguousarray(np.asarray(value, dtype)).reshape(np.shape(value))
    key = (array.dtype.str, array.shape, array.tobytes())
    if key not in self._known:
      self._known[key] = self.name("c")
      self.constants[self._known[key]] = array
    return self._known[key]

  def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
    """Adds a node with one output, and returns the output's name."""
    (output,) = self.add_many(operator, *inputs, outputs=1, **attributes)
    return output

  def add_many(self, operator: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
    """Adds a node, and returns the names of its outputs."""
    names = [self.name() for _ in range(outputs)]
    self.nodes.append(Node(operator, list(inputs), names, attributes))
    return names

  def cast(self, name: str, dtype: Any) -> str:
    """The tensor as another type."""
    from onnx import helper

    return self.add("Cast", name, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

  def add_default(self, name: str, value: Any) -> None:
    """Adds an input that has this value if it is not given."""
    array = np.asarray(value)
    self.inputs.append(TensorInfo(name, array.dtype, array.shape))
    self.constants[name] = array

  def add_output(self, name: str, tensor: str, dtype: Any, shape: Sequence[int | str]) -> None:
    """Makes a tensor an output of this name."""
    self.nodes.append(Node("Identity", [tensor], [name], {}))
    self.outputs.append(TensorInfo(name, dtype, shape))

  def to_model(self, metadata: dict[str, str], producer_version: str) -> Any:
    """The `onnx.ModelProto`, with the metadata; raises a ValueError if onnx finds it invalid."""
    import onnx
    from onnx import helper

    model = helper.make_model(
      self._proto("graph"),
      opset_imports=[helper.make_opsetid("", OPSET)],
      ir_version=IR_VERSION,
      producer_name="ferjax",
      producer_version=producer_version,
    )
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    return model

  def _proto(self, name: str) -> Any:
    from onnx import helper, numpy_helper

    def attribute(value):
      return value._proto("body") if isinstance(value, Graph) else value

    nodes = [
      helper.make_node(
        node.operator,
        node.inputs,
        node.outputs,
        name=f"{node.operator}_{node.outputs[0]}",
        **{key: attribute(value) for key, value in node.attributes.items()},
      )
      for node in self.nodes
    ]
    constants = {} if self._is_body else self.constants
    initializers = [numpy_helper.from_array(array, key) for key, array in constants.items()]
    return helper.make_graph(
      nodes, name, _infos(self.inputs), _infos(self.outputs), initializer=initializers
    )


def _infos(tensors: Sequence[TensorInfo]) -> list[Any]:
  from onnx import helper

  return [
    helper.make_tensor_value_info(x.name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
    for x in tensors
  ]

"""Simplifies a graph: what a runtime cannot know, or does not do.

A convolution takes over the products and sums with constants after it, which are mostly those of
batch normalisation; computed in float64, because the file should answer like the network.
"""

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from ferjax.export.onnx.graph import Graph, Node

_AFFINE = ("Add", "Sub", "Mul", "Div")


def simplify(graph: Graph, kept: Iterable[str] = ()) -> None:
  """Simplifies a graph in place; its inputs, its outputs and the tensors `kept` stay."""
  _Simplifier(graph, set(kept)).run()


class _Simplifier:
  def __init__(self, graph: Graph, kept: set[str]):
    self.graph, self.kept = graph, kept
    self.producers: dict[str, Node] = {}
    self.uses = _uses(graph)
    self.uses.update(kept)
    defaults = {x.name for x in graph.inputs}
    self.constants = {name: x for name, x in graph.constants.items() if name not in defaults}

  def run(self) -> None:
    """One pass in the order of execution, so that a node's inputs are already simplified."""
    replaced: dict[str, str] = {}
    nodes, self.graph.nodes = self.graph.nodes, []
    for node in nodes:
      node.inputs = [replaced.get(name, name) for name in node.inputs]
      source = None
      if self.kept.isdisjoint(node.outputs):
        source = self._absorbed(node) or self._prelu(node)
      if source is not None:
        replaced[node.outputs[0]] = source
        continue
      self.graph.nodes.append(node)
      self.producers.update(dict.fromkeys(node.outputs, node))
    _remove_unused(self.graph, self.kept)

  def _absorbed(self, node: Node) -> str | None:
    """The convolution that does what the node does; None if there is none."""
    if node.operator not in _AFFINE:
      return None
    first, second = node.inputs
    swapped = first in self.constants
    source, other = (second, first) if swapped else (first, second)
    conv = self.producers.get(source)
    if conv is None or conv.operator != "Conv" or self.uses[source] != 1:
      return None
    if other not in self.constants or (swapped and node.operator in ("Sub", "Div")):
      return None
    kernel = self.graph.constants[conv.inputs[1]].astype(np.float64)
    channels = len(kernel)
    factor = _per_channel(self.constants[other], channels)
    if factor is None:
      return None
    bias = np.zeros(channels)
    if len(conv.inputs) == 3:
      bias = self.graph.constants[conv.inputs[2]].astype(np.float64)
    operation = _OPERATIONS[node.operator]
    if node.operator in ("Mul", "Div"):
      kernel = operation(kernel, factor[:, None, None, None])
    bias = operation(bias, factor)
    kernel, bias = (self.graph.constant(x.astype(np.float32)) for x in (kernel, bias))
    conv.inputs = [conv.inputs[0], kernel, bias]
    self.uses[source] = self.uses[node.outputs[0]]
    return source

  def _prelu(self, node: Node) -> str | None:
    """The output of a PRelu in place of Where(x > 0, x, x * slope)."""
    if node.operator != "Where":
      return None
    condition, product = self.producers.get(node.inputs[0]), self.producers.get(node.inputs[2])
    x = node.inputs[1]
    if (
      condition is None
      or product is None
      or (condition.operator, product.operator)
      != (
        "Greater",
        "Mul",
      )
    ):
      return None
    zero, (left, right) = condition.inputs[1], product.inputs
    if condition.inputs[0] != x or zero not in self.constants or self.constants[zero].any():
      return None
    slope = right if left == x else left
    if x not in product.inputs or slope not in self.constants:
      return None
    array = self.constants[slope]
    output = self.graph.add("PRelu", x, self.graph.constant(array.reshape(array.shape[1:])))
    self.producers[output] = self.graph.nodes[-1]
    self.uses[output] = self.uses[node.outputs[0]]
    return output


_OPERATIONS: dict[str, Callable] = {
  "Add": np.add,
  "Sub": np.subtract,
  "Mul": np.multiply,
  "Div": np.divide,
}


def _per_channel(array: np.ndarray, channels: int) -> np.ndarray | None:
  """One number for each channel of [b c h w]; None if the constant differs between cells."""
  if array.ndim not in (0, 4) or array.size not in (1, channels):
    return None
  if array.ndim == 4 and array.size > 1 and array.shape[1] != channels:
    return None
  return np.broadcast_to(array.reshape(-1).astype(np.float64), channels)


def _uses(graph: Graph) -> Counter[str]:
  """Name -> how often it is read."""
  uses = Counter(tensor for node in _all_nodes(graph) for tensor in node.inputs)
  uses.update(_output_names(graph))
  return uses


def _output_names(graph: Graph) -> list[str]:
  return [x.name for x in graph.outputs]


def _all_nodes(graph: Graph) -> list[Node]:
  """The nodes, also of loops' bodies."""
  nodes = []
  for node in graph.nodes:
    nodes.append(node)
    for value in node.attributes.values():
      if isinstance(value, Graph):
        nodes += _all_nodes(value)
  return nodes


def _remove_unused(graph: Graph, kept: set[str]) -> None:
  """Removes nodes and constants that neither an output nor a kept tensor depends on."""
  needed = {*_output_names(graph), *kept}
  nodes = []
  for node in reversed(graph.nodes):
    if needed.isdisjoint(node.outputs):
      continue
    nodes.append(node)
    needed.update(node.inputs)
    for value in node.attributes.values():
      if isinstance(value, Graph):
        needed.update(name for inner in _all_nodes(value) for name in inner.inputs)
  graph.nodes = nodes[::-1]
  inputs = {x.name for x in graph.inputs}
  unused = graph.constants.keys() - needed - inputs
  for name in unused:
    del graph.constants[name]

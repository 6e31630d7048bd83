"""Translated functions, run by onnxruntime, against JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from jax import lax

from ferjax.export.onnx.simplification import simplify
from ferjax.export.onnx.translate import BATCH, translate
from ferjax.ops.depthwise_conv import depthwise_conv
from ferjax.ops.sampling import affine_grid, grid_sample
from ferjax.ops.scan_paths import from_paths, to_paths
from ferjax.ops.selective_scan import selective_scan

RNG = np.random.default_rng(0)
KERNEL, POINTWISE, DEPTHWISE = (
  jnp.asarray(RNG.standard_normal(shape), jnp.float32)
  for shape in ((3, 3, 3, 4), (4, 5), (3, 3, 1, 3))
)
PER_CHANNEL = jnp.asarray(RNG.uniform(0.5, 2, (1, 1, 1, 4)), jnp.float32)
A = -jnp.asarray(RNG.uniform(0.5, 2, (3, 5)), jnp.float32)


def _session(builder, outputs):
  for name, value in outputs.items():
    shape = [size if isinstance(size, int) else BATCH for size in value.shape]
    builder.graph.add_output(name, builder.name_of(value), value.dtype, shape)
  simplify(builder.graph)
  model = builder.graph.to_model({}, "test").SerializeToString()
  options = onnxruntime.SessionOptions()
  options.log_severity_level = 3
  return onnxruntime.InferenceSession(model, options), builder.graph


def _operators(graph):
  return sorted(node.operator for node in graph.nodes)


def _check(function, *shapes, atol=1e-5):
  """Compares batches of 1 and 3; returns the graph."""
  names = [f"x{i}" for i in range(len(shapes))]
  inputs = {name: ((BATCH, *shape), np.float32) for name, shape in zip(names, shapes, strict=True)}
  builder, outputs = translate(lambda *arrays: {"y": function(*arrays)}, inputs)
  session, graph = _session(builder, outputs)
  for size in (1, 3):
    arrays = [RNG.standard_normal((size, *shape)).astype(np.float32) for shape in shapes]
    (found,) = session.run(None, dict(zip(names, arrays, strict=True)))
    expected = jax.jit(function)(*map(jnp.asarray, arrays))
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=atol)
  return graph


def _conv(x, kernel, groups=1):
  layout = ("NHWC", "HWIO", "NHWC")
  padding = [(1, 1), (0, 1)]
  return lax.conv_general_dilated(
    x, kernel, (2, 1), padding, dimension_numbers=layout, feature_group_count=groups
  )


def _network(x):
  """A convolution with batch normalisation, one of 1x1, and a parametric rectifier."""
  x = (_conv(x, KERNEL) - PER_CHANNEL) * PER_CHANNEL + 0.5
  x = jnp.where(x > 0, x, x * PER_CHANNEL)
  return x @ POINTWISE + jax.nn.silu(x @ POINTWISE)


def test_a_network_of_convolutions_has_one_transposition_at_each_end():
  graph = _check(_network, (6, 8, 3))
  assert _operators(graph) == [
    "Add",
    "Conv",
    "Conv",
    "Conv",
    "Identity",
    "Mul",
    "PRelu",
    "Sigmoid",
    "Transpose",
    "Transpose",
  ]


ELEMENTWISE = {
  "arithmetic": lambda x: (x * 2 - 1) / (jnp.abs(x) + 3) - jnp.square(x) ** 2,
  "exponentials": lambda x: jnp.expm1(x) + jnp.log1p(jnp.abs(x)) + jnp.exp2(x),
  "functions": lambda x: jnp.tanh(x) + jnp.sin(x) * jnp.cos(x) + lax.rsqrt(x * x + 1),
  "gelu": lambda x: jax.nn.gelu(x, approximate=False),
  "rounding": lambda x: jnp.floor(x) + jnp.ceil(x / 2) + jnp.round(x) + jnp.sign(x),
  "choices": lambda x: jnp.where((x > 0) & (x != 1) | ~(x >= -1), x, jnp.clip(x, -0.5, 0.5)),
  "softmax": lambda x: jax.nn.softmax(x, axis=-1) + jax.nn.logsumexp(x, axis=1, keepdims=True),
  "powers": lambda x: x**3 + jnp.abs(x) ** 0.5 + jnp.maximum(x, 0.25) + jnp.minimum(x, 0.25),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name):
  _check(ELEMENTWISE[name], (2, 5))


STRUCTURE = {
  "orders": lambda x: jnp.swapaxes(x, 1, 2) + jnp.flip(jnp.swapaxes(x, 1, 2), 1),
  "pieces": lambda x: jnp.concatenate([x[:, 1:2], *jnp.split(x, 2, axis=1)], axis=1),
  "repeated": lambda x: jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2),
  "stacked": lambda x: jnp.stack([x, 2 * x], axis=-1).reshape(x.shape[0], -1),
  "tiled": lambda x: jnp.tile(x, (1, 1, 2, 1)),
  "padded": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 0), (0, 0)), constant_values=2.0),
  "indexed": lambda x: x[:, 2] + x[:, 1, :][..., :],
  "views": lambda x: jnp.stack([x, jnp.flip(x, 2)], axis=1).reshape(-1, *x.shape[1:]),
  "reductions": lambda x: x.mean((1, 2)) + x.max((1, 2)) - x.min((1, 2)) + jnp.prod(x, axis=(1, 2)),
  "positions": lambda x: jnp.argmax(x, axis=-1) * 10 + jnp.argmin(x, axis=-1),
  "positions of cells": lambda x: x + jnp.arange(4, dtype=jnp.float32).reshape(1, 4, 1, 1),
  "pools": lambda x: (
    lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    + lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
  ),
  "depthwise": lambda x: depthwise_conv(x, DEPTHWISE, padding=1),
  "sampled": lambda x: grid_sample(
    x,
    affine_grid(x[:, :2, 0, :], 4, 4, align_corners=True),
    align_corners=True,
  ),
}


@pytest.mark.parametrize("name", STRUCTURE)
def test_structure(name):
  _check(STRUCTURE[name], (4, 4, 3))


PRODUCTS = {
  "by a matrix": lambda x: x.reshape(x.shape[0], -1) @ jnp.ones((24, 2)),
  "of stacks": lambda x: jnp.einsum("bij,bkj->bik", x, x),
  "by a stack": lambda x: jnp.einsum("bpj,pkj->pbk", x, jnp.arange(24.0).reshape(4, 1, 6)),
  "constant first": lambda x: jnp.einsum("ki,bij->kbj", jnp.arange(8.0).reshape(2, 4), x),
  "over two axes": lambda x: jnp.einsum("bij,ijkl->bkl", x, jnp.arange(72.0).reshape(4, 6, 3, 1)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name):
  _check(PRODUCTS[name], (4, 6), atol=1e-3)


@pytest.mark.parametrize("num_paths", [4, 8])
def test_scan_paths(num_paths):
  def function(x):
    paths = to_paths(x, 3, 4, num_paths)
    weights = jnp.arange(1.0, num_paths + 1).reshape(-1, 1, 1, 1)
    return from_paths(paths * weights, 3, 4, num_paths)

  _check(function, (12, 2))


def test_selective_scan_has_a_loop_of_six_operators():
  """With a skip, along stacked paths, as the networks call it."""
  scan = jax.jit(selective_scan)
  skip = jnp.asarray(RNG.standard_normal((1, 3)), jnp.float32)

  def function(u, dt, B, C):
    return scan(u, jnp.abs(dt), A[None], B, C, skip)

  graph = _check(function, (7, 3), (7, 3), (7, 5), (7, 5), atol=1e-4)
  (loop,) = [node for node in graph.nodes if node.operator == "Scan"]
  assert _operators(loop.attributes["body"]) == ["Add", "Exp", "MatMul", "Mul", "Mul", "Mul"]


def test_selective_scan_with_an_input_step():
  scan = jax.jit(selective_scan)

  def function(u, dt, B, C, step):
    return scan(u, jnp.abs(dt), A[0], B, C, input_step=step)

  _check(function, (7, 3), (7, 3), (7, 5), (7, 5), (7, 5), atol=1e-4)


def test_an_operation_without_a_translation_is_named():
  with pytest.raises(NotImplementedError, match="sort"):
    translate(lambda x: {"y": jnp.sort(x)}, {"x": ((BATCH, 3), np.float32)})

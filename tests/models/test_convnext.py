"""Blocks that compute a few images at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtr

from ferjax.models import convnext

WIDTH, SIDE = 4, 3
IMAGE = WIDTH * SIDE * SIDE  # elements


@pytest.fixture(scope="module")
def block():
  return convnext.ConvNeXtBlock(layer_scale=0.5)


@pytest.fixture(scope="module")
def variables(block):
  shapes = jax.eval_shape(
    lambda: block.init(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, WIDTH)), train=False)
  )
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape), jnp.float32), shapes)


def chunks(block, variables, batch_size: int) -> list[int]:
  """The lengths of the block's loops over chunks."""
  images = jnp.zeros((batch_size, SIDE, SIDE, WIDTH))
  jaxpr = jax.make_jaxpr(lambda x: block.apply(variables, x, train=False))(images)
  return [x.params["length"] for x in jaxpr.eqns if x.primitive.name == "scan"]


@pytest.mark.parametrize(
  ("batch_size", "chunk_size", "expected"),
  [
    (6, 2 * IMAGE, [3]),
    (6, 3 * IMAGE - 1, [3]),
    (7, 2 * IMAGE, [7]),
    (4, IMAGE - 1, [4]),
    (4, 4 * IMAGE, []),
    (1, IMAGE - 1, []),
  ],
)
def test_number_of_chunks(monkeypatch, block, variables, batch_size, chunk_size, expected):
  monkeypatch.setattr(convnext, "CHUNK_SIZE", chunk_size)
  assert chunks(block, variables, batch_size) == expected


def test_chunks_change_neither_values_nor_gradients(monkeypatch, block, variables, jit_quickly):
  images = jax.random.normal(jax.random.key(1), (4, SIDE, SIDE, WIDTH))
  weight = jax.random.normal(jax.random.key(2), images.shape)

  def loss(variables, images):
    y = block.apply(variables, images, train=False)
    return jnp.sum(weight * y), y

  def run():
    gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (_, y), gradients = jit_quickly(lambda *x: gradient(*x))(variables, images)
    return jax.tree.leaves((y, gradients))

  whole = run()
  monkeypatch.setattr(convnext, "CHUNK_SIZE", 2 * IMAGE)
  for chunked, expected in zip(run(), whole, strict=True):
    # Sums of up to 4 * 9 * 16 products, in another order: 24 roundings of 6e-8, times a margin.
    tolerance = 1e-5 * float(np.abs(expected).max())
    np.testing.assert_allclose(chunked, expected, rtol=0, atol=tolerance)


def test_gelu_equals_the_normal_distribution():
  x = np.linspace(-8, 8, 101, dtype=np.float32)
  np.testing.assert_allclose(convnext.gelu(jnp.asarray(x)), x * ndtr(np.float64(x)), atol=1e-6)

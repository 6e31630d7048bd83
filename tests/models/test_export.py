"""Every network exports for any batch size, and for any image size that its parameters fit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import ferjax

# The smallest size; symbolic sides and their constraints. EmoNeXt's parameters fit one image size;
# FERMam pools 4 x 4 tokens, so there must be at least as many.
NETWORKS = {
  "fer_yolo_mamba": ("nano", "b, 32*h, 32*w, 3", ()),
  "emonext": ("atto", "b, 32, 32, 3", ()),
  "fermam": ("nano", "b, 32*h, 32*w, 3", ("h >= 4", "w >= 4")),
}


def _variables(model):
  """Random values large enough to make outputs differ."""
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  shapes = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), image)
  rng = np.random.default_rng(0)

  def fill(path, leaf):
    if path[-1].key in ("scale", "var", "gamma"):
      return jnp.ones(leaf.shape)
    fan_in = np.prod(leaf.shape[:-1])
    return jnp.asarray(rng.standard_normal(leaf.shape) / np.sqrt(fan_in), jnp.float32)

  return jax.tree_util.tree_map_with_path(fill, shapes)


@functools.cache
def _exported(name, variant="corrected"):
  """The module, its variables, and its exported inference for symbolic sizes."""
  size, sides, constraints = NETWORKS[name]
  model = ferjax.create_model(name, num_classes=3, size=size, variant=variant)
  variables = _variables(model)
  image = jax.ShapeDtypeStruct(export.symbolic_shape(sides, constraints=constraints), jnp.float32)
  apply = jax.jit(functools.partial(model.apply, train=False))
  return model, variables, export.export(apply)(variables, image)


@pytest.mark.parametrize(
  ("name", "variant", "shapes"),
  [
    ("fer_yolo_mamba", "corrected", ["(b, 4*h, 4*w, 8)", "(b, 2*h, 2*w, 8)", "(b, h, w, 8)"]),
    ("fer_yolo_mamba", "released", ["(b, 2*h, 2*w, 8)", "(b, 2*h, 2*w, 8)", "(b, h, w, 8)"]),
    ("emonext", "corrected", ["(b, 3)", "(b, 320)"]),
    ("emonext", "released", ["(b, 3)", "(b, 320)"]),
    ("fermam", "corrected", ["(b, 3)", "(b, 128)"]),
    ("fermam", "released", ["(b, 3)", "(b, 128)"]),
  ],
)
def test_shapes_follow_the_symbols(name, variant, shapes):
  _, _, exported = _exported(name, variant)
  assert [str(x.shape) for x in exported.out_avals] == shapes


@pytest.mark.parametrize(
  ("name", "shape"),
  [
    ("fer_yolo_mamba", (2, 32, 64, 3)),
    ("fermam", (2, 128, 160, 3)),  # in a row of 5 tokens, a cell of 4 leaves one over
  ],
)
def test_the_exported_program_computes_the_same(name, shape, jit_quickly):
  model, variables, exported = _exported(name)
  image = jnp.asarray(np.random.default_rng(1).standard_normal(shape), jnp.float32)
  found, expected = (
    jit_quickly(function)(variables, image)
    for function in (exported.call, functools.partial(model.apply, train=False))
  )
  # The two programs add up in different orders: float32 holds 6e-8 of a number, and errors of
  # about a hundred layers, each sums of thousands, stay far below 1e-3 of the largest output.
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-3 * float(jnp.abs(b).max()))

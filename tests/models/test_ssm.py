"""Symmetries, initial values and half precision of the state-space blocks.

The parity tests compare their outputs with recorded numbers.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ferjax.models.ssm import (
  ASFR,
  SS2D,
  VSSBlock,
  dt_bias_init,
  released_dt_bias_init,
  softplus,
)


@pytest.fixture(scope="module")
def block_variables(jit_quickly, quick_key):
  x = jnp.zeros((1, 6, 6, 64))
  return jit_quickly(lambda key: VSSBlock().init(key, x, train=False))(quick_key)


def gradients(jit, variables, dtype, train):
  x = jax.random.normal(jax.random.key(0), (2, 6, 6, 64))
  cotangent = jax.random.normal(jax.random.key(1), x.shape)

  def loss(params, x):
    output, _ = VSSBlock(dtype=dtype).apply(
      {"params": params, "batch_stats": variables["batch_stats"]},
      x.astype(dtype),
      train=train,
      mutable=["batch_stats"],
    )
    return jnp.sum(output.astype(jnp.float32) * cotangent)

  return jit(jax.grad(loss, argnums=(0, 1)))(variables["params"], x)


# The gradient of BatchNorm's own statistics subtracts means, where half precision loses digits.
@pytest.mark.parametrize(("train", "cosine"), [(False, 0.9995), (True, 0.99)])
def test_bfloat16_gradients_follow_those_of_float32(jit_quickly, block_variables, train, cosine):
  half, full = (
    gradients(jit_quickly, block_variables, dtype, train) for dtype in (jnp.bfloat16, jnp.float32)
  )
  leaves = jax.tree.leaves(half)
  assert {x.dtype for x in leaves} == {jnp.dtype(jnp.float32)}
  a, b = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(g)]) for g in (half, full))
  assert np.isfinite(a).all()
  assert a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) > cosine
  ssm, expected = half[0]["ss2d"], full[0]["ss2d"]
  for name in ("A_log", "D", "dt_proj_bias", "x_proj_weight"):
    x, y = np.ravel(ssm[name]), np.ravel(expected[name])
    assert x @ y / (np.linalg.norm(x) * np.linalg.norm(y)) > 0.99, name


def rotated_and_transposed(x, variables):
  """(input, variables, paths) that must give the same output, turned in the same way.

  A half turn of the map exchanges each path with its reverse, a transposition rows with columns.
  """
  turns = (
    (lambda m: jnp.flip(m, (1, 2)), lambda k: jnp.flip(k, (0, 1)), (2, 3, 0, 1)),
    (lambda m: m.transpose(0, 2, 1, 3), lambda k: k.transpose(1, 0, 2, 3), (1, 0, 3, 2)),
  )
  for turn, turn_kernel, paths in turns:
    params = dict(variables["params"])
    params["conv"] = {**params["conv"], "kernel": turn_kernel(params["conv"]["kernel"])}
    for name in ("x_proj_weight", "dt_proj_weight", "dt_proj_bias", "A_log", "D"):
      params[name] = params[name][jnp.array(paths)]
    yield turn, turn(x), {"params": params}


@pytest.mark.parametrize("shape", [(6, 6), (5, 7)])
def test_turning_the_map_exchanges_the_paths(shape, jit_quickly):
  """This holds only if every output returns to its position.

  A flip is no such turn (tests/ops/test_scan_paths.py).
  """
  x = jax.random.normal(jax.random.key(0), (2, *shape, 32))
  # With steps near 1 the states matter; paths that skip alike would hide how they are merged.
  normal = jax.nn.initializers.normal(1.0)
  module = SS2D(num_paths=4, conv_init=normal, dt_bias_init=normal)
  variables = jit_quickly(module.init)(jax.random.key(1), x)
  by_position, by_visit = (jit_quickly(module.clone(merge=x).apply) for x in ("position", "visit"))
  skip = normal(jax.random.key(2), variables["params"]["D"].shape)
  variables = {"params": {**variables["params"], "D": skip}}
  for turn, turned, turned_variables in rotated_and_transposed(x, variables):
    expected = turn(by_position(variables, x))
    np.testing.assert_allclose(
      by_position(turned_variables, turned), expected, rtol=1e-3, atol=1e-5
    )
    difference = by_visit(turned_variables, turned) - turn(by_visit(variables, x))
    assert jnp.linalg.norm(difference) > 0.1 * jnp.linalg.norm(expected)


def test_initial_step_sizes_of_both_variants():
  """softplus(bias) is the step size; in the released code the bias itself, except for the floor."""
  key, shape = jax.random.key(0), (4, 512)
  corrected = np.asarray(dt_bias_init(key, shape), np.float64)
  released = np.asarray(released_dt_bias_init(key, shape), np.float64)
  dt = np.log1p(np.exp(corrected))
  assert 0.99e-3 < dt.min() < 1.1e-3
  assert 0.9e-1 < dt.max() < 1.01e-1
  np.testing.assert_allclose(released, dt + 1e-4, rtol=1e-4)


def test_asfr_in_bfloat16_scans_in_float32(jit_quickly):
  x = jax.random.normal(jax.random.key(0), (2, 7, 7, 64))
  variables = jit_quickly(lambda key: ASFR().init(key, x, train=False))(jax.random.key(1))
  wanted = lambda module, name: name == "scan"  # noqa: E731
  outputs, scans = {}, {}
  for dtype in (jnp.float32, jnp.bfloat16):
    run = functools.partial(ASFR(dtype=dtype).apply, train=False, capture_intermediates=wanted)
    outputs[dtype], state = jit_quickly(run)(variables, x.astype(dtype))
    scans[dtype] = state["intermediates"]["scan"][0]
  assert outputs[jnp.bfloat16].dtype == jnp.bfloat16
  assert scans[jnp.bfloat16].dtype == jnp.float32
  for values in (outputs, scans):
    full, half = (np.asarray(values[t], np.float32) for t in (jnp.float32, jnp.bfloat16))
    assert 0 < np.linalg.norm(full - half) < 3e-2 * np.linalg.norm(full)


def test_softplus_and_its_gradient():
  x = np.array([-100.0, -20.0, -3.0, -1e-3, 0.0, 0.5, 4.0, 30.0, 100.0])
  value, slope = jax.vmap(jax.value_and_grad(softplus))(jnp.asarray(x, jnp.float32))
  np.testing.assert_allclose(value, np.logaddexp(x, 0), rtol=1e-6, atol=1e-30)
  np.testing.assert_allclose(slope, 1 / (1 + np.exp(-x)), rtol=1e-6, atol=1e-30)

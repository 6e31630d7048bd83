"""The scan compared with a float64 NumPy loop, and its gradient with numeric differences."""

import collections
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from jax.test_util import check_grads

from ferjax.ops.selective_scan import selective_scan

METHODS = ("associative", "sequential")


def make_inputs(length=13, channels=3, states=4, lead=(2,), seed=0):
  rng = np.random.default_rng(seed)
  normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
  inputs = {
    "u": normal(*lead, length, channels),
    "dt": np.log1p(np.exp(normal(*lead, length, channels))),
    "A": -np.exp(normal(*lead, channels, states)),
    "B": normal(*lead, length, states),
    "C": normal(*lead, length, states),
    "D": normal(*lead, channels),
  }
  return {name: jnp.asarray(x) for name, x in inputs.items()}


def numpy_scan(u, dt, A, B, C, D, h=None, reverse=False):
  """h_l = exp(dt A) h_{l-1} + dt B u; y = C h + D u, one position after the other."""
  u, dt, A, B, C, D = (np.asarray(x, np.float64) for x in (u, dt, A, B, C, D))
  h = np.zeros_like(A) if h is None else np.asarray(h, np.float64)
  y = np.zeros_like(u)
  for i in reversed(range(u.shape[-2])) if reverse else range(u.shape[-2]):
    h = np.exp(dt[..., i, :, None] * A) * h
    h = h + (dt * u)[..., i, :, None] * B[..., i, None, :]
    y[..., i, :] = (h * C[..., i, None, :]).sum(-1) + D * u[..., i, :]
  return y, h


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("chunk_size", [1, 4, 13, 64])
@pytest.mark.parametrize("method", METHODS)
def test_equals_a_loop(method, chunk_size, reverse):
  inputs = make_inputs()
  y, h = selective_scan(
    **inputs, method=method, chunk_size=chunk_size, reverse=reverse, return_final_state=True
  )
  expected_y, expected_h = numpy_scan(**inputs, reverse=reverse)
  np.testing.assert_allclose(y, expected_y, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(h, expected_h, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_two_halves_joined_by_the_state_equal_the_whole(method):
  inputs = make_inputs(length=20)
  positions = ("u", "dt", "B", "C")
  first = {k: v[:, :9] if k in positions else v for k, v in inputs.items()}
  second = {k: v[:, 9:] if k in positions else v for k, v in inputs.items()}
  scan = functools.partial(selective_scan, method=method, chunk_size=4, return_final_state=True)
  y1, h = scan(**first)
  y2, h = scan(**second, initial_state=h)
  y, final = scan(**inputs)
  np.testing.assert_allclose(jnp.concatenate([y1, y2], axis=1), y, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(h, final, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_gradients_by_numeric_differences(method, reverse):
  inputs = make_inputs(length=7, channels=2, states=3)
  h0 = jax.random.normal(jax.random.key(1), (2, 2, 3))

  @jax.jit
  def scan(h0, *args):
    return selective_scan(
      *args,
      initial_state=h0,
      method=method,
      chunk_size=3,
      reverse=reverse,
      return_final_state=True,
    )

  check_grads(scan, (h0, *inputs.values()), order=1, modes=["rev"], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_equal_those_of_plain_autodiff(method):
  inputs = make_inputs(length=11)
  cotangent = np.random.default_rng(2).standard_normal(inputs["u"].shape).astype(np.float32)

  def plain(u, dt, A, B, C, D):
    def step(h, x):
      u, dt, B, C = x
      h = jnp.exp(dt[..., None] * A) * h + (dt * u)[..., None] * B[:, None]
      return h, jnp.einsum("bdn,bn->bd", h, C) + D * u

    time_first = tuple(jnp.moveaxis(x, 1, 0) for x in (u, dt, B, C))
    return jnp.moveaxis(jax.lax.scan(step, jnp.zeros_like(A), time_first)[1], 0, 1)

  loss = lambda scan, *args: jnp.sum(scan(*args) * cotangent)  # noqa: E731
  scan = functools.partial(selective_scan, method=method, chunk_size=4)
  ours, expected = (
    jax.jit(jax.grad(functools.partial(loss, f), argnums=range(6)))(*inputs.values())
    for f in (scan, plain)
  )
  for name, a, b in zip(inputs, ours, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=name)


def test_leading_axes_broadcast():
  """Paths share the input, images share the parameters: [b 1] against [p]."""
  shared = make_inputs(lead=(2, 1))
  paths = make_inputs(lead=(3,), seed=1)
  y = selective_scan(
    shared["u"], paths["dt"], paths["A"], shared["B"], paths["C"], paths["D"], chunk_size=5
  )
  assert y.shape == (2, 3, 13, 3)
  for i in range(2):
    for k in range(3):
      expected, _ = numpy_scan(
        shared["u"][i, 0],
        paths["dt"][k],
        paths["A"][k],
        shared["B"][i, 0],
        paths["C"][k],
        paths["D"][k],
      )
      np.testing.assert_allclose(y[i, k], expected, rtol=1e-4, atol=1e-5)


def test_without_skip_and_under_vmap():
  inputs = make_inputs()
  zeros = jnp.zeros_like(inputs.pop("D"))
  y = jax.vmap(selective_scan)(*inputs.values())
  expected, _ = numpy_scan(**inputs, D=zeros)
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_float32_inside_for_bfloat16_inputs():
  """Steps of 1e-3 vanish in bfloat16 sums: only a float32 state follows 2,000 of them."""
  length = 2000
  u = jnp.ones((length, 1), jnp.bfloat16)
  dt = jnp.full((length, 1), 1e-3, jnp.bfloat16)
  ones = jnp.ones((length, 1), jnp.bfloat16)
  A = jnp.full((1, 1), -1e-6, jnp.float32)
  y = selective_scan(u, dt, A, ones, ones)
  assert y.dtype == jnp.bfloat16
  expected = length * float(jnp.bfloat16(1e-3))
  np.testing.assert_allclose(float(y[-1, 0]), expected, rtol=1e-2)


def test_no_intermediate_is_as_large_as_all_states():
  length, channels, states = 512, 8, 16
  inputs = make_inputs(length, channels, states, lead=())
  grad = jax.grad(lambda u, *rest: selective_scan(u, *rest, chunk_size=16).sum(), argnums=range(5))
  shapes = []

  def visit(jaxpr):
    for equation in jaxpr.eqns:
      shapes.extend(v.aval.size for v in equation.outvars)
      for inner in jaxprs_in_params(equation.params):
        visit(inner)

  args = [inputs[k] for k in ("u", "dt", "A", "B", "C")]
  visit(jax.make_jaxpr(grad)(*args).jaxpr)
  assert max(shapes) < length * channels * states / 4


def make_shared_inputs(length=11):
  """As in ASFR: one decay rate for all channels, and an input step per state."""
  inputs = make_inputs(length=length)
  rng = np.random.default_rng(3)
  step = rng.standard_normal(inputs["B"].shape).astype(np.float32)
  return inputs | {"A": inputs["A"][0, 0], "input_step": jnp.asarray(step)}


def numpy_shared_scan(u, dt, A, B, C, D, input_step):
  """h_l[d, n] = exp(dt_l[d] A[n]) h_{l-1}[d, n] + e_l[n] B_l[n] u_l[d], position by position."""
  u, dt, A, B, C, D, e = (np.asarray(x, np.float64) for x in (u, dt, A, B, C, D, input_step))
  h, y = np.zeros((*D.shape, len(A))), np.zeros_like(u)
  for i in range(u.shape[-2]):
    h = np.exp(dt[:, i, :, None] * A) * h + u[:, i, :, None] * (e * B)[:, i, None, :]
    y[:, i] = (h * C[:, i, None, :]).sum(-1) + D * u[:, i]
  return y


@pytest.mark.parametrize("chunk_size", [1, 4, 64])
@pytest.mark.parametrize("method", METHODS)
def test_input_step_and_shared_decay_equal_a_loop(method, chunk_size):
  inputs = make_shared_inputs()
  y = selective_scan(**inputs, method=method, chunk_size=chunk_size)
  np.testing.assert_allclose(y, numpy_shared_scan(**inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_for_input_step_and_shared_decay(method):
  """Against central differences of the NumPy loop in float64."""
  inputs = make_shared_inputs(length=7)
  rng = np.random.default_rng(4)
  cotangent = rng.standard_normal(inputs["u"].shape)

  def loss(inputs):
    y = selective_scan(**inputs, method=method, chunk_size=3)
    return jnp.sum(y * jnp.asarray(cotangent, jnp.float32))

  grads = jax.jit(jax.grad(loss))(inputs)
  exact = {name: np.asarray(x, np.float64) for name, x in inputs.items()}
  for name, x in exact.items():
    direction, h = rng.standard_normal(x.shape), 1e-6
    ends = (numpy_shared_scan(**exact | {name: x + s * h * direction}) for s in (1, -1))
    slope = np.subtract(*((y * cotangent).sum() for y in ends)) / (2 * h)
    np.testing.assert_allclose(np.sum(grads[name] * direction), slope, rtol=1e-3, err_msg=name)


def test_an_input_step_equal_to_dt_is_the_plain_scan():
  inputs = make_inputs(channels=4, states=4)
  dt = jnp.repeat(inputs["dt"][..., :1], 4, axis=-1)
  plain = selective_scan(**inputs | {"dt": dt})
  np.testing.assert_allclose(
    selective_scan(**inputs | {"dt": dt}, input_step=dt), plain, rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"method": "cuda"}, "unknown scan method 'cuda'; known: auto, associative, sequential"),
    ({"chunk_size": 0}, "chunk_size is 0; it must be at least 1"),
    ({"B": jnp.zeros((2, 12, 4))}, r"B has shape \(2, 12, 4\).*\(13, 4\)"),
    ({"input_step": jnp.zeros((2, 13, 3))}, r"input_step has shape \(2, 13, 3\).*\(13, 4\)"),
    ({"D": jnp.zeros((2, 4))}, r"D has shape \(2, 4\).*must be 3"),
  ],
)
def test_errors_name_the_argument(change, message):
  # Bypasses the shape annotations, which only tests check.
  scan = getattr(selective_scan, "__wrapped__", selective_scan)
  with pytest.raises(ValueError, match=message):
    scan(**(make_inputs() | change))


@pytest.mark.parametrize("method", METHODS)
def test_a_symbolic_length_gives_the_same(method):
  """Exported once; for less than a chunk, one chunk, and more."""
  (length,) = jax.export.symbolic_shape("l")
  inputs = make_inputs(length=70)
  by_position = ("u", "dt", "B", "C")

  def scan(moving, fixed):
    return selective_scan(**moving, **fixed, method=method)

  moving = {name: inputs.pop(name) for name in by_position}
  program = jax.export.export(jax.jit(scan))(
    {
      name: jax.ShapeDtypeStruct((2, length, x.shape[-1]), jnp.float32)
      for name, x in moving.items()
    },
    inputs,
  )
  for end in (3, 32, 70):
    cut = {name: x[:, :end] for name, x in moving.items()}
    expected, _ = numpy_scan(**cut, **inputs)
    np.testing.assert_allclose(program.call(cut, inputs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ("platform", "method"), [("cpu", "sequential"), ("cuda", "associative"), ("tpu", "associative")]
)
def test_the_platform_that_a_program_is_lowered_for_selects_the_method(platform, method):
  inputs = make_inputs()

  def operations(method):
    scan = jax.jit(functools.partial(selective_scan, method=method))
    text = scan.trace(**inputs).lower(lowering_platforms=(platform,)).as_text()
    names = re.findall(r"stablehlo\.(\w+)", text)
    # Those that choose among the methods.
    return collections.Counter(x for x in names if x not in ("case", "constant", "return"))

  assert operations("auto") == operations(method)

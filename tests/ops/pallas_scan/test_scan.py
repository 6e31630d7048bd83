"""The kernels, interpreted, compared with the sequential scan; their programs for each platform."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

from ferjax.ops.pallas_scan.scan import KERNELS, pallas_scan
from ferjax.ops.selective_scan import selective_scan

# `programs` decides how many segments a GPU processes at the same time, and `steps` how many
# positions; fewer than by default compile faster.
CASES = {
  # No block divides 70 positions, 40 channels or 5 states; 3 chunks in one segment.
  "whole": {"sizes": (70, 40, 5), "programs": 1, "reverse": False, "input_step": True, "steps": 2},
  # 5 chunks: 3 segments of at most 2 forwards, and 5 backwards.
  "segments": {
    "sizes": (160, 32, 8),
    "programs": 6,
    "reverse": True,
    "input_step": False,
    "steps": 1,
  },
}


def make_shapes(length, channels, states, *, input_step):
  by_position = ("u", "dt", "B", "C", *(["input_step"] if input_step else []))
  last = {"A": (channels, states), "initial_state": (channels, states), "D": (channels,)}
  last |= {name: (length, channels if name in ("u", "dt") else states) for name in by_position}
  return last


def make_inputs(sizes, input_step):
  """Two paths of one image."""
  rng = np.random.default_rng(0)
  shapes = make_shapes(*sizes, input_step=input_step)
  x = {name: rng.standard_normal((1, 2, *shape)) for name, shape in shapes.items()}
  x["dt"], x["A"] = np.log1p(np.exp(x["dt"] - 1)), -np.exp(x["A"])
  return {name: jnp.asarray(value, jnp.float32) for name, value in x.items()}


def interpreted(u, dt, A, B, C, D, initial_state, input_step=None, **options):
  return pallas_scan(u, dt, A, B, C, D, input_step, initial_state, **options)


def outputs_and_gradients(scan, inputs, jit):
  """y and the final state, and the gradients of a random projection of both."""
  rng = np.random.default_rng(1)

  def run(inputs):
    outputs, gradient = jax.vjp(lambda inputs: scan(**inputs), inputs)
    cotangents = [jnp.asarray(rng.standard_normal(x.shape), x.dtype) for x in outputs]
    return {"y": outputs[0], "final state": outputs[1]} | gradient(tuple(cotangents))[0]

  return jit(run)(inputs)


@pytest.fixture(scope="module", params=CASES)
def case(request, jit_quickly):
  """The options of a case, its inputs, and what the sequential scan makes of them."""
  options = dict(CASES[request.param])
  inputs = make_inputs(options.pop("sizes"), options.pop("input_step"))
  scan = functools.partial(
    selective_scan, method="sequential", reverse=options["reverse"], return_final_state=True
  )
  return options, inputs, outputs_and_gradients(scan, inputs, jit_quickly)


@pytest.mark.parametrize("platform", KERNELS)
def test_an_interpreted_kernel_equals_the_sequential_scan(case, platform, jit_quickly):
  options, inputs, expected = case
  scan = functools.partial(interpreted, interpret=platform, **options)
  results = outputs_and_gradients(scan, inputs, jit_quickly)
  for name, x in expected.items():
    np.testing.assert_allclose(
      results[name], x, rtol=0, atol=1e-5 * float(jnp.abs(x).max()), err_msg=name
    )


# jax.export accepts only custom calls whose meaning stays the same for months, unless told.
TRITON = jax.export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")


def export(function, platforms, *args):
  """The program for machines that are not at hand, as text."""
  device = AbstractDevice("NVIDIA H100", num_cores=None, platform="gpu")
  with use_abstract_mesh(AbstractMesh((), (), abstract_device=device)):
    exported = jax.export.export(jax.jit(function), platforms=platforms, disabled_checks=[TRITON])
    return exported(*args).mlir_module()


def abstract_inputs(batch, dtype):
  """Of a detector: 8 paths, 40 x 40 positions, 256 channels, 16 states."""
  wide = ("A", "D", "initial_state")
  return {
    name: jax.ShapeDtypeStruct((batch, 8, *shape), jnp.float32 if name in wide else dtype)
    for name, shape in make_shapes(1600, 256, 16, input_step=False).items()
  }


def test_the_program_for_several_platforms_has_a_kernel_for_each():
  """The gradient, for 8 images; the forward pass is in it."""

  def loss(inputs):
    y, final = selective_scan(**inputs, method="pallas", return_final_state=True)
    assert y.dtype == jnp.bfloat16
    return y.astype(jnp.float32).sum() + final.sum()

  inputs = abstract_inputs(8, jnp.bfloat16)
  text = export(jax.grad(loss), ["cuda", "tpu"], inputs)
  # Backwards, two segments for each sequence fill the GPU, so there is a first pass.
  assert text.count("@__gpu$xla.gpu.triton") == 3
  assert text.count("@tpu_custom_call") == 2
  # Nothing as large as the input is converted outside the kernels.
  assert "(tensor<64x1600x256xbf16>) -> tensor<64x1600x256xf32>" not in text


def test_few_sequences_are_cut_into_segments():
  scan = functools.partial(selective_scan, method="pallas")
  inputs = abstract_inputs(1, jnp.float32)
  text = export(lambda inputs: scan(**inputs), ["cuda"], inputs)
  assert text.count("@__gpu$xla.gpu.triton") == 2
  assert "tensor<8x8x16x256xf32>" in text  # the state that each of 8 segments adds


def test_other_platforms_are_refused_when_a_program_is_lowered():
  message = "kernels for cuda and tpu, but the program is compiled for cpu; use method='auto'"
  with pytest.raises(ValueError, match=message):
    selective_scan(**make_inputs((3, 4, 2), input_step=False), method="pallas")


def test_symbolic_lengths_are_refused():
  (length,) = jax.export.symbolic_shape("l")
  inputs = {
    name: jax.ShapeDtypeStruct(shape, jnp.float32)
    for name, shape in make_shapes(length, 4, 2, input_step=False).items()
  }
  with pytest.raises(ValueError, match=r"the length is l, .* use 'auto'"):
    jax.eval_shape(lambda inputs: selective_scan(**inputs, method="pallas"), inputs)


def test_vmap_adds_sequences():
  """The program for two images equals that for a batch of two."""
  inputs = abstract_inputs(2, jnp.float32)
  scan = functools.partial(selective_scan, method="pallas")
  mapped = jax.make_jaxpr(jax.vmap(lambda inputs: scan(**inputs)))(inputs)
  whole = jax.make_jaxpr(lambda inputs: scan(**inputs))(inputs)
  kernels = [find_kernel(x.jaxpr) for x in (mapped, whole)]
  assert kernels[0].params == kernels[1].params
  assert [x.aval.shape for x in kernels[0].invars] == [x.aval.shape for x in kernels[1].invars]
  assert mapped.out_avals == whole.out_avals


def find_kernel(jaxpr):
  """The equation of the kernel."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == "pallas_scan":
      return equation
    for inner in jaxprs_in_params(equation.params):
      if (found := find_kernel(inner)) is not None:
        return found
  return None

"""A program that calls Python, or another function of the process, is refused when it is read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from ferjax.export.foreign_calls import check_calls

ARGUMENT = jax.ShapeDtypeStruct((3, 3), np.float32)


def test_plain_programs_with_a_symbolic_batch():
  (batch,) = export.symbolic_shape("b")
  argument = jax.ShapeDtypeStruct((batch, 4), np.float32)
  exported = export.export(jax.jit(lambda x: jnp.sort(x @ x.T, axis=0)))(argument)
  check_calls(export.deserialize(exported.serialize()))


def test_calls_of_functions_of_the_process():
  """LAPACK's stands for any other: JAX itself does not export a callback."""
  exported = export.export(jax.jit(jnp.linalg.cholesky), platforms=["cpu"])(ARGUMENT)
  with pytest.raises(ValueError, match="it calls lapack_spotrf_ffi, which can run any code"):
    check_calls(exported)

"""XLA's options for the programs that ferjax compiles."""

import functools
import platform

import jax

# Without convolutions, for which YNNPACK is slower than XLA's older kernels: inference and training
# step of FERMam take 19 % longer with it. It computes sums several times faster, so these stay.
YNNPACK = {
  "xla_cpu_experimental_ynn_fusion_type": (
    "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
  )
}


@functools.cache
def compiler_options() -> dict[str, str] | None:
  """Options for `jax.jit` of a whole program; None for the defaults.

  Only for x86 CPUs, where they are measured, and if this XLA has them.
  """
  if jax.default_backend() != "cpu" or platform.machine() not in ("x86_64", "AMD64"):
    return None
  try:
    jax.jit(lambda: 0, compiler_options=YNNPACK)()
  except jax.errors.JaxRuntimeError:
    return None
  return YNNPACK

"""XLA's options for the programs that ferjax compiles."""

import functools
import platform

import jax

X86 = {
  # YNNPACK computes sums several times faster, but convolutions slower than XLA's older kernels:
  # inference and training step of FERMam would take 19 % longer.
  "xla_cpu_experimental_ynn_fusion_type": (
    "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
  ),
  # XLA prefers vectors of 256 bits where a processor has 512: inference of FER-YOLO-Mamba takes
  # 14 % less with these, training steps 1 to 4 %. Others are not affected.
  "xla_cpu_prefer_vector_width": "512",
}


@functools.cache
def compiler_options() -> dict[str, str] | None:
  """Options for `jax.jit` of a whole program; None for the defaults.

  Only for x86 CPUs, where they are measured; options that this XLA does not have are left out.
  """
  if jax.default_backend() != "cpu" or platform.machine() not in ("x86_64", "AMD64"):
    return None
  return {name: value for name, value in X86.items() if _is_known(name, value)} or None


def _is_known(name: str, value: str) -> bool:
  try:
    jax.jit(lambda: 0, compiler_options={name: value})()
  except jax.errors.JaxRuntimeError:
    return False
  return True

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

# On CPUs, this pass removes the barriers of rematerialisation (`ferjax.models.remat`), and another
# then merges what would be computed again with the first computation, which saves no memory.
REMAT = {"xla_disable_hlo_passes": "cse_barrier_expander"}


@functools.cache
def compiler_options(*, remat: bool = False) -> dict[str, str] | None:
  """Options for `jax.jit` of a whole program; None for the defaults.

  Only for CPUs, most only for x86, where they are measured; options that this XLA does not have are
  left out. `remat` is for programs with rematerialisation.
  """
  if jax.default_backend() != "cpu":
    return None
  options = X86 if platform.machine() in ("x86_64", "AMD64") else {}
  options = options | REMAT if remat else options
  return {name: value for name, value in options.items() if _is_known(name, value)} or None


def _is_known(name: str, value: str) -> bool:
  try:
    jax.jit(lambda: 0, compiler_options={name: value})()
  except jax.errors.JaxRuntimeError:
    return False
  return True

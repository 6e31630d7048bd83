"""The selective scan by the kernel of the platform that a program is lowered for."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jaxtyping import Array, Float

from ferjax.ops.pallas_scan import gpu, tpu
from ferjax.ops.pallas_scan.problem import Arguments, Problem

KERNELS = {"cuda": gpu, "tpu": tpu}
MIN_STATES = 8  # sublanes of a TPU


def pallas_scan(
  u: Float[Array, "*lead l d"],
  dt: Float[Array, "*lead l d"],
  A: Float[Array, "*lead d n"],
  B: Float[Array, "*lead l n"],
  C: Float[Array, "*lead l n"],
  D: Float[Array, "*lead d"],
  input_step: Float[Array, "*lead l n"] | None,
  h0: Float[Array, "*lead d n"],
  *,
  reverse: bool,
  interpret: str | None = None,
  **options: int,
) -> tuple[Float[Array, "*lead l d"], Float[Array, "*lead d n"]]:
  """y in the dtype of `u`, and the final state; see `ferjax.ops.selective_scan`.

  Args:
    u, dt, A, B, C, D, input_step: as there, with the same leading axes. A and D are float32; the
      others are read in their own dtype, and all sums are float32.
    h0: the initial state, float32.
    reverse: run from the last position to the first.
    interpret: "cuda" or "tpu" runs that kernel as ordinary JAX operations, for tests; None compiles
      the kernel of the platform.
    **options: other fields of `Problem`.

  Raises:
    ValueError: the program is lowered for another platform, or the length is symbolic.
  """
  lead, (length, channels), states = u.shape[:-2], u.shape[-2:], A.shape[-1]
  if not isinstance(length, int):
    raise ValueError(
      f"the length is {length}, but the kernels of method='pallas' need a fixed one; use 'auto'"
    )
  # Triton's tiles have powers of two; padded states have no input and no output.
  padded = max(MIN_STATES, 2 ** math.ceil(math.log2(states)))
  sequences = math.prod(lead)
  problem = Problem(
    sequences,
    length,
    channels,
    padded,
    dt_scales_input=input_step is None,
    reverse=reverse,
    interpret=interpret is not None,
    **options,
  )
  if input_step is not None:
    B = B.astype(jnp.float32) * input_step

  def pad(x):
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, padded - states)])

  def flat(x, tail):
    return x.reshape(sequences, *x.shape[x.ndim - tail :])

  arguments = Arguments(
    u=flat(u, 2),
    dt=flat(dt, 2),
    A=jnp.swapaxes(flat(pad(A), 2), -1, -2),
    B=flat(pad(B), 2),
    C=flat(pad(C), 2),
    D=flat(D, 1),
    h0=jnp.swapaxes(flat(pad(h0), 2), -1, -2),
  )
  y, final = _scan(arguments, problem, interpret)
  final = jnp.swapaxes(final, -1, -2)[..., :states]
  return y.reshape(u.shape), final.reshape(h0.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _scan(arguments: Arguments, problem: Problem, interpret: str | None):
  return _run(problem, interpret, *arguments, keep_starts=False)


def _scan_fwd(arguments, problem, interpret):
  y, final, starts = _run(problem, interpret, *arguments, keep_starts=True)
  return (y, final), (arguments, starts)


def _scan_bwd(problem, interpret, residuals, gradients):
  arguments, starts = residuals
  return (Arguments(*_run(problem, interpret, *arguments, starts, *gradients)),)


_scan.defvjp(_scan_fwd, _scan_bwd)


# Jitted, so that the platform is that of a lowering even where JAX runs each operation by itself.
@functools.partial(jax.jit, static_argnums=(0, 1), static_argnames=("keep_starts",))
def _run(problem: Problem, interpret: str | None, *arrays: Array, keep_starts: bool = False):
  """The results of a module's `forward`, or of `backward` if there are more than its arguments."""
  if interpret is not None:
    return _call(KERNELS[interpret], *arrays, problem=problem, keep_starts=keep_starts)
  return _kernel.bind(*arrays, problem=problem, keep_starts=keep_starts)


def _call(module: ModuleType, *arrays: Array, problem: Problem, keep_starts: bool) -> list[Array]:
  arguments, others = Arguments(*arrays[:_INPUTS]), arrays[_INPUTS:]
  if others:
    return list(module.backward(problem, arguments, *others))
  results = module.forward(problem, arguments, keep_starts=keep_starts)
  return list(results if keep_starts else results[:2])


def _result_shapes(*shapes: Any, problem: Problem, keep_starts: bool) -> list[Any]:
  if len(shapes) > _INPUTS:
    return list(shapes[:_INPUTS])
  arguments = Arguments(*shapes)
  starts = (problem.sequences, problem.chunks, problem.states, problem.channels)
  starts = ShapedArray(starts, jnp.float32)
  return [arguments.u, arguments.h0] + keep_starts * [starts]


def _batched(arrays: Sequence[Array], axes: Sequence[int | None], *, problem: Problem, **options):
  """Under `vmap`, there are more sequences."""
  size = next(x.shape[i] for x, i in zip(arrays, axes, strict=True) if i is not None)

  def merge(x, axis):
    x = jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
    return x.reshape(size * problem.sequences, *x.shape[2:])

  merged = [merge(x, axis) for x, axis in zip(arrays, axes, strict=True)]
  problem = dataclasses.replace(problem, sequences=size * problem.sequences)
  results = _kernel.bind(*merged, problem=problem, **options)
  return [x.reshape(size, -1, *x.shape[1:]) for x in results], [0] * len(results)


def _refuse(ctx, *_, **__):
  platforms = " and ".join(ctx.platforms or ctx.module_context.platforms)
  raise ValueError(
    f"method='pallas' has kernels for {' and '.join(KERNELS)}, but the program is compiled for "
    f"{platforms}; use method='auto'"
  )


# A primitive, because `lax.platform_dependent` compiles each kernel for all platforms of a program.
_INPUTS = len(Arguments._fields)
_kernel = Primitive("pallas_scan")
_kernel.multiple_results = True
_kernel.def_abstract_eval(_result_shapes)
batching.primitive_batchers[_kernel] = _batched
mlir.register_lowering(_kernel, _refuse)
for _platform, _module in KERNELS.items():
  mlir.register_lowering(_kernel, mlir.lower_fun(functools.partial(_call, _module)), _platform)

"""The trunk of ConvNeXt (Liu et al., "A ConvNet for the 2020s", arXiv 2201.03545)."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ferjax.models import remat
from ferjax.models.layers import Conv, DropPath, Dtype, param
from ferjax.ops.layer_norm import layer_norm

Initializer = nn.initializers.Initializer

# The released program truncates at 100 standard deviations.
kernel_init = nn.initializers.normal(0.02)
_zeros = nn.initializers.zeros_init()

# Elements of a map that a block computes at a time on CPUs: one of 56 x 56 x 96, or more of the
# smaller maps. Their hidden activations, of 5 MB, stay in the cache.
CHUNK_SIZE = 56 * 56 * 96


def dense(
  features: int, name: str, dtype: Dtype, init: Initializer = kernel_init, *, use_bias: bool = True
) -> nn.Dense:
  return nn.Dense(features, use_bias, dtype=dtype, kernel_init=init, name=name)


def conv(
  features: int, kernel_size: int, stride: int, dtype: Dtype, init: Initializer = kernel_init
) -> nn.Conv:
  """Without padding."""
  return nn.Conv(
    features,
    (kernel_size, kernel_size),
    (stride, stride),
    padding=[(0, 0), (0, 0)],
    dtype=dtype,
    kernel_init=init,
    name="conv",
  )


class LayerNorm(nn.Module):
  """Layer normalisation of the last axis, to the compute dtype."""

  epsilon: float = 1e-6
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "*s c"]) -> Float[Array, "*s c"]:
    scale = param(self, "scale", nn.initializers.ones, x.shape[-1:])
    bias = param(self, "bias", _zeros, x.shape[-1:])
    return layer_norm(x, scale, bias, epsilon=self.epsilon).astype(self.dtype)


class Stem(nn.Module):
  """Embeds patches of 4x4 pixels."""

  features: int
  dtype: Dtype = jnp.float32
  kernel_init: Initializer = kernel_init

  @nn.compact
  def __call__(self, x: Float[Array, "b h w 3"]) -> Float[Array, "b h/4 w/4 {self.features}"]:
    x = conv(self.features, 4, 4, self.dtype, self.kernel_init)(x)
    return LayerNorm(dtype=self.dtype, name="norm")(x)


class Dense(nn.Module):
  """A dense layer that adds products and bias in float32, and returns it.

  With `scale`, the outputs are multiplied by it: in fact the parameters, so that its gradient needs
  no outputs.
  """

  features: int
  dtype: Dtype = jnp.float32
  kernel_init: Initializer = kernel_init

  @nn.compact
  def __call__(
    self, x: Float[Array, "n c"], scale: Float[Array, "{self.features}"] | None = None
  ) -> Float[Array, "n {self.features}"]:
    kernel = param(self, "kernel", self.kernel_init, (x.shape[-1], self.features))
    bias = param(self, "bias", _zeros, (self.features,))
    if scale is not None:
      kernel, bias = kernel * scale[None], bias * scale
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    sums = jnp.promote_types(self.dtype, jnp.float32)
    return jnp.matmul(x, kernel, preferred_element_type=sums) + bias[None]


class ConvNeXtBlock(nn.Module):
  """Depthwise convolution and a multilayer perceptron, scaled and added to the input.

  The sum stays in float32: at the initial scale of 1e-6, bfloat16 would round a branch away.
  """

  drop_path_rate: float = 0.0
  layer_scale: float = 1e-6
  dtype: Dtype = jnp.float32
  kernel_init: Initializer = kernel_init

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
    c = x.shape[-1]
    y = Conv(c, 7, depthwise=True, use_bias=True, bias_init=_zeros, dtype=self.dtype, name="conv")(
      x
    )
    y = _in_chunks(_perceptron, self, y)
    y = DropPath(self.drop_path_rate, name="drop_path")(y, train=train)
    return x.astype(jnp.float32) + y


def _perceptron(block: ConvNeXtBlock, y: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
  """The block's branch after the convolution."""
  shape, c = y.shape, y.shape[-1]
  # On CPUs, XLA's matrix products of two axes are up to twice as fast as of four.
  y = LayerNorm(dtype=block.dtype, name="norm")(y.reshape(-1, c))
  # Rounded before the GELU, so that the gradient stores it in the compute dtype.
  hidden = Dense(4 * c, block.dtype, block.kernel_init, name="dense0")(y)
  y = gelu(hidden.astype(block.dtype))
  gamma = param(block, "gamma", nn.initializers.constant(block.layer_scale), (c,))
  return Dense(c, block.dtype, block.kernel_init, name="dense1")(y, gamma).reshape(shape)


def gelu(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
  """x times the normal distribution function, in at least float32.

  It uses `erf`, as PyTorch does: `erfc`, as in `jax.nn.gelu`, takes 2.5 times as long on CPUs.
  """
  y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  return (0.5 * y * (1 + jax.lax.erf(0.5**0.5 * y))).astype(x.dtype)


def _in_chunks(
  function: Callable[[Any, Array], Array], module: nn.Module, x: Float[Array, "b h w c"]
) -> Float[Array, "b h w c"]:
  """`function(module, x)`; on CPUs a few images at a time, and its gradient recomputes the rest.

  Only `x` is stored for the gradient. This takes a fifth of the memory; and no more time, because
  the intermediate results of a chunk stay in the cache.
  """
  count = 1 if module.is_initializing() else _number_of_chunks(x)
  if count == 1:
    return function(module, x)
  step = nn.remat(function, prevent_cse=False)
  mapped = nn.scan(
    lambda module, _, chunk: (None, step(module, chunk)),
    variable_broadcast="params",
    split_rngs={"params": False},
  )
  _, y = mapped(module, None, x.reshape(count, -1, *x.shape[1:]))
  return y.reshape(x.shape)


def _number_of_chunks(x: Float[Array, "b h w c"]) -> int:
  """As few equal chunks of whole images as keep them within `CHUNK_SIZE`, if an image is.

  The backend that traces the program decides, not the one that it is lowered for: the results are
  the same, and tracing each block for both would double the time to trace a network.
  """
  batch_size = x.shape[0]
  if jax.default_backend() != "cpu" or not isinstance(batch_size, int):  # symbolic, for exports
    return 1
  divisors = (n for n in range(1, batch_size) if batch_size % n == 0)
  return next((n for n in divisors if x.size <= n * CHUNK_SIZE), batch_size)


class Stage(nn.Module):
  """One block per rate of stochastic depth; `remat` as in `ferjax.models.remat`."""

  drop_path_rates: tuple[float, ...]
  layer_scale: float = 1e-6
  dtype: Dtype = jnp.float32
  remat: str = "none"
  kernel_init: Initializer = kernel_init

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
    for i, rate in enumerate(self.drop_path_rates):
      name = f"block{i}"
      block = ConvNeXtBlock(rate, self.layer_scale, self.dtype, self.kernel_init, name=name)
      x = remat.call(block, x, train=train, recompute=self.remat == "block")
    return x

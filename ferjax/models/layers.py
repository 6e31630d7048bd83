"""Shared layers. Padding is explicit: half the kernel on each side."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.errors import ScopeParamShapeError
from jaxtyping import Array, Float

from ferjax.ops.batch_norm import normalize, normalize_batch
from ferjax.ops.conv import dense_conv
from ferjax.ops.depthwise_conv import depthwise_conv
from ferjax.ops.half_gradient import half_gradient

Dtype = Any

# Jitted, so that each is one operation of a jaxpr on every backend (see `ferjax.models.cost`).
_dense_conv = jax.jit(dense_conv, static_argnames=("stride", "padding"))
_depthwise_conv = jax.jit(depthwise_conv, static_argnames=("stride", "padding"))

# As torch.nn.Linear: uniform within +- 1 / sqrt(fan_in).
dense_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
conv_init = nn.initializers.normal(0.02)


def at_least_float32(dtype: Dtype) -> Dtype:
  """float32 instead of bfloat16."""
  return jnp.promote_types(dtype, jnp.float32)


def scale_init(key, shape, dtype=jnp.float32):
  """Normal(1, 0.02), for the detector's BatchNorm scales."""
  return 1 + 0.02 * jax.random.normal(key, shape, dtype)


def uniform_bias_init(fan_in: int):
  """As the bias of torch's convolutions: uniform within +- 1 / sqrt(fan_in)."""

  def init(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -(fan_in**-0.5), fan_in**-0.5)

  return init


def param(
  module: nn.Module, name: str, init: nn.initializers.Initializer, shape: tuple[int, ...]
) -> Any:
  """The float32 parameter `name` of a compact module: a new one from `init`, or the given value.

  As `module.param`, but the shape of a given value is compared with `shape`. Flax traces `init` to
  learn its shape, which takes a sixth of the time in which a network is traced.

  Raises:
    flax.errors.ScopeParamShapeError: the given value has another shape.
  """
  if not module.has_variable("params", name):
    return module.param(name, init, shape, jnp.float32)
  value = nn.unbox(module.get_variable("params", name))
  if jnp.shape(value) != shape:
    path = "/" + "/".join(module.path)
    raise ScopeParamShapeError(name, path, jnp.shape(value), shape)
  return value


class TorchDense(nn.Module):
  """Dense layer initialised as in torch: kernel and bias uniform within +- 1 / sqrt(fan_in)."""

  features: int
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "*s c"]) -> Float[Array, "*s {self.features}"]:
    fan_in = x.shape[-1]
    kernel = param(self, "kernel", dense_init, (fan_in, self.features))
    bias = param(self, "bias", uniform_bias_init(fan_in), (self.features,))
    y = x.astype(self.dtype) @ kernel.astype(self.dtype)
    return y + bias.astype(self.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


class Conv(nn.Module):
  """2-D convolution; `kernel` is [kernel_size, kernel_size, in or 1, features].

  A 1x1 convolution is a matrix product, whose gradient is several times faster on CPUs; a depthwise
  one uses `ops.depthwise_conv`.

  With `precise`, the result is float32 if `dtype` is bfloat16, and only its gradient is computed in
  bfloat16. This is for convolutions before BatchNorm (`ops.half_gradient`).
  """

  features: int
  kernel_size: int = 1
  stride: int = 1
  depthwise: bool = False
  use_bias: bool = False
  bias_init: nn.initializers.Initializer | None = None  # None: as in torch
  kernel_init: nn.initializers.Initializer = conv_init
  dtype: Dtype = jnp.float32
  precise: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b _ _ {self.features}"]:
    k, fan = self.kernel_size, 1 if self.depthwise else x.shape[-1]
    kernel = param(self, "kernel", self.kernel_init, (k, k, fan, self.features))
    dtype = at_least_float32(self.dtype) if self.precise else self.dtype
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    if self.depthwise:
      x = _depthwise_conv(x, kernel, stride=self.stride, padding=(k - 1) // 2)
    elif dtype == self.dtype:
      x = _product(x, kernel, self.stride)
    else:
      x = half_gradient(functools.partial(_product, stride=self.stride), x, kernel)
    if self.use_bias:
      init = self.bias_init or uniform_bias_init(k * k * fan)
      bias = param(self, "bias", init, (self.features,))
      x = x + bias.astype(dtype)[None, None, None]
    return x


def _product(x, kernel, stride: int):
  if kernel.shape[:2] == (1, 1) and stride == 1:
    return x @ kernel[0, 0]
  return _dense_conv(x, kernel, stride=stride, padding=(len(kernel) - 1) // 2)


class BatchNorm(nn.Module):
  """Flax's BatchNorm over all axes but the last, with a custom gradient (`ops.batch_norm`)."""

  use_running_average: bool
  momentum: float
  epsilon: float
  scale_init: nn.initializers.Initializer = nn.initializers.ones
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "*s c"]) -> Float[Array, "*s c"]:
    shape = x.shape[-1:]
    mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
    var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
    scale = param(self, "scale", self.scale_init, shape)
    bias = param(self, "bias", nn.initializers.zeros, shape)
    scale, bias = jnp.asarray(scale), jnp.asarray(bias)
    if self.use_running_average:
      stored = jnp.asarray(mean.value), jnp.asarray(var.value)
      y = normalize(x, *stored, scale, bias, self.epsilon)
    else:
      y, *statistics = normalize_batch(x.reshape(-1, *shape), scale, bias, self.epsilon)
      if not self.is_initializing():
        for average, value in zip((mean, var), statistics, strict=True):
          average.value = self.momentum * average.value + (1 - self.momentum) * value
    return y.reshape(x.shape).astype(self.dtype)


def batch_norm(
  name: str,
  *,
  train: bool,
  dtype: Dtype,
  momentum: float,
  epsilon: float,
  scale_init: nn.initializers.Initializer = scale_init,
) -> BatchNorm:
  """BatchNorm with the statistics of the batch in training, and stored ones otherwise."""
  return BatchNorm(
    use_running_average=not train,
    momentum=momentum,
    epsilon=epsilon,
    scale_init=scale_init,
    dtype=dtype,
    name=name,
  )


def torch_batch_norm(name: str, *, train: bool, dtype: Dtype) -> BatchNorm:
  """BatchNorm with torch's defaults; torch's momentum of 0.1 is 0.9 in Flax."""
  ones = nn.initializers.ones
  return batch_norm(name, train=train, dtype=dtype, momentum=0.9, epsilon=1e-5, scale_init=ones)


class PReLU(nn.Module):
  """PReLU: x if positive, else x times a learned slope per channel."""

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    slope = param(self, "slope", nn.initializers.constant(0.25), x.shape[-1:])
    return jnp.where(x > 0, x, x * slope.astype(x.dtype)[None, None, None])


class ConvNormAct(nn.Module):
  """Convolution without bias, BatchNorm, SiLU (spec: fer_yolo_mamba, Network).

  With `precise`, the result is float32, whatever the dtype (see `Conv`).
  """

  features: int
  kernel_size: int = 1
  stride: int = 1
  depthwise: bool = False
  dtype: Dtype = jnp.float32
  precise: bool = True

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b _ _ {self.features}"]:
    x = Conv(
      self.features,
      self.kernel_size,
      self.stride,
      depthwise=self.depthwise,
      precise=self.precise,
      dtype=self.dtype,
      name="conv",
    )(x)
    dtype = at_least_float32(self.dtype) if self.precise else self.dtype
    x = batch_norm("bn", train=train, dtype=dtype, momentum=0.97, epsilon=1e-3)(x)
    return nn.silu(x)


class SeparableConvNormAct(nn.Module):
  """Depthwise, then pointwise ConvNormAct: the convolution of YOLOX-nano."""

  features: int
  kernel_size: int = 3
  stride: int = 1
  dtype: Dtype = jnp.float32
  precise: bool = True

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b _ _ {self.features}"]:
    layer = functools.partial(ConvNormAct, precise=self.precise, dtype=self.dtype)
    depthwise = layer(x.shape[-1], self.kernel_size, self.stride, depthwise=True, name="depthwise")
    return layer(self.features, name="pointwise")(depthwise(x, train=train), train=train)


def spatial_conv(
  features: int, stride: int, *, separable: bool, dtype: Dtype, name: str, precise: bool = True
) -> ConvNormAct | SeparableConvNormAct:
  """The 3x3 convolution of a detector: depthwise separable for the nano size."""
  layer = SeparableConvNormAct if separable else ConvNormAct
  return layer(features, 3, stride, precise=precise, dtype=dtype, name=name)


class DropPath(nn.Module):
  """Stochastic depth: drops the branch for random examples and rescales the others."""

  rate: float = 0.0

  @nn.compact
  def __call__(self, x: Float[Array, "b ..."], *, train: bool) -> Float[Array, "b ..."]:
    if not train or self.rate == 0.0:
      return x
    shape = (x.shape[0],) + (1,) * (x.ndim - 1)
    keep = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.rate, shape)
    return jnp.where(keep, x / (1 - self.rate), jnp.zeros_like(x))


def upsample2(x: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w c"]:
  """Nearest-neighbour upsampling by 2."""
  return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)

"""Selective state-space blocks on maps.

Spec: fer_yolo_mamba, SS2D and FER-YOLO-VSS block; fermam, Conv-SSM and ASFR.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ferjax.models.layers import (
  Conv,
  DropPath,
  Dtype,
  TorchDense,
  at_least_float32,
  batch_norm,
  conv_init,
  dense_init,
  param,
  torch_batch_norm,
  uniform_bias_init,
)
from ferjax.ops.scan_paths import from_paths, to_paths
from ferjax.ops.selective_scan import selective_scan

STATE_SIZE = 16
ATTENTION_REDUCTION = 16  # of the channel attention
ASFR_RANK = 8  # of the step size
# The selective scan's weight matrices, and all of its parameters.
SCAN_KERNELS = ("x_proj_weight", "dt_proj_weight")
SCAN_PARAMETERS = (*SCAN_KERNELS, "dt_proj_bias", "A_log", "D")
CONV_SSM_MODES = ("both", "conv_only", "ssm_only")

# Jitted, so that it is one operation of a jaxpr on every backend (see `ferjax.models.cost`).
_selective_scan = jax.jit(selective_scan)


@jax.custom_vjp
def softplus(x: Float[Array, "..."]) -> Float[Array, "..."]:
  """log(1 + exp(x)); the derivative of `jax.nn.softplus` takes several times longer."""
  return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


softplus.defvjp(lambda x: (softplus(x), x), lambda x, dy: (dy * nn.sigmoid(x),))


def stacked_dense_init(key, shape, dtype=jnp.float32):
  """Uniform within +- 1 / sqrt(fan_in); the fan-in is the last axis."""
  bound = shape[-1] ** -0.5
  return jax.random.uniform(key, shape, dtype, -bound, bound)


def dt_bias_init(key, shape, dtype=jnp.float32, low=1e-3, high=1e-1, floor=1e-4):
  """Inverse softplus of step sizes drawn log-uniformly from [low, high]."""
  dt = jnp.exp(jax.random.uniform(key, shape, dtype, math.log(low), math.log(high)))
  dt = jnp.maximum(dt, floor)
  return dt + jnp.log(-jnp.expm1(-dt))


def released_dt_bias_init(key, shape, dtype=jnp.float32, low=1e-3, high=1e-1, floor=1e-4):
  """As in the released FERMam: the floor applies to the (negative) logarithm."""
  dt = jnp.exp(jax.random.uniform(key, shape, dtype, math.log(low), math.log(high)))
  return dt + jnp.maximum(jnp.log(-jnp.expm1(-dt)), floor)


def a_log_init(key, shape, dtype=jnp.float32):
  """log(1..n) along the last axis, the same for every channel and path."""
  del key
  return jnp.broadcast_to(jnp.log(jnp.arange(1, shape[-1] + 1, dtype=dtype)), shape)


class SS2D(nn.Module):
  """Scans a map along several paths and sums their outputs at each position.

  d_model is the input's width. The inner width d is 2 * d_model, and the step size's rank r is
  d_model / 16, rounded up. With `merge="position"`, each output is moved back to its position
  before the sum; "visit" sums the outputs of equal steps, which belong to different positions.
  """

  num_paths: int = 8
  merge: str = "position"  # or "visit"
  conv_init: nn.initializers.Initializer = conv_init
  dt_bias_init: nn.initializers.Initializer = dt_bias_init
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    _, height, width, d_model = x.shape
    x, z = jnp.split(self._dense("in_proj", 4 * d_model)(x), 2, axis=-1)
    d = x.shape[-1]
    conv = Conv(
      d,
      3,
      depthwise=True,
      use_bias=True,
      bias_init=uniform_bias_init(9),
      kernel_init=self.conv_init,
      dtype=self.dtype,
      name="conv",
    )
    x = nn.silu(conv(x)).reshape(-1, height * width, d)
    y = self._scan(to_paths(x, height, width, self.num_paths))
    if self.merge == "position":
      y = from_paths(y, height, width, self.num_paths)
    else:
      y = y.sum(axis=0)
    y = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, use_fast_variance=False, name="norm")(y)
    y = y.reshape(-1, height, width, d) * nn.silu(z)
    return self._dense("out_proj", d_model)(y)

  def _dense(self, name, features):
    return nn.Dense(features, use_bias=False, kernel_init=dense_init, dtype=self.dtype, name=name)

  def _scan(self, x: Float[Array, "p b l d"]) -> Float[Array, "p b l d"]:
    """The selective scan along each path, with separate parameters; the result is float32."""
    p, n, d = self.num_paths, STATE_SIZE, x.shape[-1]
    rank = math.ceil(d / 32)
    x_proj = param(self, "x_proj_weight", stacked_dense_init, (p, rank + 2 * n, d))
    dt_proj = param(self, "dt_proj_weight", stacked_dense_init, (p, d, rank))
    dt_bias = param(self, "dt_proj_bias", self.dt_bias_init, (p, d))
    a_log = param(self, "A_log", a_log_init, (p, d, n))
    skip = param(self, "D", nn.initializers.ones, (p, d))

    projected = jnp.einsum("pbld,pcd->pblc", x, x_proj.astype(self.dtype))
    dt, B, C = jnp.split(projected, [rank, rank + n], axis=-1)
    dt = jnp.einsum("pblr,pdr->pbld", dt, dt_proj.astype(self.dtype)).astype(jnp.float32)
    dt = softplus(dt + dt_bias[:, None, None])
    A = -jnp.exp(a_log)[:, None]
    return _selective_scan(x.astype(jnp.float32), dt, A, B, C, skip[:, None])


class ABMLP(nn.Module):
  """Channel attention: the map times the sigmoid of three Dense layers of its mean."""

  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    c = x.shape[-1]
    hidden = c // ATTENTION_REDUCTION
    gate = x.mean(axis=(1, 2), keepdims=True)
    for i, features in enumerate((hidden, hidden, c)):
      gate = nn.relu(gate) if i else gate
      gate = nn.Dense(
        features, use_bias=False, kernel_init=dense_init, dtype=self.dtype, name=f"dense{i}"
      )(gate)
    return x * nn.sigmoid(gate)


class FeatureRefinement(nn.Module):
  """The convolutional branch (FRM) of the FER-YOLO-VSS block."""

  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
    c = x.shape[-1]
    dtype = at_least_float32(self.dtype)
    norm = {"train": train, "dtype": dtype, "momentum": 0.9, "epsilon": 1e-5}
    x = Conv(c // 2, precise=True, dtype=self.dtype, name="reduce")(x)
    x = nn.relu(batch_norm("reduce_bn", **norm)(x))
    x = ABMLP(dtype=self.dtype, name="attention")(x)
    x = Conv(c, precise=True, dtype=self.dtype, name="expand")(x)
    return batch_norm("expand_bn", **norm)(x)


class VSSBlock(nn.Module):
  """FER-YOLO-VSS: FRM and SS2D, each on half of the channels, then a 1x1 convolution."""

  drop_path_rate: float = 0.0
  norm_epsilon: float = 1e-5
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
    left, right = jnp.split(x, 2, axis=-1)
    left = FeatureRefinement(self.dtype, name="frm")(left, train=train)
    scanned = nn.LayerNorm(
      epsilon=self.norm_epsilon, dtype=self.dtype, use_fast_variance=False, name="norm"
    )(right)
    scanned = SS2D(dtype=self.dtype, name="ss2d")(scanned)
    right = right + DropPath(self.drop_path_rate, name="drop_path")(scanned, train=train)
    y = jnp.concatenate([left, right], axis=-1)
    y = Conv(x.shape[-1], use_bias=True, precise=True, dtype=self.dtype, name="fuse")(y)
    return y + x


class ConvBranch(nn.Module):
  """The convolutional half of the Conv-SSM block."""

  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
    norm = functools.partial(torch_batch_norm, train=train, dtype=self.dtype)
    conv = functools.partial(
      Conv, x.shape[-1], use_bias=True, kernel_init=dense_init, dtype=self.dtype
    )
    x = norm("bn0")(x)
    x = nn.relu(norm("bn1")(conv(3, name="conv0")(x)))
    x = nn.relu(norm("bn2")(conv(3, name="conv1")(x)))
    return nn.relu(conv(name="conv2")(x))


class ConvSSM(nn.Module):
  """Convolutions and SS2D, each on half of the channels, then a channel shuffle.

  In the modes "conv_only" and "ssm_only", the other half passes through unchanged; the parameters
  are those of "both".
  """

  variant: str = "corrected"
  mode: str = "both"
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
    released = self.variant == "released"
    left, right = jnp.split(x, 2, axis=-1)
    if self.mode != "ssm_only" or self.is_initializing():
      left = ConvBranch(self.dtype, name="conv_branch")(left, train=train)
    if self.mode != "conv_only" or self.is_initializing():
      right = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, use_fast_variance=False, name="norm")(
        right
      )
      right = SS2D(
        num_paths=4,
        merge="visit" if released else "position",
        conv_init=dense_init,
        dt_bias_init=released_dt_bias_init if released else dt_bias_init,
        dtype=self.dtype,
        name="ss2d",
      )(right)
    # Channel c of half g moves to 2 c + g.
    shuffled = jnp.stack([left, right], axis=-1).reshape(x.shape)
    return shuffled + x


class ASFR(nn.Module):
  """Adaptive state-space feature refinement: one row-major scan with a separate input step.

  The released program multiplies the skip by the inner width, not by the parameter D, so the scan
  is only a millionth of the result.
  """

  variant: str = "corrected"
  dropout_rate: float = 0.1
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
    b, height, width, c = x.shape
    n, d = STATE_SIZE, 2 * c
    dense = functools.partial(nn.Dense, use_bias=False, kernel_init=dense_init, dtype=self.dtype)
    x, z = jnp.split(dense(2 * d, name="in_proj")(x).reshape(b, height * width, 2 * d), 2, axis=-1)
    conv = Conv(d, 3, depthwise=True, kernel_init=dense_init, dtype=self.dtype, name="conv")
    x = conv(x.reshape(b, height, width, d)).reshape(b, height * width, d)

    projected = dense(ASFR_RANK + 2 * n, name="x_proj")(x)
    low, B, C = jnp.split(projected, [ASFR_RANK, ASFR_RANK + n], axis=-1)
    dt = nn.Dense(
      d,
      kernel_init=lambda *args: jax.random.uniform(*args, minval=-0.1, maxval=0.1),
      bias_init=nn.initializers.constant(0.1),
      dtype=self.dtype,
      name="dt_proj",
    )(low)
    dt = softplus(dt.astype(jnp.float32))
    a_log = param(self, "A_log", nn.initializers.normal(0.02), (n,))
    skip = param(self, "D", nn.initializers.ones, (d,))
    skip = jnp.full((d,), float(d)) if self.variant == "released" else skip
    y = self.scan(x, dt, a_log, B, C, TorchDense(n, name="input_step")(dt))
    y = y + skip[None, None] * x.astype(jnp.float32)

    y = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, use_fast_variance=False, name="norm")(y)
    y = dense(c, use_bias=True, kernel_init=nn.initializers.xavier_uniform(), name="out_proj")(
      y * nn.silu(z)
    )
    y = nn.Dropout(self.dropout_rate, deterministic=not train, name="dropout")(y)
    return y.reshape(b, height, width, c)

  def scan(
    self,
    x: Float[Array, "b l d"],
    dt: Float[Array, "b l d"],
    a_log: Float[Array, "n"],
    B: Float[Array, "b l n"],
    C: Float[Array, "b l n"],
    input_step: Float[Array, "b l n"],
  ) -> Float[Array, "b l d"]:
    """The contribution of the states at each position, in float32."""
    x = x.astype(jnp.float32)
    return _selective_scan(x, dt, -jnp.exp(a_log), B, C, input_step=input_step)

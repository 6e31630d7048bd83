"""Selective state-space blocks on maps (spec: fer_yolo_mamba, SS2D and FER-YOLO-VSS block)."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ferjax.models.layers import Conv, DropPath, Dtype, batch_norm, dense_init, uniform_bias_init
from ferjax.ops.scan_paths import from_paths, to_paths
from ferjax.ops.selective_scan import selective_scan

STATE_SIZE = 16
ATTENTION_REDUCTION = 16  # width of a map over that of its channel attention


def stacked_dense_init(key, shape, dtype=jnp.float32):
  """uniform within +- 1 / sqrt(fan_in), the fan-in being the last axis."""
  bound = shape[-1] ** -0.5
  return jax.random.uniform(key, shape, dtype, -bound, bound)


def dt_bias_init(key, shape, dtype=jnp.float32, low=1e-3, high=1e-1, floor=1e-4):
  """Inverse softplus of step sizes drawn log-uniformly from [low, high]."""
  dt = jnp.exp(jax.random.uniform(key, shape, dtype, math.log(low), math.log(high)))
  dt = jnp.maximum(dt, floor)
  return dt + jnp.log(-jnp.expm1(-dt))


def a_log_init(key, shape, dtype=jnp.float32):
  """log(1..n) along the last axis, the same for every channel and path."""
  del key
  return jnp.broadcast_to(jnp.log(jnp.arange(1, shape[-1] + 1, dtype=dtype)), shape)


class SS2D(nn.Module):
  """Scans a map along several paths and sums what they say of each position.

  d_model is the input's width; the inner width d is twice that, the rank of the step size r is
  d_model / 16, rounded up.
  """

  num_paths: int = 8
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
      dtype=self.dtype,
      name="conv",
    )
    x = nn.silu(conv(x)).reshape(-1, height * width, d)
    y = self._scan(to_paths(x, height, width, self.num_paths))
    y = from_paths(y, height, width, self.num_paths)
    y = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, use_fast_variance=False, name="norm")(y)
    y = y.reshape(-1, height, width, d) * nn.silu(z)
    return self._dense("out_proj", d_model)(y)

  def _dense(self, name, features):
    return nn.Dense(features, use_bias=False, kernel_init=dense_init, dtype=self.dtype, name=name)

  def _scan(self, x: Float[Array, "b p l d"]) -> Float[Array, "b p l d"]:
    """The selective scan along each path with that path's own parameters; float32 result."""
    p, n, d = self.num_paths, STATE_SIZE, x.shape[-1]
    rank = math.ceil(d / 32)
    x_proj = self.param("x_proj_weight", stacked_dense_init, (p, rank + 2 * n, d), jnp.float32)
    dt_proj = self.param("dt_proj_weight", stacked_dense_init, (p, d, rank), jnp.float32)
    dt_bias = self.param("dt_proj_bias", dt_bias_init, (p, d), jnp.float32)
    a_log = self.param("A_log", a_log_init, (p, d, n), jnp.float32)
    skip = self.param("D", nn.initializers.ones, (p, d), jnp.float32)

    projected = jnp.einsum("bpld,pcd->bplc", x, x_proj.astype(self.dtype))
    dt, B, C = jnp.split(projected, [rank, rank + n], axis=-1)
    dt = jnp.einsum("bplr,pdr->bpld", dt, dt_proj.astype(self.dtype)).astype(jnp.float32)
    dt = nn.softplus(dt + dt_bias[None, :, None])
    return selective_scan(x.astype(jnp.float32), dt, -jnp.exp(a_log), B, C, skip)


class ABMLP(nn.Module):
  """Channel attention: sigmoid of three Dense layers of the mean, times the map."""

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
    norm = {"train": train, "dtype": self.dtype, "momentum": 0.9, "epsilon": 1e-5}
    x = Conv(c // 2, dtype=self.dtype, name="reduce")(x)
    x = nn.relu(batch_norm("reduce_bn", **norm)(x))
    x = ABMLP(dtype=self.dtype, name="attention")(x)
    x = Conv(c, dtype=self.dtype, name="expand")(x)
    return batch_norm("expand_bn", **norm)(x)


class VSSBlock(nn.Module):
  """FER-YOLO-VSS: FRM on the first half of the channels, SS2D on the second, then a 1x1."""

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
    y = Conv(x.shape[-1], use_bias=True, dtype=self.dtype, name="fuse")(y)
    return y + x

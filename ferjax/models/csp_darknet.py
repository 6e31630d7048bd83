"""CSPDarknet, the backbone of YOLOX (Ge et al. 2021; spec: fer_yolo_mamba, Network)."""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ferjax.models.layers import ConvNormAct, Dtype, spatial_conv
from ferjax.ops.strided import strided


class Focus(nn.Module):
  """Space to depth by 2, then a 3x3 convolution.

  The phases are concatenated in the order (even row, even col), (odd, even), (even, odd),
  (odd, odd), which differs from `jax.nn`-style space-to-depth.
  """

  features: int
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b h//2 w//2 {self.features}"]:
    phases = [strided(x, 2, start=(i, j)) for j in (0, 1) for i in (0, 1)]
    x = jnp.concatenate(phases, axis=-1)
    return ConvNormAct(self.features, 3, dtype=self.dtype, name="conv")(x, train=train)


class Bottleneck(nn.Module):
  """1x1, then 3x3 convolution, plus the input if `shortcut`."""

  features: int
  shortcut: bool = True
  separable: bool = False
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w {self.features}"], *, train: bool
  ) -> Float[Array, "b h w {self.features}"]:
    y = ConvNormAct(self.features, dtype=self.dtype, name="conv1")(x, train=train)
    conv2 = spatial_conv(self.features, 1, separable=self.separable, dtype=self.dtype, name="conv2")
    y = conv2(y, train=train)
    return x + y if self.shortcut else y


class CSPLayer(nn.Module):
  """Cross-stage partial layer: bottlenecks on one half of the width only."""

  features: int
  num_bottlenecks: int
  shortcut: bool = True
  separable: bool = False
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b h w {self.features}"]:
    hidden = self.features // 2
    a = ConvNormAct(hidden, dtype=self.dtype, name="conv1")(x, train=train)
    b = ConvNormAct(hidden, dtype=self.dtype, name="conv2")(x, train=train)
    for i in range(self.num_bottlenecks):
      a = Bottleneck(hidden, self.shortcut, self.separable, self.dtype, name=f"bottleneck{i}")(
        a, train=train
      )
    x = jnp.concatenate([a, b], axis=-1)
    return ConvNormAct(self.features, dtype=self.dtype, name="conv3")(x, train=train)


class SpatialPyramidPooling(nn.Module):
  """Spatial pyramid pooling: 5x5, 9x9 and 13x13 max pooling, concatenated with the map."""

  features: int
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b h w {self.features}"]:
    x = ConvNormAct(x.shape[-1] // 2, dtype=self.dtype, name="conv1")(x, train=train)
    # Repeated 5x5 max pooling equals 9x9 and 13x13.
    pooled = [x]
    for _ in range(3):
      pooled.append(nn.pool(pooled[-1], -jnp.inf, lax.max, (5, 5), (1, 1), ((2, 2), (2, 2))))
    x = jnp.concatenate(pooled, axis=-1)
    return ConvNormAct(self.features, dtype=self.dtype, name="conv2")(x, train=train)


class CSPDarknet(nn.Module):
  """Features of strides 8, 16 and 32 for images with sides divisible by 32.

  `width` multiplies the channels (64 at the stem), `depth` the bottlenecks (3 per unit).
  """

  width: float
  depth: float
  separable: bool = False
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, image: Float[Array, "b h w 3"], *, train: bool
  ) -> tuple[
    Float[Array, "b h//8 w//8 _"], Float[Array, "b h//16 w//16 _"], Float[Array, "b h//32 w//32 _"]
  ]:
    base, units = int(self.width * 64), max(round(self.depth * 3), 1)
    x = Focus(base, dtype=self.dtype, name="stem")(image, train=train)
    features = []
    stages = ((2, units, False), (4, 3 * units, False), (8, 3 * units, False), (16, units, True))
    for i, (multiple, num_bottlenecks, last) in enumerate(stages, start=2):
      channels = multiple * base
      conv = spatial_conv(
        channels, 2, separable=self.separable, dtype=self.dtype, name=f"stage{i}_conv"
      )
      x = conv(x, train=train)
      if last:
        x = SpatialPyramidPooling(channels, self.dtype, name=f"stage{i}_spp")(x, train=train)
      x = CSPLayer(
        channels, num_bottlenecks, not last, self.separable, self.dtype, name=f"stage{i}_csp"
      )(x, train=train)
      features.append(x)
    return tuple(features[1:])

"""CSPDarknet, the backbone of YOLOX (Ge et al. 2021; spec: fer_yolo_mamba, Network)."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ferjax.models import remat
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
  """Cross-stage partial layer: bottlenecks on one half of the width only.

  With `recompute`, the gradient stores the inputs of the bottlenecks only (`ferjax.models.remat`).
  """

  features: int
  num_bottlenecks: int
  shortcut: bool = True
  separable: bool = False
  dtype: Dtype = jnp.float32
  recompute: bool = False

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b h w {self.features}"]:
    hidden = self.features // 2
    a = ConvNormAct(hidden, dtype=self.dtype, name="conv1")(x, train=train)
    b = ConvNormAct(hidden, dtype=self.dtype, name="conv2")(x, train=train)
    for i in range(self.num_bottlenecks):
      block = Bottleneck(hidden, self.shortcut, self.separable, self.dtype, name=f"bottleneck{i}")
      a = remat.call(block, a, train=train, recompute=self.recompute)
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

  `width` multiplies the channels (64 at the stem), `depth` the bottlenecks (3 per unit). `remat` as
  in `ferjax.models.remat`.
  """

  width: float
  depth: float
  separable: bool = False
  dtype: Dtype = jnp.float32
  remat: str = "none"

  @nn.compact
  def __call__(
    self, image: Float[Array, "b h w 3"], *, train: bool
  ) -> tuple[
    Float[Array, "b h//8 w//8 _"], Float[Array, "b h//16 w//16 _"], Float[Array, "b h//32 w//32 _"]
  ]:
    base, units = int(self.width * 64), max(round(self.depth * 3), 1)
    stem = Focus(base, dtype=self.dtype, name="stem")
    x = remat.call(stem, image, train=train, recompute=self.remat != "none")
    features = []
    stages = ((2, units, False), (4, 3 * units, False), (8, 3 * units, False), (16, units, True))
    for i, (multiple, num_bottlenecks, last) in enumerate(stages, start=2):
      stage = functools.partial(
        _stage,
        name=f"stage{i}",
        features=multiple * base,
        num_bottlenecks=num_bottlenecks,
        last=last,
        train=train,
      )
      recompute = train and self.remat == "stage"
      x = remat.call_function(stage, self, x, recompute=recompute)
      features.append(x)
    return tuple(features[1:])


def _stage(
  backbone: CSPDarknet,
  x: Float[Array, "b h w c"],
  *,
  name: str,
  features: int,
  num_bottlenecks: int,
  last: bool,
  train: bool,
) -> Float[Array, "b h//2 w//2 {features}"]:
  """Halves the map; the last stage pools it, too."""
  separable, dtype, recompute = backbone.separable, backbone.dtype, backbone.remat == "block"
  conv = spatial_conv(features, 2, separable=separable, dtype=dtype, name=f"{name}_conv")
  x = conv(x, train=train)
  if last:
    pooling = SpatialPyramidPooling(features, dtype, name=f"{name}_spp")
    x = remat.call(pooling, x, train=train, recompute=recompute)
  return CSPLayer(
    features, num_bottlenecks, not last, separable, dtype, recompute, name=f"{name}_csp"
  )(x, train=train)

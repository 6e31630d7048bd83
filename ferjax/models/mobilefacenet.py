"""MobileFaceNet, the landmark branch of FERMam (spec: fermam, Landmark branch).

Chen, Liu, Gao, Han, "MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on
Mobile Devices", arXiv 1804.07573 (2018).
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ferjax.models import remat
from ferjax.models.layers import Conv, Dtype, PReLU, param, torch_batch_norm

BLOCKS = (4, 6, 2)  # residual blocks per stage, after the one that halves the map
EMBEDDING_MAP = 7  # side of the embedding head's input map, cells

kernel_init = nn.initializers.variance_scaling(2, "fan_out", "normal")


class ConvBlock(nn.Module):
  """Convolution without bias, BatchNorm, and PReLU unless `linear`."""

  features: int
  kernel_size: int = 1
  stride: int = 1
  depthwise: bool = False
  linear: bool = False
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b _ _ {self.features}"]:
    x = Conv(
      self.features,
      self.kernel_size,
      self.stride,
      depthwise=self.depthwise,
      kernel_init=kernel_init,
      dtype=self.dtype,
      name="conv",
    )(x)
    x = torch_batch_norm("bn", train=train, dtype=self.dtype)(x)
    return x if self.linear else PReLU(name="prelu")(x)


class DepthWise(nn.Module):
  """Inverted bottleneck: 1x1 to `groups` channels, 3x3 depthwise, linear 1x1.

  The input is added if `stride` is 1.
  """

  features: int
  groups: int
  stride: int = 1
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b _ _ {self.features}"]:
    y = ConvBlock(self.groups, dtype=self.dtype, name="expand")(x, train=train)
    y = ConvBlock(self.groups, 3, self.stride, depthwise=True, dtype=self.dtype, name="depthwise")(
      y, train=train
    )
    y = ConvBlock(self.features, linear=True, dtype=self.dtype, name="project")(y, train=train)
    return x + y if self.stride == 1 else y


class GlobalDepthwise(nn.Module):
  """A weighted sum over all positions, with weights per channel."""

  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    _, height, width, c = x.shape
    kernel = param(self, "kernel", kernel_init, (height, width, 1, c))
    return jnp.einsum("bhwc,hwc->bc", x, kernel[:, :, 0].astype(self.dtype))


class Embedding(nn.Module):
  """The head of the standalone network; FERMam does not use it."""

  features: int
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b {self.features}"]:
    if x.shape[1:3] != (EMBEDDING_MAP, EMBEDDING_MAP):
      raise ValueError(
        f"the map has {x.shape[1]} x {x.shape[2]} cells; the embedding of MobileFaceNet takes "
        f"{EMBEDDING_MAP} x {EMBEDDING_MAP}, from an image of 112 x 112 pixels"
      )
    x = GlobalDepthwise(self.dtype, name="depthwise")(x)
    x = torch_batch_norm("depthwise_bn", train=train, dtype=self.dtype)(x)
    x = nn.Dense(
      self.features, use_bias=False, kernel_init=kernel_init, dtype=self.dtype, name="dense"
    )(x)
    return torch_batch_norm("bn", train=train, dtype=self.dtype)(x)


class MobileFaceNetOutput(NamedTuple):
  """The map, and the embedding if the network has that head."""

  features: Float[Array, "b h w c"]
  embedding: Float[Array, "b e"] | None = None


class MobileFaceNet(nn.Module):
  """Features of stride 16, with 8 * `width` channels, for normalised RGB images.

  The standalone network also has an embedding of `embedding_size` elements. `remat` as in
  `ferjax.models.remat`.
  """

  width: int = 64
  blocks: tuple[int, int, int] = BLOCKS
  embedding_size: int | None = None
  dtype: Dtype = jnp.float32
  remat: str = "none"

  @nn.compact
  def __call__(self, image: Float[Array, "b h w 3"], *, train: bool) -> MobileFaceNetOutput:
    width = self.width
    x = ConvBlock(width, 3, 2, dtype=self.dtype, name="stem")(image, train=train)
    x = ConvBlock(width, 3, depthwise=True, dtype=self.dtype, name="stem_depthwise")(x, train=train)
    # Channels of the stage, groups of its first block, groups of the others.
    stages = (
      (width, 2 * width, 2 * width),
      (2 * width, 4 * width, 4 * width),
      (2 * width, 8 * width, 4 * width),
    )
    for i, sizes in enumerate(stages):
      stage = functools.partial(_stage, number=i, sizes=sizes, train=train)
      x = remat.call_function(stage, self, x, recompute=train and self.remat == "stage")
    features = ConvBlock(8 * width, dtype=self.dtype, name="last")(x, train=train)
    if self.embedding_size is None:
      return MobileFaceNetOutput(features)
    embedding = Embedding(self.embedding_size, self.dtype, name="embedding")(features, train=train)
    return MobileFaceNetOutput(features, embedding)


def _stage(
  network: MobileFaceNet,
  x: Float[Array, "b h w c"],
  *,
  number: int,
  sizes: tuple[int, int, int],
  train: bool,
) -> Float[Array, "b _ _ _"]:
  """`sizes`: channels, groups of the first block, groups of the others."""
  channels, first_groups, groups = sizes
  blocks = [DepthWise(channels, first_groups, 2, network.dtype, name=f"down{number}")]
  for i in range(network.blocks[number]):
    name = f"stage{number}_block{i}"
    blocks.append(DepthWise(channels, groups, dtype=network.dtype, name=name))
  for block in blocks:
    x = remat.call(block, x, train=train, recompute=network.remat == "block")
  return x

"""IR-50, the residual network of ArcFace, up to its third stage (spec: fermam, Image branch).

Deng, Guo, Xue, Zafeiriou, "ArcFace: Additive Angular Margin Loss for Deep Face Recognition",
CVPR 2019. The recognition network's fourth stage and embedding are omitted.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ferjax.models import remat
from ferjax.models.layers import Conv, Dtype, PReLU, dense_init, torch_batch_norm
from ferjax.ops.strided import strided

UNITS = (3, 4, 14)  # of the stages


class IRUnit(nn.Module):
  """Pre-normalised residual unit; the second convolution has the stride."""

  features: int
  stride: int = 1
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b _ _ {self.features}"]:
    norm = functools.partial(torch_batch_norm, train=train, dtype=self.dtype)
    conv = functools.partial(Conv, self.features, kernel_init=dense_init, dtype=self.dtype)
    shortcut = strided(x, self.stride)
    if x.shape[-1] != self.features:
      shortcut = norm("shortcut_bn")(conv(name="shortcut")(shortcut))
    y = norm("bn1")(x)
    y = PReLU(name="prelu")(conv(3, name="conv1")(y))
    y = norm("bn2")(conv(3, self.stride, name="conv2")(y))
    return y + shortcut


class IR50(nn.Module):
  """Features of stride 8, with 4 * `width` channels, for normalised RGB images.

  `units` is the number of residual units per stage; the first of each stage halves the map. `remat`
  as in `ferjax.models.remat`.
  """

  width: int = 64
  units: tuple[int, int, int] = UNITS
  dtype: Dtype = jnp.float32
  remat: str = "none"

  @nn.compact
  def __call__(
    self, image: Float[Array, "b h w 3"], *, train: bool
  ) -> Float[Array, "b _ _ 4*{self.width}"]:
    x = Conv(self.width, 3, kernel_init=dense_init, dtype=self.dtype, name="stem")(image)
    x = torch_batch_norm("stem_bn", train=train, dtype=self.dtype)(x)
    x = PReLU(name="stem_prelu")(x)
    for number in range(len(self.units)):
      stage = functools.partial(_stage, number=number, train=train)
      x = remat.call_function(stage, self, x, recompute=train and self.remat == "stage")
    return x


def _stage(
  network: IR50, x: Float[Array, "b h w c"], *, number: int, train: bool
) -> Float[Array, "b _ _ _"]:
  first = sum(network.units[:number])
  for i in range(network.units[number]):
    stride = 1 if i else 2
    unit = IRUnit(2**number * network.width, stride, network.dtype, name=f"unit{first + i}")
    x = remat.call(unit, x, train=train, recompute=network.remat == "block")
  return x

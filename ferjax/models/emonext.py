"""EmoNeXt: classifies facial expressions with a spatial transformer and a ConvNeXt.

El Boudouri, Bohi, "EmoNeXt: an Adapted ConvNeXt for Facial Emotion Recognition", MMSP 2023,
arXiv 2501.08199. The trunk is Liu et al., "A ConvNet for the 2020s", arXiv 2201.03545.

Differences from the released code, whose parameters, names and shapes are kept:
- The attention, whose variance is penalised in training, attends over the positions of an image's
  last map, so an image's loss does not depend on the rest of the batch (`variant="released"`: over
  the images of the batch, so the penalty is zero for a batch of one).
- The localisation network's BatchNorm stores the biased batch variance, as in Flax.

As in the released code, and unlike the paper's figure, squeeze-and-excitation is only in the three
downsampling layers.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ferjax.models import remat
from ferjax.models.convnext import Initializer, LayerNorm, Stage, Stem, conv, dense, kernel_init
from ferjax.models.layers import Dtype
from ferjax.models.registry import ModelSpec, check_choices
from ferjax.ops.sampling import affine_grid, grid_sample
from ferjax.typing import ClassifierOutput


class Size(NamedTuple):
  """Blocks and channels of the stages, and the initial values of scales and kernels."""

  depths: tuple[int, ...]
  widths: tuple[int, ...]
  layer_scale: float = 1e-6  # of the blocks' branches
  kernel_init: Initializer = kernel_init


# The paper's sizes start at tiny. Atto and femto, for small data and CPUs, have the widths and
# depths of ConvNeXt V2 (Woo et al., arXiv 2301.00808) and the initial layer scale of Touvron et
# al., arXiv 2103.17239, for at most 18 blocks: starting from 1e-6, it stays near 0.01 for
# thousands of steps, and the blocks contribute little. Their kernels start larger than the
# paper's, whose standard deviation of 0.02 is small for so few channels.
_lecun = nn.initializers.lecun_normal()
SIZES = {
  "atto": Size((2, 2, 6, 2), (40, 80, 160, 320), 0.1, _lecun),
  "femto": Size((2, 2, 6, 2), (48, 96, 192, 384), 0.1, _lecun),
  "tiny": Size((3, 3, 9, 3), (96, 192, 384, 768)),
  "small": Size((3, 3, 27, 3), (96, 192, 384, 768)),
  "base": Size((3, 3, 27, 3), (128, 256, 512, 1024)),
  "large": Size((3, 3, 27, 3), (192, 384, 768, 1536)),
  "xlarge": Size((3, 3, 27, 3), (256, 512, 1024, 2048)),
}
VARIANTS = ("corrected", "released")
CHOICES = {"size": tuple(SIZES), "variant": VARIANTS}
FROZEN = ("none",)
# Top-level groups of the parameters.
PARTS = (
  "stn",
  "stem",
  "stage0",
  "downsample1",
  "stage1",
  "downsample2",
  "stage2",
  "downsample3",
  "stage3",
  "norm",
  "attention",
  "head",
)
COARSEST_STRIDE = 32


class ConvNormPool(nn.Module):
  """Convolution without padding, BatchNorm, 2x2 max pooling, ReLU."""

  features: int
  kernel_size: int
  dtype: Dtype = jnp.float32
  kernel_init: Initializer = kernel_init

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b _ _ {self.features}"]:
    x = conv(self.features, self.kernel_size, 1, self.dtype, self.kernel_init)(x)
    x = nn.BatchNorm(
      use_running_average=not train,
      momentum=0.9,
      epsilon=1e-5,
      use_fast_variance=False,
      dtype=self.dtype,
      name="norm",
    )(x)
    return nn.relu(nn.max_pool(x, (2, 2), (2, 2)))


class SpatialTransformer(nn.Module):
  """Resamples the image with a predicted affine map, initialised to the identity.

  The input size of `dense0` depends on the image size, so the parameters fit one size only.
  """

  dtype: Dtype = jnp.float32
  kernel_init: Initializer = kernel_init

  @nn.compact
  def __call__(self, image: Float[Array, "b h w 3"], *, train: bool) -> Float[Array, "b h w 3"]:
    b, height, width, _ = image.shape
    x = ConvNormPool(8, 7, self.dtype, self.kernel_init, name="conv0")(image, train=train)
    x = ConvNormPool(10, 5, self.dtype, self.kernel_init, name="conv1")(x, train=train)
    x = x.reshape(b, -1)
    self._check_size(height, width, x.shape[-1])
    x = nn.relu(dense(32, "dense0", self.dtype, self.kernel_init)(x))
    # At least float32: in bfloat16, points would be off by up to half a pixel.
    x = x.astype(jnp.promote_types(self.dtype, jnp.float32))
    theta = nn.Dense(
      6, kernel_init=nn.initializers.zeros_init(), bias_init=_identity, name="dense1"
    )(x)
    grid = affine_grid(theta.reshape(b, 2, 3), height, width, align_corners=True)
    return grid_sample(image, grid, align_corners=True)

  def _check_size(self, height: int, width: int, flattened: int):
    if not self.has_variable("params", "dense0"):
      return
    expected = self.get_variable("params", "dense0")["kernel"].shape[0]
    if flattened != expected:
      # For a square image of 32 n pixels, the localisation network gives 10 maps of side 8 n - 4.
      side = 4 * (math.isqrt(expected // 10) + 4)
      raise ValueError(
        f"the image is {height} x {width} pixels, which the spatial transformer flattens to "
        f"{flattened} elements; its kernel has {expected} rows, as for a square of {side} pixels: "
        "resize the image to the size that the network was initialised with"
      )


def _identity(key, shape, dtype=jnp.float32):
  """The identity, a flattened 2x3 matrix."""
  del key
  return jnp.array([1, 0, 0, 0, 1, 0], dtype).reshape(shape)


class SqueezeExcitation(nn.Module):
  """Squeeze-and-excitation (Hu et al., arXiv 1709.01507)."""

  reduction: int = 16
  dtype: Dtype = jnp.float32
  kernel_init: Initializer = kernel_init

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    c = x.shape[-1]
    y = x.mean((1, 2))
    init = self.kernel_init
    y = nn.relu(dense(c // self.reduction, "dense0", self.dtype, init, use_bias=False)(y))
    y = nn.sigmoid(dense(c, "dense1", self.dtype, init, use_bias=False)(y))
    return x * y[:, None, None]


class Downsample(nn.Module):
  """Halves the map's sides, then applies squeeze-and-excitation."""

  features: int
  dtype: Dtype = jnp.float32
  kernel_init: Initializer = kernel_init

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h/2 w/2 {self.features}"]:
    x = LayerNorm(dtype=self.dtype, name="norm")(x)
    x = conv(self.features, 2, 2, self.dtype, self.kernel_init)(x)
    return SqueezeExcitation(dtype=self.dtype, kernel_init=self.kernel_init, name="se")(x)


class TokenAttention(nn.Module):
  """Normalised tokens plus attended values, and weights that sum to 1 over the last axis."""

  dtype: Dtype = jnp.float32
  kernel_init: Initializer = kernel_init

  @nn.compact
  def __call__(
    self, tokens: Float[Array, "*g t c"]
  ) -> tuple[Float[Array, "*g t c"], Float[Array, "*g t t"]]:
    c = tokens.shape[-1]
    x = LayerNorm(1e-5, self.dtype, name="norm")(tokens)
    query, key, value = (
      dense(c, name, self.dtype, self.kernel_init)(x) for name in ("query", "key", "value")
    )
    scores = jnp.einsum("...ic,...jc->...ij", query, key, preferred_element_type=jnp.float32)
    weights = nn.softmax(scores / c**0.25, axis=-1)
    return x + weights.astype(value.dtype) @ value, weights


class EmoNeXt(nn.Module):
  """Expression scores for RGB images in 0..1 with sides divisible by 32.

  The parameters fit one image size only. Stochastic depth uses the random stream "dropout".
  `ClassifierOutput.attention` is set in training, for the regulariser (spec: emonext,
  Self-attention regularisation): [b t t] over the t positions of the last map, or [b b] over the
  batch for `variant="released"`.
  """

  num_classes: int
  size: str = "tiny"
  variant: str = "corrected"
  frozen: str = "none"
  drop_path_rate: float = 0.1  # of the last block; increases linearly from 0
  remat: str = "none"  # see `ferjax.models.remat`
  dtype: Dtype = jnp.float32

  def check(self):
    """Raises a ValueError for a field whose value is unknown or out of range."""
    check_choices(self, "emonext", {**CHOICES, "frozen": FROZEN, "remat": remat.REMAT})
    if not 0 <= self.drop_path_rate < 1:
      raise ValueError(
        f"drop_path_rate is {self.drop_path_rate}; it must be at least 0 and below 1"
      )

  @nn.compact
  def __call__(self, image: Float[Array, "b h w 3"], *, train: bool) -> ClassifierOutput:
    self.check()
    height, width = image.shape[1:3]
    if height % COARSEST_STRIDE or width % COARSEST_STRIDE or not height or not width:
      raise ValueError(
        f"the image is {height} x {width} pixels; both sides must be divisible by "
        f"{COARSEST_STRIDE}: resize or crop it, for example to 224 x 224"
      )
    depths, widths, layer_scale, init = SIZES[self.size]
    # In bfloat16, the transformer's rounding moves the sampled points and causes most of the error
    # of the outputs; it is 2 % of the operations.
    precise = jnp.promote_types(self.dtype, jnp.float32).type
    transformer = SpatialTransformer(precise, init, name="stn")
    x = remat.call(transformer, image, train=train, recompute=self.remat != "none")
    for i, (rates, features) in enumerate(zip(self._rates(depths), widths, strict=True)):
      if i == 0:
        x = Stem(features, self.dtype, init, name="stem")(x)
      else:
        x = Downsample(features, self.dtype, init, name=f"downsample{i}")(x)
      stage = Stage(rates, layer_scale, self.dtype, self.remat, init, name=f"stage{i}")
      x = remat.call(stage, x, train=train, recompute=self.remat == "stage")
    features = LayerNorm(name="norm")(x.mean((1, 2)))
    logits = dense(self.num_classes, "head", jnp.float32, init)(features)
    attention = None
    if train or self.is_initializing():
      positions = x.reshape(x.shape[0], -1, x.shape[-1])
      tokens = positions if self.variant == "corrected" else features
      _, attention = TokenAttention(self.dtype, init, name="attention")(tokens)
    return ClassifierOutput(logits, features, attention if train else None)

  def _rates(self, depths: tuple[int, ...]) -> tuple[tuple[float, ...], ...]:
    """Stochastic depth rates, by stage and block."""
    last, starts = sum(depths) - 1, [sum(depths[:i]) for i in range(len(depths))]
    return tuple(
      tuple(self.drop_path_rate * (start + i) / last for i in range(depth))
      for start, depth in zip(starts, depths, strict=True)
    )


def _explain_layer(image_size: int) -> str:
  """The last map that has at least 7 x 7 cells, or that of 8 pixels a cell if none of these has.

  Coarser maps cannot tell the parts of a face apart, and agree less with what the network predicts
  when these parts are hidden (docs/explanations.md). A map before the last is taken after its
  LayerNorm, which is invariant to the scale of a cell: before it, features times gradient sum to 0
  in each cell.
  """
  for layer, stride in (("stage3", 32), ("downsample3/norm", 16)):
    if image_size >= 7 * stride:
      return layer
  return "downsample2/norm"


SPEC = ModelSpec(
  module=EmoNeXt,
  task="classification",
  image_size=224,
  stride=COARSEST_STRIDE,
  parts=PARTS,
  frozen=FROZEN,
  choices=CHOICES,
  explain_layer=_explain_layer,
  spatial_transformer=("stn/dense1", "stn"),
  has_attention=True,
  released_names={EmoNeXt: "ferjax.interop.emonext_names:NAMING"},
  importers={"": "ferjax.interop.convnext:import_emonext_or_convnext"},
)

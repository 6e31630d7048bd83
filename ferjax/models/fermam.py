"""FERMam: classifies facial expressions with two branches, at three scales.

"FERMam: a lightweight dual-source and multi-scale fusion framework for facial expression
recognition", Scientific Reports (2026), doi 10.1038/s41598-026-44396-6.

Differences from the released code, whose parameters, names and shapes are kept;
`variant="released"` reproduces it:
- Image tokens: each has the features of its own 2x2 patch. The released program reshapes the map's
  memory, which mixes unrelated positions.
- Pooling: the head's input is the mean of the tokens. The released head takes the first token, the
  top-left corner of the face, as if it were a class token.
- Scans: the outputs of the four directions are moved back to their positions before the sum.
- Step sizes: the initial bias is an inverse softplus.
- ASFR: the skip coefficient is the parameter D; in the released code, the number of channels.
- The frozen landmark branch keeps its BatchNorm statistics; the released code updates them.
- The embedding heads of both branches, whose outputs are unused, are omitted.
"""

import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ferjax.models import remat
from ferjax.models.ir50 import IR50
from ferjax.models.layers import Dtype, TorchDense
from ferjax.models.mobilefacenet import MobileFaceNet
from ferjax.models.registry import ModelSpec, check_choices
from ferjax.models.ssm import ASFR, CONV_SSM_MODES, ConvSSM
from ferjax.ops.strided import strided
from ferjax.typing import ClassifierOutput, DimSize


class Size(NamedTuple):
  """Token width, units per stage of IR-50, blocks per stage of MobileFaceNet."""

  width: int
  units: tuple[int, int, int]
  blocks: tuple[int, int, int]


# The paper has one size, "base"; "nano" and "tiny" are for small images, CPUs and tests.
SIZES = {
  "nano": Size(128, (1, 1, 2), (1, 1, 1)),
  "tiny": Size(256, (2, 2, 2), (1, 2, 1)),
  "base": Size(512, (3, 4, 14), (4, 6, 2)),
}
VARIANTS = ("corrected", "released")
CHOICES = {"size": tuple(SIZES), "variant": VARIANTS, "mode": CONV_SSM_MODES}
FROZEN = ("none", "landmark", "image", "image+landmark")
# Top-level groups of the parameters.
PARTS = ("image", "landmark", "image_proj", "conv_ssm", "fusion", "gate", "head")
STRIDE = 32  # image pixels per token side
SCALES = (1, 2, 4)  # pooling sizes of the pyramid


def image_tokens(x: Float[Array, "b h w c"], *, variant: str) -> Float[Array, "b h//2*w//2 4*c"]:
  """The tokens of 2x2 patches, row major.

  Corrected: the concatenated features of the patch's four cells. Released: the map's channels-first
  memory, reshaped to tokens.
  """
  b, h, w, c = x.shape
  if variant == "released":
    return x.transpose(0, 3, 1, 2).reshape(b, h * w // 4, 4 * c)
  patches = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
  return patches.reshape(b, h * w // 4, 4 * c)


def half_by_nearest(x: Float[Array, "b h w c"]) -> Float[Array, "b h//2 w//2 c"]:
  return strided(x, 2)


def average_pool(x: Float[Array, "b h w c"], side: int) -> Float[Array, "b _ _ c"]:
  """Average pooling with square windows, at most as large as the map; drops incomplete ones."""
  window = (min(side, x.shape[1]), min(side, x.shape[2]))
  return nn.avg_pool(x, window, strides=window)


class PyramidFusion(nn.Module):
  """Fuses the tokens of both branches and refines them at three scales.

  With `recompute`, the gradient stores the inputs of the refinements only (`ferjax.models.remat`).
  """

  variant: str = "corrected"
  dropout_rate: float = 0.1
  dtype: Dtype = jnp.float32
  recompute: bool = False

  @nn.compact
  def __call__(
    self,
    image: Float[Array, "b l c"],
    landmark: Float[Array, "b l c"],
    *,
    train: bool,
    grid: tuple[DimSize, DimSize] | None = None,
  ) -> Float[Array, "b l c"]:
    """`grid` is the (rows, columns) of the tokens, in row-major order.

    None arranges them in a square, zero-padded if their number is not a square.
    """
    b, length, c = image.shape
    x = jnp.concatenate([image, landmark], axis=-1)
    x = TorchDense(c, self.dtype, name="proj")(x)
    height, width = grid or (math.isqrt(length - 1) + 1,) * 2
    x = jnp.pad(x, ((0, 0), (0, height * width - length), (0, 0)))
    x = x.reshape(b, height, width, c)
    y = jnp.zeros_like(x)
    for i, side in enumerate(SCALES):
      refine = ASFR(self.variant, self.dropout_rate, self.dtype, name=f"asfr{i}")
      pooled = average_pool(x, side)
      refined = remat.call(refine, pooled, train=train, recompute=self.recompute)
      y = y + jax.image.resize(refined, x.shape, "bilinear")
    y = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, use_fast_variance=False, name="norm")(y)
    return y.reshape(b, height * width, c)[:, :length]


class Gate(nn.Module):
  """x times the sigmoid of two Dense layers of x."""

  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b c"]) -> Float[Array, "b c"]:
    dense = functools.partial(TorchDense, x.shape[-1], self.dtype)
    gate = dense(name="dense1")(nn.relu(dense(name="dense0")(x)))
    return x * nn.sigmoid(gate)


class FERMam(nn.Module):
  """Class logits for normalised RGB images with sides divisible by 32.

  `mode` removes one half of Conv-SSM, for ablations. `frozen` names the branches that use stored
  BatchNorm statistics and get no gradient; in the released variant, the statistics of a frozen
  landmark branch are still updated.
  """

  num_classes: int
  size: str = "base"
  variant: str = "corrected"
  mode: str = "both"
  frozen: str = "none"
  dropout_rate: float = 0.1
  remat: str = "none"  # see `ferjax.models.remat`
  dtype: Dtype = jnp.float32

  def check(self):
    """Raises a ValueError for a field whose value is unknown."""
    check_choices(self, "fermam", {**CHOICES, "frozen": FROZEN, "remat": remat.REMAT})

  def setup(self):
    self.check()
    width, units, blocks = SIZES[self.size]
    recompute = self.remat != "none"
    self.image = IR50(width // 8, units, self.dtype, self.remat)
    self.landmark = MobileFaceNet(width // 8, blocks, dtype=self.dtype, remat=self.remat)
    self.image_proj = TorchDense(width, self.dtype)
    self.conv_ssm = ConvSSM(self.variant, self.mode, self.dtype)
    self.fusion = PyramidFusion(self.variant, self.dropout_rate, self.dtype, recompute)
    self.gate = Gate(self.dtype)
    self.head = TorchDense(self.num_classes)

  def __call__(self, image: Float[Array, "b h w 3"], *, train: bool) -> ClassifierOutput:
    height, width = image.shape[1:3]
    if height % STRIDE or width % STRIDE or not height or not width:
      raise ValueError(
        f"the image is {height} x {width} pixels; both sides must be divisible by {STRIDE}: "
        "resize it, for example to 224 x 224"
      )
    grid = (height // STRIDE, width // STRIDE)
    return self.classify(
      self._image_tokens(image, grid, train=train),
      self._landmark_tokens(image, train=train),
      grid,
      train=train,
    )

  def classify(
    self,
    image: Float[Array, "b l c"],
    landmark: Float[Array, "b l c"],
    grid: tuple[DimSize, DimSize],
    *,
    train: bool,
  ) -> ClassifierOutput:
    """The network after the branches; `grid` is the (rows, columns) of their tokens."""
    tokens = self.fusion(image, landmark, train=train, grid=grid)
    pooled = tokens.mean(axis=1) if self.variant == "corrected" else tokens[:, 0]
    features = self.gate(pooled).astype(jnp.float32)
    return ClassifierOutput(self.head(features), features)

  def _image_tokens(self, image, grid, *, train: bool):
    frozen = "image" in self.frozen
    x = self.image(half_by_nearest(image), train=train and not frozen)
    x = jax.lax.stop_gradient(x) if frozen else x
    x = self.image_proj(image_tokens(x, variant=self.variant))
    x = x.reshape(-1, *grid, x.shape[-1])
    x = remat.call(self.conv_ssm, x, train=train, recompute=self.remat != "none")
    return x.reshape(-1, grid[0] * grid[1], x.shape[-1])

  def _landmark_tokens(self, image, *, train: bool):
    frozen = "landmark" in self.frozen
    # Bilinear resizing to half the size equals 2x2 average pooling.
    half = average_pool(image, 2)
    x = self.landmark(half, train=train and (not frozen or self.variant == "released")).features
    x = jax.lax.stop_gradient(x) if frozen else x
    b, height, width, c = x.shape
    return x.reshape(b, height * width, c)


SPEC = ModelSpec(
  module=FERMam,
  task="classification",
  image_size=224,
  stride=STRIDE,
  parts=PARTS,
  frozen=FROZEN,
  choices=CHOICES,
  # The image branch's map: later maps have a quarter of its cells and, in the released variant, not
  # the image's layout.
  explain_layer=lambda image_size: "image",
  released_names={
    FERMam: "ferjax.interop.fermam_names:FERMAM",
    IR50: "ferjax.interop.fermam_names:IR50",
    MobileFaceNet: "ferjax.interop.fermam_names:MOBILEFACENET",
  },
  importers={
    "": "ferjax.interop.pretrained:import_selected",
    "image": "ferjax.interop.branches:import_part",
    "landmark": "ferjax.interop.branches:import_part",
  },
)

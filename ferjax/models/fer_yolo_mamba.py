"""FER-YOLO-Mamba: detects faces and classifies their expressions.

Ma, Lei, Celik, Li, "FER-YOLO-Mamba: Facial Expression Detection and Classification Based on
Selective State Space", arXiv 2405.01828 (2024).

Differences from the released code, whose parameters, names and shapes are kept:
- P3 level: the 3x3 convolution before the finest head has stride 1, so the maps have strides 8, 16
  and 32, as in the paper's figure (`variant="released"`: stride 2, strides 16, 16, 32).
- All state-space parameters are trained (`optimizer.decay="released"`: none, see `SPEC`).
- The 1x1 stems of the head are applied; the newest released commit builds them and then fails.
- The neck's widths depend on the size; the released code only works for size "s".
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ferjax.models import remat
from ferjax.models.csp_darknet import CSPDarknet
from ferjax.models.layers import Conv, ConvNormAct, Dtype, spatial_conv, upsample2
from ferjax.models.registry import DecayRule, ModelSpec, ParameterPath, check_choices
from ferjax.models.ssm import SCAN_PARAMETERS, VSSBlock
from ferjax.typing import DetectorOutput

# Depth and width multiples (YOLOX, table 2); nano has depthwise separable convolutions.
SIZES = {
  "nano": (0.33, 0.25),
  "tiny": (0.33, 0.375),
  "s": (0.33, 0.5),
  "m": (0.67, 0.75),
  "l": (1.0, 1.0),
  "x": (1.33, 1.25),
}
VARIANTS = ("corrected", "released")
CHOICES = {"size": tuple(SIZES), "variant": VARIANTS}
FROZEN = ("none", "backbone", "backbone+neck")
PARTS = ("backbone", "neck", "head")  # top-level groups of the parameters
COARSEST_STRIDE = 32


class VSSNeck(nn.Module):
  """Top-down and bottom-up path aggregation with FER-YOLO-VSS blocks.

  With `recompute`, the gradient stores the inputs of the blocks only (`ferjax.models.remat`).
  """

  width: float
  variant: str
  separable: bool = False
  drop_path_rate: float = 0.0
  dtype: Dtype = jnp.float32
  recompute: bool = False

  @nn.compact
  def __call__(
    self,
    features: tuple[
      Float[Array, "b h3 w3 _"], Float[Array, "b h4 w4 _"], Float[Array, "b h5 w5 _"]
    ],
    *,
    train: bool,
  ) -> tuple[Float[Array, "b _ _ _"], Float[Array, "b h4 w4 _"], Float[Array, "b h5 w5 _"]]:
    c3, c4, c5 = features
    fine, coarse = int(256 * self.width), int(512 * self.width)

    def pointwise(name, channels, x):
      return ConvNormAct(channels, dtype=self.dtype, name=name)(x, train=train)

    def down(name, channels, x):
      conv = spatial_conv(channels, 2, separable=self.separable, dtype=self.dtype, name=name)
      return conv(x, train=train)

    def vss(name, *maps):
      x = jnp.concatenate(maps, axis=-1)
      block = VSSBlock(self.drop_path_rate, dtype=self.dtype, name=name)
      return remat.call(block, x, train=train, recompute=self.recompute)

    p5 = pointwise("lateral", coarse, c5)
    p4 = pointwise("reduce_p4", fine, vss("vss_p4", upsample2(p5), c4))
    p3 = vss("vss_p3", upsample2(p4), c3)
    stride = 1 if self.variant == "corrected" else 2
    out3 = ConvNormAct(fine, 3, stride, dtype=self.dtype, name="out_p3")(p3, train=train)
    out4 = vss("vss_n3", down("down_p3", fine, p3), p4)
    out5 = vss("vss_n4", down("down_n3", coarse, out4), p5)
    return out3, out4, out5


class HeadLevel(nn.Module):
  """One level of the decoupled head of YOLOX: channels x, y, w, h, objectness, classes.

  Its few layers amplify rounding errors little, so none is `precise`.
  """

  num_classes: int
  features: int
  prior_probability: float | None
  separable: bool = False
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b h w 5+{self.num_classes}"]:
    fast = {"precise": False, "dtype": self.dtype}
    stem = ConvNormAct(self.features, **fast, name="stem")(x, train=train)

    def branch(name):
      y = stem
      for i in (0, 1):
        conv = spatial_conv(self.features, 1, separable=self.separable, **fast, name=f"{name}{i}")
        y = conv(y, train=train)
      return y

    prior_init = None
    if self.prior_probability is not None:
      logit = math.log(self.prior_probability / (1 - self.prior_probability))
      prior_init = nn.initializers.constant(logit)

    def predict(name, channels, y, bias_init=None):
      conv = Conv(channels, use_bias=True, bias_init=bias_init, dtype=self.dtype, name=name)
      return conv(y).astype(jnp.float32)

    classes = predict("cls_pred", self.num_classes, branch("cls_conv"), prior_init)
    regression = branch("reg_conv")
    box = predict("reg_pred", 4, regression)
    objectness = predict("obj_pred", 1, regression, prior_init)
    return jnp.concatenate([box, objectness, classes], axis=-1)


class DecoupledHead(nn.Module):
  """One `HeadLevel` per map, each with its own weights; `recompute` as in `VSSNeck`."""

  num_classes: int
  features: int
  prior_probability: float | None
  separable: bool = False
  dtype: Dtype = jnp.float32
  recompute: bool = False

  @nn.compact
  def __call__(
    self, features: tuple[Float[Array, "b _ _ _"], ...], *, train: bool
  ) -> tuple[Float[Array, "b _ _ 5+{self.num_classes}"], ...]:
    arguments = (self.num_classes, self.features, self.prior_probability, self.separable)
    levels = [HeadLevel(*arguments, self.dtype, name=f"level{i}") for i in range(len(features))]
    return tuple(
      remat.call(level, x, train=train, recompute=self.recompute)
      for level, x in zip(levels, features, strict=True)
    )


class FerYoloMamba(nn.Module):
  """Raw maps of the three levels for normalised RGB images with sides divisible by 32.

  `frozen` names the parts that use stored BatchNorm statistics and get no gradient.
  `prior_probability` sets the initial bias of objectness and classes; None initialises it as in
  torch.
  """

  num_classes: int
  size: str = "s"
  variant: str = "corrected"
  frozen: str = "none"
  prior_probability: float | None = 0.01
  drop_path_rate: float = 0.0
  remat: str = "none"  # see `ferjax.models.remat`
  dtype: Dtype = jnp.float32

  def check(self):
    """Raises a ValueError for a field whose value is unknown."""
    check_choices(self, "fer_yolo_mamba", {**CHOICES, "frozen": FROZEN, "remat": remat.REMAT})

  def setup(self):
    self.check()
    depth, width = SIZES[self.size]
    separable = self.size == "nano"
    recompute = self.remat != "none"
    self.backbone = CSPDarknet(width, depth, separable, self.dtype, self.remat)
    self.neck = VSSNeck(width, self.variant, separable, self.drop_path_rate, self.dtype, recompute)
    self.head = DecoupledHead(
      self.num_classes, int(256 * width), self.prior_probability, separable, self.dtype, recompute
    )

  def __call__(self, image: Float[Array, "b h w 3"], *, train: bool) -> DetectorOutput:
    height, width = image.shape[1:3]
    if height % COARSEST_STRIDE or width % COARSEST_STRIDE or not height or not width:
      raise ValueError(
        f"the image is {height} x {width} pixels; both sides must be divisible by "
        f"{COARSEST_STRIDE}: letterbox it, for example with ferjax.data.image.letterbox"
      )
    features = self.backbone(image, train=train and self.frozen == "none")
    if self.frozen == "backbone":
      features = jax.lax.stop_gradient(features)
    features = self.neck(features, train=train and self.frozen != "backbone+neck")
    if self.frozen == "backbone+neck":
      features = jax.lax.stop_gradient(features)
    return DetectorOutput(self.head(features, train=train))


def _released_decays(path: ParameterPath) -> bool:
  """Kernels and LayerNorm scales; LayerNorm is called "norm" and BatchNorm "bn"."""
  return path[-1] == "kernel" or path[-2:] == ("norm", "scale")


def _released_frozen(path: ParameterPath) -> bool:
  """The selective scan's parameters, which the released program omits from its optimiser."""
  return path[-1] in SCAN_PARAMETERS


SPEC = ModelSpec(
  module=FerYoloMamba,
  task="detection",
  image_size=320,
  stride=COARSEST_STRIDE,
  parts=PARTS,
  frozen=FROZEN,
  choices=CHOICES,
  explain_layer=lambda image_size: "neck",
  decay_rules={"released": DecayRule(_released_decays, _released_frozen)},
  released_names={FerYoloMamba: "ferjax.interop.fer_yolo_mamba_names:NAMING"},
  importers={"": "ferjax.interop.pretrained:import_selected"},
)

"""Names of the variables of `FERMam` and its two branches in the released program."""

from collections.abc import Mapping

import numpy as np

from ferjax.expressions import RAF_DB_CODES
from ferjax.interop.naming import Naming, size_by_shape
from ferjax.models.fermam import SIZES

# Part of `FERMam` -> the prefix of its weight names.
BRANCHES = {"image": "ir_back.", "landmark": "face_landback."}
_STEMS = ("ir_back.input_layer.0.weight", "face_landback.conv1.conv.weight")


def size(state_dict: Mapping[str, np.ndarray]) -> str:
  """The size of a state dict of the network or of its branches, by the channels of a stem."""
  name = next((name for name in _STEMS if name in state_dict), "")
  sizes = {(x.width // 8,): size for size, x in SIZES.items()}
  return size_by_shape(name, np.shape(state_dict[name])[:1], sizes) if name else ""


# `\b` matches names with and without the prefix of the whole network.
_IR50 = (
  (r"\bstem$", r"input_layer.0"),
  (r"\bstem_bn$", r"input_layer.1"),
  (r"\bstem_prelu$", r"input_layer.2"),
  (r"\bunit(\d+)\b", r"body.\1"),
  (r"(body\.\d+)\.bn1$", r"\1.res_layer.0"),
  (r"(body\.\d+)\.conv1$", r"\1.res_layer.1"),
  (r"(body\.\d+)\.prelu$", r"\1.res_layer.2"),
  (r"(body\.\d+)\.conv2$", r"\1.res_layer.3"),
  (r"(body\.\d+)\.bn2$", r"\1.res_layer.4"),
  (r"(body\.\d+)\.shortcut$", r"\1.shortcut_layer.0"),
  (r"(body\.\d+)\.shortcut_bn$", r"\1.shortcut_layer.1"),
)
_MOBILEFACENET = (
  (r"\bstem\.", r"conv1."),
  (r"\bstem_depthwise\.", r"conv2_dw."),
  (r"\bdown0\.", r"conv_23."),
  (r"\bdown1\.", r"conv_34."),
  (r"\bdown2\.", r"conv_45."),
  (r"\bstage(\d)_block(\d)\.", lambda m: f"conv_{int(m[1]) + 3}.model.{m[2]}."),
  (r"(\bconv_\d.*)\.expand\.", r"\1.conv."),
  (r"(\bconv_\d.*)\.depthwise\.", r"\1.conv_dw."),
  (r"\blast\.", r"conv_6_sep."),
  (r"\bembedding\.depthwise$", r"output_layer.conv_6_dw.conv"),
  (r"\bembedding\.depthwise_bn$", r"output_layer.conv_6_dw.bn"),
  (r"\bembedding\.dense$", r"output_layer.linear"),
  (r"\bembedding\.bn$", r"output_layer.bn"),
)
_REST = (
  (r"^image_proj$", r"ir_layer"),
  (r"^conv_ssm\b", r"ir_ssm"),
  (r"\bconv_branch\.bn0$", r"conv_branch.0"),
  (r"\bconv_branch\.conv0$", r"conv_branch.1"),
  (r"\bconv_branch\.bn1$", r"conv_branch.2"),
  (r"\bconv_branch\.conv1$", r"conv_branch.4"),
  (r"\bconv_branch\.bn2$", r"conv_branch.5"),
  (r"\bconv_branch\.conv2$", r"conv_branch.7"),
  (r"\bss2d\.conv$", r"ss2d.conv2d"),
  (r"\bss2d\.norm$", r"ss2d.out_norm"),
  (r"^ir_ssm\.norm$", r"ir_ssm.ln"),
  (r"^fusion\.proj$", r"fusion.fusion_proj"),
  (r"\basfr(\d)\b", lambda m: f"ssm{int(m[1]) + 1}"),
  (r"\b(ssm\d)\.conv$", r"\1.depthwise_conv"),
  (r"\b(ssm\d)\.input_step$", r"\1.dt_to_N_proj"),
  (r"\b(ssm\d)\.norm$", r"\1.out_norm"),
  (r"^gate\b", r"se_block"),
  (r"^se_block\.dense0$", r"se_block.linear1"),
  (r"^se_block\.dense1$", r"se_block.linear2"),
  (r"^head$", r"head.linear"),
)
_PRELU = {"slope": "weight"}
_NORM = ("weight", "bias", "running_mean", "running_var")

# Embeddings of both branches, which the released program builds but does not use.
_UNUSED = {
  **{f"ir_back.output_layer.0.{x}": (512,) for x in _NORM},
  "ir_back.output_layer.3.weight": (512, 512 * 7 * 7),
  "ir_back.output_layer.3.bias": (512,),
  **{f"ir_back.output_layer.4.{x}": (512,) for x in _NORM},
  "face_landback.output_layer.conv_6_dw.conv.weight": (512, 1, 7, 7),
  **{f"face_landback.output_layer.conv_6_dw.bn.{x}": (512,) for x in _NORM},
  "face_landback.output_layer.linear.weight": (512, 512),
  **{f"face_landback.output_layer.bn.{x}": (512,) for x in _NORM},
}

# Recognition networks have a fourth stage (units 21 to 23) and an embedding, which FERMam's image
# branch lacks; MobileFaceNet's embedding may be of faces or of landmarks.
FERMAM = Naming(
  rules=(
    (r"^image\b", r"ir_back"),
    (r"^landmark\b", r"face_landback"),
    *_IR50,
    *_MOBILEFACENET,
    *_REST,
  ),
  leaves={
    **_PRELU,
    "ss2d.dt_proj_weight": "dt_projs_weight",
    "ss2d.dt_proj_bias": "dt_projs_bias",
    "ss2d.A_log": "A_logs",
    "ss2d.D": "Ds",
  },
  ignored=r"^(ir_back|face_landback)\.output_layer\.|^ir_back\.body\.2[1-3]\.",
  unused=_UNUSED,
  size=size,
  classes="head.linear.weight",
  branches=BRANCHES,
  first_kernels=("image.stem", "landmark.stem.conv"),
  input={"class_names": tuple(RAF_DB_CODES.values())},
)
IR50 = Naming(rules=_IR50, leaves=_PRELU, ignored=r"^(output_layer|body\.2[1-3])\.")
MOBILEFACENET = Naming(
  rules=_MOBILEFACENET, leaves=_PRELU, ignored=r"^output_layer\.", image_size=lambda state_dict: 112
)

"""Names of the variables of `FerYoloMamba` in the released program."""

from collections.abc import Mapping

import numpy as np

from ferjax.interop.naming import Naming, size_by_shape
from ferjax.models.fer_yolo_mamba import SIZES

_STEM = "backbone.backbone.stem.conv.conv.weight"


def size(state_dict: Mapping[str, np.ndarray]) -> str:
  """The size of a state dict of this network or of YOLOX, by the channels of the stem."""
  if _STEM not in state_dict:
    return ""
  sizes = {(int(64 * width),): name for name, (_, width) in SIZES.items()}
  return size_by_shape(_STEM, np.shape(state_dict[_STEM])[:1], sizes)


NAMING = Naming(
  leaves={
    "dt_proj_weight": "dt_projs_weight",
    "dt_proj_bias": "dt_projs_bias",
    "A_log": "A_logs",
    "D": "Ds",
  },
  rules=(
    (r"^backbone\.stem", r"backbone.backbone.stem"),
    (r"^backbone\.stage(\d)_conv", r"backbone.backbone.dark\1.0"),
    (r"^backbone\.stage5_spp", r"backbone.backbone.dark5.1"),
    (r"^backbone\.stage5_csp", r"backbone.backbone.dark5.2"),
    (r"^backbone\.stage(\d)_csp", r"backbone.backbone.dark\1.1"),
    (r"\.bottleneck(\d+)", r".m.\1"),
    (r"\.depthwise\b", r".dconv"),
    (r"\.pointwise\b", r".pconv"),
    (r"^neck\.lateral", r"backbone.lateral_conv0"),
    (r"^neck\.reduce_p4", r"backbone.reduce_conv1"),
    (r"^neck\.out_p3", r"backbone.reduce_conv111"),
    (r"^neck\.down_p3", r"backbone.bu_conv2"),
    (r"^neck\.down_n3", r"backbone.bu_conv1"),
    (r"^neck\.vss_(\w\d)", r"backbone.C3_\1.0"),
    (r"\.ss2d\.conv$", r".self_attention.conv2d"),
    (r"\.ss2d\.norm$", r".self_attention.out_norm"),
    (r"\.ss2d\b", r".self_attention"),
    (r"\.norm$", r".ln_1"),
    (r"\.frm\.reduce$", r".frm.0"),
    (r"\.frm\.reduce_bn$", r".frm.1"),
    (r"\.frm\.attention\b", r".frm.3"),
    (r"\.dense(\d)$", lambda m: f".fc.{2 * int(m[1])}"),
    (r"\.frm\.expand$", r".frm.4"),
    (r"\.frm\.expand_bn$", r".frm.5"),
    (r"\.fuse$", r".finalconv11"),
    (r"^head\.level(\d)\.stem", r"head.stems.\1"),
    (r"^head\.level(\d)\.(cls|reg)_conv(\d)", r"head.\2_convs.\1.\3"),
    (r"^head\.level(\d)\.(cls|reg|obj)_pred", r"head.\2_preds.\1"),
  ),
  size=size,
  classes="head.cls_preds.0.weight",
  first_kernels=("backbone.stem.conv.conv",),
)

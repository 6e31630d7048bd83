"""Which entry of a checkpoint belongs to which variable."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from ferjax.interop.emonext_names import NAMING as EMONEXT
from ferjax.interop.fer_yolo_mamba_names import NAMING as DETECTOR
from ferjax.interop.matching import match_entries, matched_variables, reverse_channels
from ferjax.interop.torch_weights import export_state_dict, import_state_dict
from ferjax.models import create_model


@pytest.fixture(scope="module")
def emonext():
  return create_model("emonext", num_classes=7, size="atto")


@pytest.fixture(scope="module")
def detector():
  return create_model("fer_yolo_mamba", num_classes=7, size="nano")


def test_a_whole_network(emonext, emonext_atto):
  match = match_entries(emonext, emonext_atto, 32)
  assert match.missing == match.initialised == {}
  assert match.unknown == ()
  counters = {x for x in emonext_atto if x.endswith("num_batches_tracked")}
  assert match.ignored == dict.fromkeys(counters, "a counter of BatchNorm")
  assert match.used.keys() == emonext_atto.keys() - counters
  assert match.used["stages.2.5.dwconv.weight"] == "params/stage2/block5/conv/kernel"
  ours = matched_variables(emonext, emonext_atto, match, 32)
  jax.tree.map(np.testing.assert_array_equal, ours, import_state_dict(emonext, emonext_atto))


def test_an_incomplete_network(emonext, emonext_atto):
  entries = {x: y for x, y in emonext_atto.items() if not x.startswith(("head.", "localization.4"))}
  entries["norm.bias"] = np.zeros(3, np.float32)
  match = match_entries(emonext, entries, 32, initialise=("head",))
  assert match.missing == {
    "params/stn/conv1/conv/kernel": "localization.4.weight: not in the file",
    "params/stn/conv1/conv/bias": "localization.4.bias: not in the file",
    "params/norm/bias": "norm.bias: shape (3,), the network needs (320,)",
  }
  assert match.initialised == {
    "params/head/kernel": "head.weight: not in the file",
    "params/head/bias": "head.bias: not in the file",
  }
  assert match.ignored["norm.bias"] == "another shape"
  assert match.modules(match.missing) == ["norm/bias", "stn/conv1/conv"]
  assert match.modules(match.initialised) == ["head"]
  assert match.by_part()["stn"] == {"used": 14, "initialised": 0, "missing": 2}
  assert match.by_part()["head"] == {"used": 0, "initialised": 2, "missing": 0}
  with pytest.raises(ValueError, match=r"no part 'hed' to initialise; its parts: attention, .*stn"):
    match_entries(emonext, entries, 32, initialise=("hed",))


def test_entries_without_a_counterpart(emonext, emonext_atto):
  """They are errors inside and beside a complete network, unless a pattern allows them."""
  zero = np.zeros(1, np.float32)
  entries = emonext_atto | {"stages.0.9.gamma": zero, "aux.weight": zero, "total_ops": zero}
  match = match_entries(emonext, entries, 32)
  assert match.unknown == ("stages.0.9.gamma", "aux.weight")
  assert match.ignored["total_ops"] == "a count of a profiler"
  match = match_entries(emonext, entries, 32, ignore=("aux.*",))
  assert match.unknown == ("stages.0.9.gamma",)
  assert match.ignored["aux.weight"] == "matches 'aux.*'"


def test_yolox(detector, yolox_nano):
  """The backbone, and what agrees of the other parts; the paths' own layers have no counterpart."""
  match = match_entries(detector, yolox_nano, 320, initialise=("neck", "head"))
  assert match.missing == {}
  assert match.unknown == ()
  parts = match.by_part()
  assert parts["backbone"]["initialised"] == 0
  assert {x for x in yolox_nano if x.startswith("backbone.backbone.")} <= {*match.used} | {
    x for x in match.ignored if x.endswith("num_batches_tracked")
  }
  assert match.modules(match.initialised) == [
    *(f"head/level{i}/cls_pred" for i in range(3)),
    "neck/down_p3/depthwise",
    "neck/down_p3/pointwise/conv",
    "neck/out_p3",
    "neck/reduce_p4/conv",
    "neck/vss_n3",
    "neck/vss_n4",
    "neck/vss_p3",
    "neck/vss_p4",
  ]
  assert match.used["head.reg_convs.2.1.pconv.bn.weight"] == (
    "params/head/level2/reg_conv1/pointwise/bn/scale"
  )
  assert match.used["backbone.lateral_conv0.conv.weight"] == "params/neck/lateral/conv/kernel"
  assert match.ignored["backbone.C3_p4.m.0.conv1.conv.weight"] == (
    "a layer that the network does not have"
  )
  assert match.ignored["head.cls_preds.1.bias"] == "another shape"


OWN = {
  "fer_yolo_mamba": {"neck", "head"},
  "emonext": {"stn", "attention", "head", *(f"downsample{i}" for i in (1, 2, 3))},
}


@pytest.mark.slow  # 20 s: the largest networks are traced
@pytest.mark.parametrize(
  ("name", "size"),
  [
    *(("fer_yolo_mamba", size) for size in ("tiny", "s", "m", "l", "x")),
    *(("emonext", size) for size in ("tiny", "small", "base", "large", "xlarge")),
  ],
)
def test_published_backbones_of_every_size(published_shapes, name, size):
  """YOLOX of COCO and ConvNeXt of ImageNet-22k: all of the backbone is used."""
  shapes = published_shapes[name, size]
  entries = {x: np.broadcast_to(np.float32(0), shape) for x, shape in shapes.items()}
  naming = {"fer_yolo_mamba": DETECTOR, "emonext": EMONEXT}[name]
  assert naming.size(entries) == size
  model = create_model(name, num_classes=7, size=size)
  match = match_entries(model, entries, 32, initialise=tuple(OWN[name]))
  assert (match.missing, match.unknown) == ({}, ())
  parts = match.by_part()
  assert parts.keys() > OWN[name]
  assert all(parts[part]["initialised"] == 0 for part in parts.keys() - OWN[name])
  assert sum(parts["head"].values()) > parts["head"]["initialised"] or name == "emonext"


def test_the_layers_of_a_backbone_are_all_needed(detector, yolox_nano):
  """A deeper backbone computes something else."""
  deeper = yolox_nano | {"backbone.backbone.dark5.2.m.1.conv1.conv.weight": np.zeros(1)}
  match = match_entries(detector, deeper, 320, initialise=("neck", "head"))
  assert match.unknown == ("backbone.backbone.dark5.2.m.1.conv1.conv.weight",)


def test_random_values_only_where_there_are_no_entries(emonext, convnext_atto):
  own = ("stn", "attention", "head", *(f"downsample{i}/se" for i in (1, 2, 3)))
  match = match_entries(emonext, convnext_atto, 32, initialise=own)
  assert match.modules(match.initialised) == sorted(own)
  variables = matched_variables(emonext, convnext_atto, match, 32, seed=3)
  back = export_state_dict(emonext, variables)
  for entry in match.used:
    np.testing.assert_array_equal(back[entry], convnext_atto[entry], err_msg=entry)
  flat = flatten_dict(variables, sep="/")
  assert np.std(flat["params/head/kernel"]) > 0
  # The initial transformation is the identity.
  np.testing.assert_array_equal(flat["params/stn/dense1/bias"], [1, 0, 0, 0, 1, 0])


@pytest.mark.parametrize(
  ("value", "message"),
  [
    (np.full(320, np.nan, np.float32), "'norm.bias' has values that are not finite"),
    (np.zeros(320, np.int8), "'norm.bias' is int8; expected floating-point numbers"),
  ],
)
def test_values_that_are_no_weights(emonext, emonext_atto, value, message):
  entries = emonext_atto | {"norm.bias": value}
  match = match_entries(emonext, entries, 32)
  with pytest.raises(ValueError, match=message):
    matched_variables(emonext, entries, match, 32)


def test_reversed_channels(emonext, emonext_atto, detector):
  """The first convolutions of a reversed image give what they gave."""
  variables = import_state_dict(emonext, emonext_atto)
  reversed_ = reverse_channels(emonext, variables)["params"]
  image = np.random.default_rng(0).standard_normal((7, 7, 3)).astype(np.float32)
  for module, size in (("stem", 4), ("stn", 7)):
    ours, theirs = (
      x[module]["conv0"]["conv"] if module == "stn" else x[module]["conv"]
      for x in (reversed_, variables["params"])
    )
    patch = image[:size, :size]
    np.testing.assert_allclose(
      np.tensordot(patch[..., ::-1], ours["kernel"], 3),
      np.tensordot(patch, theirs["kernel"], 3),
      rtol=1e-4,
      atol=1e-4,
    )
  # The stem of the detector has the channels of four phases, one phase after the other.
  kernel = np.arange(12, dtype=np.float32).reshape(1, 1, 12, 1)
  stem = {"params": {"backbone": {"stem": {"conv": {"conv": {"kernel": kernel}}}}}}
  found = reverse_channels(detector, stem)["params"]["backbone"]["stem"]["conv"]["conv"]["kernel"]
  assert found.ravel().tolist() == [2, 1, 0, 5, 4, 3, 8, 7, 6, 11, 10, 9]

"""FERMam's released names, and checkpoints of single branches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import ferjax
from ferjax.interop.branches import compare_branch, import_branch
from ferjax.interop.torch_weights import (
  export_state_dict,
  import_parts,
  import_state_dict,
  load_state_dict,
)

UNUSED = ("ir_back.output_layer.", "face_landback.output_layer.")


@pytest.fixture(scope="module")
def model():
  return ferjax.create_model("fermam", num_classes=7)


@pytest.fixture(scope="module")
def weights(fermam_golden):
  return fermam_golden.weights()


@pytest.fixture(scope="module")
def variables(model, weights):
  return import_state_dict(model, weights)


@pytest.fixture(scope="module")
def blank(variables):
  return jax.tree.map(lambda x: jnp.full(x.shape, 7.0), variables)


def test_round_trip_is_exact_except_for_unused_heads(model, weights, variables):
  back = export_state_dict(model, variables)
  assert back.keys() == weights.keys()
  for name, value in weights.items():
    unused = name.startswith(UNUSED)
    expected = np.zeros_like(value) if unused else value
    np.testing.assert_array_equal(back[name], expected, err_msg=name)
    assert back[name].dtype == value.dtype


def test_layouts(weights, variables):
  params = variables["params"]
  conv = weights["ir_back.body.3.res_layer.1.weight"]
  assert params["image"]["unit3"]["conv1"]["kernel"][2, 1, 5, 7] == conv[7, 5, 2, 1]
  conv = weights["face_landback.conv_34.conv_dw.conv.weight"]
  assert params["landmark"]["down1"]["depthwise"]["conv"]["kernel"][2, 1, 0, 9] == conv[9, 0, 2, 1]
  ss2d = params["conv_ssm"]["ss2d"]
  assert ss2d["A_log"][2, 3, 4] == weights["ir_ssm.ss2d.A_logs"][2 * 512 + 3, 4]
  asfr = params["fusion"]["asfr1"]
  assert asfr["A_log"][5] == weights["fusion.ssm2.A_log"][5]
  assert asfr["input_step"]["kernel"][9, 5] == weights["fusion.ssm2.dt_to_N_proj.weight"][5, 9]
  assert params["head"]["bias"][3] == weights["head.linear.bias"][3]


def test_missing_extra_and_wrongly_shaped_entries_are_named(model, weights):
  name = "fusion.ssm3.D"
  with pytest.raises(ValueError, match=r"1 entries are missing from the state dict: fusion.ssm3.D"):
    import_state_dict(model, {k: v for k, v in weights.items() if k != name})
  with pytest.raises(ValueError, match=r"1 entries .* match no variable: fusion.ssm4.D"):
    import_state_dict(model, weights | {"fusion.ssm4.D": np.zeros(3, np.float32)})
  other = ferjax.create_model("fermam", num_classes=8)
  with pytest.raises(ValueError, match=r"'head.linear.bias' has shape \(7,\).*needs \(8,\)"):
    import_state_dict(other, weights | {"head.linear.weight": np.zeros((8, 512), np.float32)})
  # The unused heads are optional, and their shape does not matter.
  slim = {k: v for k, v in weights.items() if not k.startswith(UNUSED)}
  import_state_dict(model, slim | {"face_landback.output_layer.linear.weight": np.zeros(3)})


def test_importing_parts_keeps_the_rest(model, weights, variables, blank):
  merged = flatten_dict(import_parts(model, weights, blank, ("landmark", "head")), sep="/")
  imported = flatten_dict(variables, sep="/")
  for path, value in merged.items():
    want = imported[path] if path.split("/")[1] in ("landmark", "head") else 7.0
    np.testing.assert_array_equal(value, want, err_msg=path)


BRANCHES = {
  # part: (recorded standalone network, prefix in the whole, ignored entries except counters)
  "image": ("ir50", "ir_back.", ("output_layer.0.weight", "body.21.res_layer.0.weight")),
  "landmark": ("mobilefacenet", "face_landback.", ("output_layer.linear.weight",)),
}


@pytest.mark.parametrize("part", BRANCHES)
def test_a_branch_from_a_standalone_network(part, model, fermam_golden, blank, tmp_path):
  """Its embedding, of any size, and later stages are ignored."""
  case, prefix, ignored = BRANCHES[part]
  checkpoint = fermam_golden.weights(case) | {x: np.zeros(3, np.float32) for x in ignored}
  np.savez(tmp_path / "w.npz", **{f"module.{k}": v for k, v in checkpoint.items()})
  merged, report = import_branch(model, load_state_dict(tmp_path / "w.npz"), blank, part)
  assert report.missing == report.unknown == ()
  assert set(report.used) | set(report.ignored) == set(checkpoint)
  assert set(ignored) < set(report.ignored)
  allowed = (*ignored, "output_layer.")
  assert all(x.startswith(allowed) or "num_batches" in x for x in report.ignored)
  assert f"{len(report.used)} used" in str(report)
  assert ignored[0] in str(report)
  exported = export_state_dict(model, merged)
  for name in report.used:
    np.testing.assert_array_equal(exported[prefix + name], checkpoint[name], err_msg=name)
  for path, value in flatten_dict(merged).items():
    if path[1] != part:
      assert np.all(np.asarray(value) == 7), path


def test_entries_that_do_not_fit_a_branch_are_named(model, fermam_golden, blank):
  weights = fermam_golden.weights("mobilefacenet")
  del weights["conv1.bn.bias"]
  weights["conv_7.weight"] = np.zeros(3, np.float32)
  report = compare_branch(model, weights, blank, "landmark")
  assert (report.missing, report.unknown) == (("conv1.bn.bias",), ("conv_7.weight",))
  with pytest.raises(ValueError, match=r"landmark branch: .*conv_7.weight; missing: conv1.bn.bias"):
    import_branch(model, weights, blank, "landmark")
  with pytest.raises(ValueError, match="unknown branch 'head'; known: image, landmark"):
    import_branch(model, weights, blank, "head")


def test_the_standalone_networks(fermam_golden):
  from ferjax.models.ir50 import IR50
  from ferjax.models.mobilefacenet import MobileFaceNet

  for case, module in (("ir50", IR50()), ("mobilefacenet", MobileFaceNet(embedding_size=512))):
    weights = fermam_golden.weights(case)
    back = export_state_dict(module, import_state_dict(module, weights))
    assert {x for x in weights if x not in back} == {
      x for x in weights if case == "ir50" and x.startswith("output_layer.")
    }
    for name, value in back.items():
      np.testing.assert_array_equal(value, weights[name], err_msg=name)

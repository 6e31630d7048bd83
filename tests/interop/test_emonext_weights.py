"""EmoNeXt's released names, and ImageNet checkpoints of ConvNeXt."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import ferjax
from ferjax.interop.convnext import import_convnext
from ferjax.interop.torch_weights import export_state_dict, import_parts, import_state_dict


@pytest.fixture(scope="module")
def model():
  return ferjax.create_model("emonext", num_classes=7)


@pytest.fixture(scope="module")
def weights(emonext_golden):
  return emonext_golden.weights()


@pytest.fixture(scope="module")
def variables(model, weights):
  return import_state_dict(model, weights)


@pytest.fixture(scope="module")
def blank(variables):
  return jax.tree.map(lambda x: jnp.full(x.shape, 7.0), variables)


def convnext(num_classes=1000):
  """Names and shapes of ConvNeXt-T, from the architecture's definition."""
  rng, shapes, widths = np.random.default_rng(0), {}, (96, 192, 384, 768)
  for i, (depth, c) in enumerate(zip((3, 3, 9, 3), widths, strict=True)):
    if i == 0:
      modules = {"downsample_layers.0.0": (c, 3, 4, 4), "downsample_layers.0.1": (c,)}
    else:
      before = widths[i - 1]
      modules = {
        f"downsample_layers.{i}.0": (before,),
        f"downsample_layers.{i}.1": (c, before, 2, 2),
      }
    for j in range(depth):
      block = f"stages.{i}.{j}"
      shapes[f"{block}.gamma"] = (c,)
      modules |= {
        f"{block}.dwconv": (c, 1, 7, 7),
        f"{block}.norm": (c,),
        f"{block}.pwconv1": (4 * c, c),
        f"{block}.pwconv2": (c, 4 * c),
      }
    for name, shape in modules.items():
      shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
  shapes |= {"norm.weight": (768,), "norm.bias": (768,)}
  shapes |= {"head.weight": (num_classes, 768), "head.bias": (num_classes,)}
  return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def imagenet():
  return convnext()


def test_round_trip_is_exact(model, weights, variables):
  back = export_state_dict(model, variables)
  assert back.keys() == weights.keys()
  for name, value in weights.items():
    np.testing.assert_array_equal(back[name], value, err_msg=name)
    assert back[name].dtype == value.dtype


def test_layouts(weights, variables):
  params = variables["params"]
  conv = weights["downsample_layers.2.1.weight"]
  assert params["downsample2"]["conv"]["kernel"][1, 0, 5, 7] == conv[7, 5, 1, 0]
  depthwise = weights["stages.2.7.dwconv.weight"]
  assert params["stage2"]["block7"]["conv"]["kernel"][6, 1, 0, 9] == depthwise[9, 0, 6, 1]
  # The map is 52 x 52 with 10 channels: channels first in torch, last here.
  dense = weights["fc_loc.0.weight"]
  row, column, channel = 3, 50, 9
  theirs, ours = channel * 52 * 52 + row * 52 + column, (row * 52 + column) * 10 + channel
  np.testing.assert_array_equal(params["stn"]["dense0"]["kernel"][ours], dense[:, theirs])


def test_missing_extra_and_wrongly_shaped_entries_are_named(model, weights):
  missing = {k: v for k, v in weights.items() if k != "attention.value.bias"}
  with pytest.raises(ValueError, match=r"1 entries are missing.*: attention.value.bias"):
    import_state_dict(model, missing)
  with pytest.raises(ValueError, match=r"1 entries .* match no variable: stages.3.3.gamma"):
    import_state_dict(model, weights | {"stages.3.3.gamma": np.zeros(768, np.float32)})
  with pytest.raises(ValueError, match=r"'norm.bias' has shape \(2,\).*needs \(768,\)"):
    import_state_dict(model, weights | {"norm.bias": np.zeros(2, np.float32)})
  with pytest.raises(ValueError, match=r"'fc_loc.0.weight' has 27041 inputs; a square image"):
    import_state_dict(model, weights | {"fc_loc.0.weight": np.zeros((32, 27041), np.float32)})
  eight = ferjax.create_model("emonext", num_classes=8)
  with pytest.raises(ValueError, match=r"'head.bias' has shape \(7,\).*needs \(8,\)"):
    import_state_dict(eight, weights)


def test_other_image_and_network_sizes():
  """96 pixels give a map of 20 x 20; rectangular images have no released counterpart."""
  model = ferjax.create_model("emonext", num_classes=3, size="atto")

  def random_variables(height, width):
    image = jnp.zeros((1, height, width, 3))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32), shapes)

  variables = random_variables(96, 96)
  state_dict = export_state_dict(model, variables)
  assert state_dict["fc_loc.0.weight"].shape == (32, 4000)
  back = flatten_dict(import_state_dict(model, state_dict), sep="/")
  for path, value in flatten_dict(variables, sep="/").items():
    np.testing.assert_array_equal(back[path], value, err_msg=path)
  with pytest.raises(ValueError, match="params/stn/dense0/kernel takes a map of 240 positions"):
    export_state_dict(model, random_variables(96, 64))


def test_importing_parts_keeps_the_rest(model, weights, variables, blank):
  parts = ("stem", "stage0", "norm")
  merged = flatten_dict(import_parts(model, weights, blank, parts), sep="/")
  imported = flatten_dict(variables, sep="/")
  for path, value in merged.items():
    want = imported[path] if path.split("/")[1] in parts else 7.0
    np.testing.assert_array_equal(value, want, err_msg=path)


@pytest.mark.parametrize("nested", [False, True])
def test_convnext_only_fills_the_trunk(model, blank, imagenet, nested):
  content = {"model": imagenet} if nested else imagenet
  merged, report = import_convnext(model, content, blank)
  params = merged["params"]
  assert set(report.used) == {x for x in imagenet if not x.startswith("head.")}
  assert set(report.ignored) == {"head.weight", "head.bias"}
  assert set(report.kept) == {
    *report.ignored,
    *(f"localization.{i}.{x}" for i in (0, 1, 4, 5) for x in ("weight", "bias")),
    *(f"localization.{i}.running_{x}" for i in (1, 5) for x in ("mean", "var")),
    *(f"fc_loc.{i}.{x}" for i in (0, 2) for x in ("weight", "bias")),
    *(f"downsample_layers.{i}.2.fc.{j}.weight" for i in (1, 2, 3) for j in (0, 2)),
    *(f"attention.{x}.{y}" for x in ("norm", "query", "key", "value") for y in ("weight", "bias")),
  }
  assert str(report).startswith(f"{len(report.used)} entries of a ConvNeXt checkpoint are used")
  dense = params["stage1"]["block2"]["dense0"]["kernel"]
  np.testing.assert_array_equal(dense, imagenet["stages.1.2.pwconv1.weight"].T)
  stem = imagenet["downsample_layers.0.0.weight"]
  np.testing.assert_array_equal(params["stem"]["conv"]["kernel"], stem.transpose(2, 3, 1, 0))
  np.testing.assert_array_equal(params["norm"]["scale"], imagenet["norm.weight"])
  trunk = ("stem", "stage", "downsample", "norm")
  for path, value in flatten_dict(merged, sep="/").items():
    if not path.split("/")[1].startswith(trunk) or "/se/" in path:
      np.testing.assert_array_equal(value, 7.0, err_msg=path)
    else:
      assert np.abs(np.asarray(value) - 7).min() > 0 or value.size > 1000, path


def test_convnext_with_22k_or_equally_many_classes(model, blank, imagenet):
  trunk = {x: y for x, y in imagenet.items() if not x.startswith("head.")}
  many = np.zeros((21841, 768), np.float16)
  _, report = import_convnext(model, trunk | {"head.weight": many, "head.bias": many[:, 0]}, blank)
  assert set(report.ignored) == {"head.weight", "head.bias"}
  fitting = convnext(7)
  merged, report = import_convnext(model, fitting, blank)
  assert report.ignored == ()
  np.testing.assert_array_equal(merged["params"]["head"]["kernel"], fitting["head.weight"].T)
  merged, report = import_convnext(model, trunk, blank)
  assert set(report.used) == set(trunk)
  np.testing.assert_array_equal(merged["params"]["head"]["kernel"], 7.0)


def test_other_checkpoints_are_rejected(model, blank, imagenet, weights):
  with pytest.raises(ValueError, match=r"unknown stages.2.9.gamma"):
    import_convnext(model, imagenet | {"stages.2.9.gamma": np.zeros(384)}, blank)
  incomplete = {x: y for x, y in imagenet.items() if not x.startswith("norm.")}
  message = r"size 'tiny': missing norm.bias, norm.weight; unknown none"
  with pytest.raises(ValueError, match=message):
    import_convnext(model, incomplete, blank)
  wider = imagenet | {"stages.0.0.gamma": np.zeros(128, np.float32)}
  with pytest.raises(ValueError, match=r"'stages.0.0.gamma' has shape \(128,\).*needs \(96,\)"):
    import_convnext(model, wider, blank)
  narrow = imagenet | {"head.weight": np.zeros((1000, 96), np.float32)}
  with pytest.raises(ValueError, match=r"'head.weight' has shape \(1000, 96\)"):
    import_convnext(model, narrow, blank)
  with pytest.raises(ValueError, match=r"unknown localization.0.weight.*and \d+ more.*of EmoNeXt"):
    import_convnext(model, weights, blank)
  detector = ferjax.create_model("fer_yolo_mamba", num_classes=7)
  with pytest.raises(TypeError, match="ConvNeXt weights fit EmoNeXt only, not FerYoloMamba"):
    import_convnext(detector, imagenet, blank)

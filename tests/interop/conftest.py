"""Checkpoints of the networks' authors, in their names and shapes, with random values."""

import jax
import numpy as np
import pytest

from ferjax.interop.torch_weights import abstract_variables, export_state_dict
from ferjax.models import create_model


def random_entries(shapes):
  rng = np.random.default_rng(0)
  return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def _norm(name, channels):
  shapes = {f"{name}.{x}": (channels,) for x in ("weight", "bias", "running_mean", "running_var")}
  return shapes | {f"{name}.num_batches_tracked": ()}


def _base_conv(name, inputs, outputs, k=1, groups=1):
  """Convolution and BatchNorm of YOLOX."""
  return {f"{name}.conv.weight": (outputs, inputs // groups, k, k), **_norm(f"{name}.bn", outputs)}


def _conv3(name, inputs, outputs, depthwise):
  if not depthwise:
    return _base_conv(name, inputs, outputs, 3)
  return {
    **_base_conv(f"{name}.dconv", inputs, inputs, 3, inputs),
    **_base_conv(f"{name}.pconv", inputs, outputs),
  }


def _csp(name, inputs, outputs, depth, depthwise):
  half = outputs // 2
  shapes = {
    **_base_conv(f"{name}.conv1", inputs, half),
    **_base_conv(f"{name}.conv2", inputs, half),
    **_base_conv(f"{name}.conv3", 2 * half, outputs),
  }
  for i in range(depth):
    shapes |= _base_conv(f"{name}.m.{i}.conv1", half, half)
    shapes |= _conv3(f"{name}.m.{i}.conv2", half, half, depthwise)
  return shapes


def yolox_shapes(depth, width, depthwise=False, num_classes=80):
  """A YOLOX, from the definition of its layers."""
  c, n, dark = int(64 * width), round(3 * depth), "backbone.backbone"
  shapes = _base_conv(f"{dark}.stem.conv", 12, c, 3)
  for stage, inputs, blocks, csp in (
    (2, c, n, 1),
    (3, 2 * c, 3 * n, 1),
    (4, 4 * c, 3 * n, 1),
    (5, 8 * c, n, 2),
  ):
    shapes |= _conv3(f"{dark}.dark{stage}.0", inputs, 2 * inputs, depthwise)
    shapes |= _csp(f"{dark}.dark{stage}.{csp}", 2 * inputs, 2 * inputs, blocks, depthwise)
  shapes |= _base_conv(f"{dark}.dark5.1.conv1", 16 * c, 8 * c)
  shapes |= _base_conv(f"{dark}.dark5.1.conv2", 32 * c, 16 * c)
  shapes |= _base_conv("backbone.lateral_conv0", 16 * c, 8 * c)
  shapes |= _base_conv("backbone.reduce_conv1", 8 * c, 4 * c)
  shapes |= _conv3("backbone.bu_conv2", 4 * c, 4 * c, depthwise)
  shapes |= _conv3("backbone.bu_conv1", 8 * c, 8 * c, depthwise)
  for name, inputs, outputs in (
    ("p4", 16 * c, 8 * c),
    ("p3", 8 * c, 4 * c),
    ("n3", 8 * c, 8 * c),
    ("n4", 16 * c, 16 * c),
  ):
    shapes |= _csp(f"backbone.C3_{name}", inputs, outputs, n, depthwise)
  for i, inputs in enumerate((4 * c, 8 * c, 16 * c)):
    hidden = 4 * c
    shapes |= _base_conv(f"head.stems.{i}", inputs, hidden)
    for j in (0, 1):
      shapes |= _conv3(f"head.cls_convs.{i}.{j}", hidden, hidden, depthwise)
      shapes |= _conv3(f"head.reg_convs.{i}.{j}", hidden, hidden, depthwise)
    for name, channels in (("cls", num_classes), ("reg", 4), ("obj", 1)):
      shapes |= {f"head.{name}_preds.{i}.weight": (channels, hidden, 1, 1)}
      shapes |= {f"head.{name}_preds.{i}.bias": (channels,)}
  return shapes


def convnext_shapes(depths=(2, 2, 6, 2), widths=(40, 80, 160, 320), num_classes=1000):
  """A ConvNeXt, from the definition of its layers; by default of the smallest width and depth."""
  shapes = {}
  for i, (depth, c) in enumerate(zip(depths, widths, strict=True)):
    before = widths[i - 1] if i else 3
    conv = {0: (c, 3, 4, 4)}.get(i, (c, before, 2, 2))
    convs = (f"downsample_layers.{i}.0", f"downsample_layers.{i}.1")
    modules = dict(zip(convs, ((before,), conv) if i else (conv, (c,)), strict=True))
    for j in range(depth):
      block = f"stages.{i}.{j}"
      shapes[f"{block}.gamma"] = (c,)
      modules |= {f"{block}.dwconv": (c, 1, 7, 7), f"{block}.norm": (c,)}
      modules |= {f"{block}.pwconv1": (4 * c, c), f"{block}.pwconv2": (c, 4 * c)}
    for name, shape in modules.items():
      shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
  shapes |= {"norm.weight": (widths[-1],), "norm.bias": (widths[-1],)}
  return shapes | {"head.weight": (num_classes, widths[-1]), "head.bias": (num_classes,)}


def ir50_shapes(width=16, units=(1, 1, 2, 1)):
  """A narrow and shallow IR-50 with its fourth stage, from the definition of its layers."""
  shapes = {"input_layer.0.weight": (width, 3, 3, 3), "input_layer.2.weight": (width,)}
  shapes |= _norm("input_layer.1", width)
  inputs, number = width, 0
  stages = [(i, j) for i, count in enumerate(units) for j in range(count)]
  for i, _ in stages:
    outputs = width * 2**i
    # The fourth stage of an IR-50 has the units 21 to 23.
    unit = f"body.{21 if i == 3 else number}"
    shapes |= _norm(f"{unit}.res_layer.0", inputs)
    shapes |= {f"{unit}.res_layer.1.weight": (outputs, inputs, 3, 3)}
    shapes |= {f"{unit}.res_layer.2.weight": (outputs,)}
    shapes |= {f"{unit}.res_layer.3.weight": (outputs, outputs, 3, 3)}
    shapes |= _norm(f"{unit}.res_layer.4", outputs)
    if inputs != outputs:
      shapes |= {f"{unit}.shortcut_layer.0.weight": (outputs, inputs, 1, 1)}
      shapes |= _norm(f"{unit}.shortcut_layer.1", outputs)
    inputs, number = outputs, number + 1
  return shapes | _norm("output_layer.0", inputs) | {"output_layer.3.weight": (8, 49 * inputs)}


def _face_conv(name, inputs, outputs, k=1, groups=1, linear=False):
  shapes = {f"{name}.conv.weight": (outputs, inputs // groups, k, k)}
  shapes |= _norm(f"{name}.bn", outputs)
  return shapes if linear else shapes | {f"{name}.prelu.weight": (outputs,)}


def mobilefacenet_shapes(width=16, blocks=(1, 1, 1)):
  """A narrow and shallow MobileFaceNet, from the definition of its layers."""
  shapes = _face_conv("conv1", 3, width, 3) | _face_conv("conv2_dw", width, width, 3, width)

  def depthwise(name, inputs, outputs, groups):
    return {
      **_face_conv(f"{name}.conv", inputs, groups),
      **_face_conv(f"{name}.conv_dw", groups, groups, 3, groups),
      **_face_conv(f"{name}.project", groups, outputs, linear=True),
    }

  stages = ((3, 1, 1, 2, 2), (4, 1, 2, 4, 4), (5, 2, 2, 8, 4))
  for (i, inputs, outputs, first, groups), count in zip(stages, blocks, strict=True):
    inputs, outputs, first, groups = (x * width for x in (inputs, outputs, first, groups))
    shapes |= depthwise(f"conv_{i - 1}{i}", inputs, outputs, first)
    for j in range(count):
      shapes |= depthwise(f"conv_{i}.model.{j}", outputs, outputs, groups)
  shapes |= _face_conv("conv_6_sep", 2 * width, 8 * width)
  return shapes | {"output_layer.linear.weight": (8, 8 * width)}


@pytest.fixture(scope="session")
def published_shapes():
  """Network and size -> the names and shapes of the published backbone."""
  detectors = {"tiny": (1 / 3, 0.375), "s": (1 / 3, 0.5), "m": (2 / 3, 0.75), "l": (1, 1)}
  detectors |= {"x": (4 / 3, 1.25)}
  trunks = {"tiny": (9, 96), "small": (27, 96), "base": (27, 128), "large": (27, 192)}
  trunks |= {"xlarge": (27, 256)}

  def trunk(blocks, width):
    widths = tuple(width * 2**i for i in range(4))
    return convnext_shapes((3, 3, blocks, 3), widths, num_classes=21841)

  return {
    **{("fer_yolo_mamba", size): yolox_shapes(*scales) for size, scales in detectors.items()},
    **{("emonext", size): trunk(*scales) for size, scales in trunks.items()},
  }


@pytest.fixture(scope="session")
def yolox_nano():
  return random_entries(yolox_shapes(1 / 3, 0.25, depthwise=True))


@pytest.fixture(scope="session")
def convnext_atto():
  return random_entries(convnext_shapes())


@pytest.fixture(scope="session")
def ir50_nano():
  return random_entries(ir50_shapes())


@pytest.fixture(scope="session")
def mobilefacenet_nano():
  return random_entries(mobilefacenet_shapes())


@pytest.fixture(scope="session")
def released():
  """Name, size and pixels of a network of 7 classes -> a random state dict in released names."""

  def make(name, size, image_size):
    model = create_model(name, num_classes=7, size=size)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(
      lambda x: rng.standard_normal(x.shape, np.float32), abstract_variables(model, image_size)
    )
    return export_state_dict(model, variables)

  return make


@pytest.fixture(scope="session")
def emonext_atto(released):
  return released("emonext", "atto", 32)

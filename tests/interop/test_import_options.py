"""What checkpoints do not say: defaults, inference from shapes, and contradictions."""

import numpy as np
import pytest

from ferjax.expressions import SEVEN_EXPRESSIONS
from ferjax.interop.emonext_names import NAMING as EMONEXT
from ferjax.interop.fer_yolo_mamba_names import NAMING as DETECTOR
from ferjax.interop.fermam_names import FERMAM
from ferjax.interop.import_options import ImportOptions, describe
from ferjax.interop.naming import Naming


def entries(**shapes):
  return {name.replace("__", "."): np.zeros(shape, np.float32) for name, shape in shapes.items()}


def emonext(widths=96, blocks=9, classes=7, side=224):
  found = entries(downsample_layers__0__0__weight=(widths, 3, 4, 4), head__weight=(classes, 768))
  found |= {f"stages.2.{i}.gamma": np.zeros(1) for i in range(blocks)}
  return found | entries(fc_loc__0__weight=(32, 10 * (side // 4 - 4) ** 2))


def fermam(classes=7, width=64):
  return entries(
    ir_back__input_layer__0__weight=(width, 3, 3, 3), head__linear__weight=(classes, 512)
  )


def detector(classes=7, channels=32):
  return entries(
    backbone__backbone__stem__conv__conv__weight=(channels, 12, 3, 3),
    head__cls_preds__0__weight=(classes, 128, 1, 1),
  )


@pytest.mark.parametrize(
  ("naming", "found", "size"),
  [
    (EMONEXT, emonext(), "tiny"),
    (EMONEXT, emonext(blocks=27), "small"),
    (EMONEXT, emonext(128, 27), "base"),
    (EMONEXT, emonext(192, 27), "large"),
    (EMONEXT, emonext(256, 27), "xlarge"),
    *((DETECTOR, detector(channels=int(64 * width)), size) for size, width in (
      ("nano", 0.25), ("tiny", 0.375), ("s", 0.5), ("m", 0.75), ("l", 1), ("x", 1.25)
    )),
    (FERMAM, fermam(), "base"),
    (FERMAM, entries(face_landback__conv1__conv__weight=(16, 3, 3, 3)), "nano"),
    (FERMAM, emonext(), ""),
    (EMONEXT, fermam(), ""),
  ],
)  # fmt: skip
def test_the_size_follows_from_the_shapes(naming, found, size):
  assert naming.size(found) == size


def test_other_widths_are_named():
  message = (
    r"'downsample_layers.0.0.weight' has 96/8 channels/blocks of stage 2, as no size .* tiny 96/9, "
    r"small 96/27.*; get the whole file of one of these"
  )
  with pytest.raises(ValueError, match=message):
    EMONEXT.size(emonext(blocks=8))


def test_the_released_programs_are_the_default():
  meta, assumed, problem, *_ = describe("emonext", EMONEXT, emonext(), ImportOptions(), {})
  assert (assumed, problem) == (True, "")
  assert meta == {
    "model": {
      "name": "emonext",
      "dtype": "float32",
      "size": "tiny",
      "variant": "released",
      "drop_path_rate": 0.1,
      "remat": "none",
    },
    "task": "classification",
    # The folders angry, disgust, fear, happy, neutral, sad, surprise.
    "class_names": ["anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"],
    "image_size": 224,
    "mean": [0, 0, 0],
    "std": [1, 1, 1],
    "grey": True,
    "resize": 236,
    "class_prior": [],
  }
  meta = describe("emonext", EMONEXT, emonext(side=96), ImportOptions(), {}).meta
  assert (meta["image_size"], meta["resize"]) == (96, 0)
  meta, assumed, *_ = describe("fermam", FERMAM, fermam(), ImportOptions(), {})
  assert assumed
  # The codes of RAF-DB, from 1.
  names = ["surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"]
  assert meta["class_names"] == names
  assert (meta["image_size"], meta["resize"], meta["grey"]) == (224, 0, False)
  assert meta["mean"] == [0.485, 0.456, 0.406]


def test_options_replace_defaults():
  options = ImportOptions(
    variant="corrected",
    class_names=("a", "b"),
    mean=(0.1, 0.2, 0.3),
    std=(0.4, 0.5, 0.6),
    grey=False,
    resize=256,
    model_options="drop_path_rate=0.3",
  )
  meta, assumed, problem, *_ = describe("emonext", EMONEXT, emonext(), options, {})
  assert (assumed, problem) == (False, "")
  assert meta["model"]["variant"] == "corrected"
  assert meta["model"]["drop_path_rate"] == 0.3
  assert (meta["class_names"], meta["grey"], meta["resize"]) == (["a", "b"], False, 256)
  assert (meta["mean"], meta["std"]) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])


def test_the_short_side_is_that_of_the_paper_for_its_images_only():
  convnext = {x: y for x, y in emonext().items() if not x.startswith("fc_loc")}
  for size, resize in ((224, 236), (96, 0)):
    options = ImportOptions(image_size=size)
    meta = describe("emonext", EMONEXT, convnext, options, {}).meta
    assert (meta["image_size"], meta["resize"]) == (size, resize)


def test_images_in_the_order_blue_green_red():
  options = ImportOptions(bgr=True, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
  meta = describe("fermam", FERMAM, fermam(), options, {}).meta
  assert (meta["mean"], meta["std"]) == ([0.3, 0.2, 0.1], [0.6, 0.5, 0.4])


def test_a_network_that_is_initialised_in_part_is_the_corrected_one():
  options = ImportOptions(initialise=("head",))
  meta = describe("fermam", FERMAM, fermam(), options, {}).meta
  assert meta["model"]["variant"] == "corrected"


@pytest.mark.parametrize("classes", [7, 80])
def test_classes_that_nobody_knows(classes):
  found = describe("fer_yolo_mamba", DETECTOR, detector(classes), ImportOptions(), {})
  assert f"it has a head for {classes} classes, whose names it does not contain" in found.problem
  assert found.num_classes == len(found.meta["class_names"]) == classes
  assert not found.assumed
  named = ImportOptions(class_names=SEVEN_EXPRESSIONS)
  assert describe("fer_yolo_mamba", DETECTOR, detector(classes), named, {}).problem == ""
  del (backbone := detector())["head.cls_preds.0.weight"]
  found = describe("fer_yolo_mamba", DETECTOR, backbone, ImportOptions(), {})
  assert "it has no head; pass --classes" in found.problem


def test_the_description_of_an_export_comes_before_the_released_program():
  exported = {
    "model": {"name": "emonext", "size": "tiny", "variant": "corrected", "drop_path_rate": 0.2},
    "class_names": ["x", "y", "z"],
    "image_size": 224,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.2, 0.2, 0.2],
    "grey": False,
    "resize": 230,
    "class_prior": [0.5, 0.25, 0.25],
  }
  found = describe("emonext", EMONEXT, emonext(classes=3), ImportOptions(grey=True), exported)
  model = {"dtype": "float32", "remat": "none", **exported["model"]}
  changed = {"model": model, "task": "classification", "grey": True}
  assert found.meta == exported | changed
  assert (found.assumed, found.problem) == (False, "")


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"size": "small"}, "size is 'small', but the shapes are those of 'tiny'; omit it"),
    ({"image_size": 96}, "image_size is 96, but the shapes are those for 224; omit it"),
    ({"class_names": ["a", "a"]}, "the classes are 'a, a'; expected different names"),
    ({"class_names": ["a", ""]}, "the classes are 'a, '; expected different names"),
    ({"resize": 200}, "resize is 200; expected 0, or for a classifier at least image_size, 224"),
    ({"mean": [0.5, 0.5]}, r"mean is \[0.5, 0.5\]; expected three finite numbers"),
    ({"std": [0.5, 0.0, 1.0]}, r"std is \[0.5, 0.0, 1.0\]; expected three positive numbers"),
  ],
)
def test_options_that_cannot_be(options, message):
  with pytest.raises(ValueError, match=message):
    describe("emonext", EMONEXT, emonext(), ImportOptions(**options), {})


def test_a_network_without_sizes():
  """The size is not looked for in the shapes."""
  naming = Naming(rules=(), classes="head.weight")
  found = describe("emonext", naming, entries(head__weight=(7, 8)), ImportOptions(), {})
  assert found.meta["model"]["size"] == "tiny"
  found = describe("emonext", naming, entries(head__weight=()), ImportOptions(size="base"), {})
  assert found.meta["model"]["size"] == "base"
  assert found.num_classes is None


def test_sides_that_the_network_cannot_take():
  with pytest.raises(ValueError, match="image_size is 100; expected a multiple of 32"):
    describe("fermam", FERMAM, fermam(), ImportOptions(image_size=100), {})

"""The released variant compared with recorded numbers of the released program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from ferjax.interop import released_names, torch_weights
from ferjax.models.csp_darknet import CSPLayer, Focus, SpatialPyramidPooling
from ferjax.models.layers import Conv
from ferjax.models.ssm import ABMLP, SS2D, VSSBlock
from ferjax.ops.boxes import cell_grid, cxcywh_to_xyxy
from ferjax.tasks.detection.task import detection_loss
from ferjax.typing import DetectorOutput

TOLERANCE = 1e-4
# The maps and the scans are float32, each of whose errors passes through all layers before it.
GRADIENT_TOLERANCE = 1e-4
NCHW = (0, 3, 1, 2)


def tap_paths():
  """Released module name -> path of ours, for every recorded intermediate array."""
  paths = {
    "backbone.backbone.stem": "backbone/stem",
    "backbone.backbone.dark2": "backbone/stage2_csp",
    "backbone.backbone.dark3": "backbone/stage3_csp",
    "backbone.backbone.dark4": "backbone/stage4_csp",
    "backbone.backbone.dark5": "backbone/stage5_csp",
    "backbone.backbone.dark5.1": "backbone/stage5_spp",
    "backbone.lateral_conv0": "neck/lateral",
    "backbone.reduce_conv1": "neck/reduce_p4",
    "backbone.reduce_conv111": "neck/out_p3",
    "backbone.bu_conv2": "neck/down_p3",
    "backbone.bu_conv1": "neck/down_n3",
  }
  for block in ("p4", "p3", "n3", "n4"):
    released, ours = f"backbone.C3_{block}.0", f"neck/vss_{block}"
    paths |= {
      released: ours,
      f"{released}.ln_1": f"{ours}/norm",
      f"{released}.self_attention": f"{ours}/ss2d",
      f"{released}.frm": f"{ours}/frm",
    }
  for level in range(3):
    paths |= {
      f"head.stems.{level}": f"head/level{level}/stem",
      f"head.cls_convs.{level}": f"head/level{level}/cls_conv1",
      f"head.reg_convs.{level}": f"head/level{level}/reg_conv1",
    }
  return paths


def test_every_intermediate_and_output(
  golden, released_model, released_variables, golden_image, jit_fully
):
  @jit_fully
  def forward(variables, image):
    output, state = released_model.apply(variables, image, train=False, capture_intermediates=True)
    taps = flatten_dict(state["intermediates"], sep="/")
    # All maps together take a gigabyte.
    return output, {path: taps[f"{path}/__call__"][0] for path in tap_paths().values()}

  output, taps = forward(released_variables, golden_image)
  recorded = {x.removeprefix("full/") for x in golden.index if x.startswith("full/")}
  assert set(tap_paths()) == recorded - {"in", "out0", "out1", "out2"}
  errors = {}
  for name, path in tap_paths().items():
    value = np.asarray(taps[path])
    channels_first = golden.index[f"full/{name}"]["layout"] == "NCHW"
    errors[name] = golden.rel_l2(f"full/{name}", value.transpose(NCHW) if channels_first else value)
  for i, level in enumerate(output.levels):
    errors[f"out{i}"] = golden.rel_l2(f"full/out{i}", np.asarray(level).transpose(NCHW))
  assert max(errors.values()) < TOLERANCE, errors


def surrogate_loss(levels):
  return sum(0.5 * jnp.mean(level**2) for level in levels)


@pytest.fixture(scope="module")
def yolo_loss(golden):
  """With the strides 8, 16, 32 that the released loss takes for its 20, 20, 10 cells."""
  labels = [golden.expect(f"train_yolo/labels{i}") for i in range(2)]
  boxes, classes = np.zeros((2, 3, 4), np.float32), np.zeros((2, 3), np.int32)
  mask = np.zeros((2, 3), bool)
  for i, rows in enumerate(labels):
    boxes[i, : len(rows)] = np.asarray(cxcywh_to_xyxy(jnp.asarray(rows[:, :4])))
    classes[i, : len(rows)], mask[i, : len(rows)] = rows[:, 4], True
  boxes, classes, mask = jnp.asarray(boxes), jnp.asarray(classes), jnp.asarray(mask)
  released_strides = jnp.repeat(jnp.array([8.0, 16.0, 32.0]), jnp.array([400, 400, 100]))
  grid = cell_grid([(20, 20), (20, 20), (10, 10)], (320, 320))
  grid = grid._replace(stride=jnp.stack([released_strides] * 2, axis=-1))

  def loss_of(levels):
    return detection_loss(
      DetectorOutput(levels),
      grid,
      boxes=boxes,
      label=classes,
      box_mask=mask,
      mask=jnp.ones(2, bool),
    ).total

  return loss_of


@pytest.fixture(scope="module")
def train_step(
  released_model, released_variables, golden_image, yolo_loss, keeps_products, compiled
):
  """Maps and new statistics in training, and by case a loss of the maps and its gradients.

  In float64 except for scans and losses: the refinement has ReLUs, and the pyramid maxima.
  """
  model = released_model.clone(dtype=jnp.float64)

  @functools.partial(jax.checkpoint, policy=keeps_products)
  def network(params, image):
    variables = {"params": params, "batch_stats": released_variables["batch_stats"]}
    output, state = model.apply(variables, image, train=True, mutable=["batch_stats"])
    return output.levels, state

  def forward(params, image):
    levels, pull_back, state = jax.vjp(lambda p: network(p, image), params, has_aux=True)
    return levels, state, pull_back

  with jax.enable_x64(True):
    image = golden_image.astype(jnp.float64)
    arguments = released_variables["params"], image
    levels, state, pull_back = compiled(forward, *arguments)(*arguments)
  backward, results = None, {}
  for case, loss_of in (("train_surrogate", surrogate_loss), ("train_yolo", yolo_loss)):
    loss, cotangents = jax.jit(jax.value_and_grad(loss_of))(levels)
    with jax.enable_x64(True):
      arguments = pull_back, cotangents
      backward = backward or compiled(lambda pull_back, x: pull_back(x)[0], *arguments)
      results[case] = loss, backward(*arguments)
  return levels, state, results


@pytest.mark.parametrize("case", ["train_surrogate", "train_yolo"])
def test_train_step(case, golden, released_model, train_step, check_gradients):
  levels, state, results = train_step
  loss, grads = results[case]
  np.testing.assert_allclose(loss, golden.train[case]["loss"], rtol=1e-5)
  for i, level in enumerate(levels):
    error = golden.rel_l2(f"{case}/out{i}", np.asarray(level).transpose(NCHW))
    assert error < TOLERANCE, (i, error)
  variables = {"params": grads, "batch_stats": state["batch_stats"]}
  grads = torch_weights.export_state_dict(released_model, variables)
  assert check_gradients(golden, case, grads, GRADIENT_TOLERANCE) == set()


def test_running_statistics(
  golden,
  check_statistics,
  released_model,
  released_variables,
  golden_image,
  train_step,
  element_counts,
):
  _, state, _ = train_step
  assert not check_statistics(
    golden.train["train_surrogate"]["bn_after"],
    released_variables["batch_stats"],
    state["batch_stats"],
    element_counts(released_model, released_variables, golden_image, train=True),
    released_names.table_of(released_model),
    lambda path: 0.9 if "frm" in path else 0.97,
  )


MODULE_CASES = {
  # case: (module, its path in the whole network, layout, takes `train`)
  "ss2d_6x6": (SS2D(), ("neck", "vss_p4", "ss2d"), "NHWC", False),
  "ss2d_5x7": (SS2D(), ("neck", "vss_p4", "ss2d"), "NHWC", False),
  "convssm_8x8": (VSSBlock(norm_epsilon=1e-6), ("neck", "vss_p4"), "NHWC", True),
  "convssm_8x8_train": (VSSBlock(norm_epsilon=1e-6), ("neck", "vss_p4"), "NHWC", True),
  "convssm_ln_default": (VSSBlock(), ("neck", "vss_p4"), "NHWC", True),
  "attmlp_64": (ABMLP(), ("neck", "vss_p4", "frm", "attention"), "NCHW", False),
  "sppbottleneck_32": (SpatialPyramidPooling(32), ("backbone", "stage5_spp"), "NCHW", True),
  "focus_8": (Focus(8), ("backbone", "stem"), "NCHW", True),
  "csplayer_16": (CSPLayer(16, 2), ("backbone", "stage2_csp"), "NCHW", True),
}


@pytest.mark.parametrize("case", MODULE_CASES)
def test_module_and_its_gradients(
  case,
  golden,
  golden_rules,
  stand_alone,
  vjp,
  element_counts,
  check_statistics,
  check_gradients,
  check_input_gradient,
):
  module, path, layout, takes_train = MODULE_CASES[case]
  part = stand_alone(module, *path)
  source = case.removesuffix("_train")
  train = case.endswith("_train")
  kwargs = {"train": train} if takes_train else {}
  to_ours = (0, 2, 3, 1) if layout == "NCHW" else (0, 1, 2, 3)
  to_theirs = NCHW if layout == "NCHW" else (0, 1, 2, 3)
  shape = golden.index[f"{source}/in"]["shape"]
  x = golden_rules.normal(f"input:{source}", shape)
  assert golden.rel_l2(f"{source}/in", x) == 0
  cotangent = golden_rules.normal(
    golden.train[case]["cotangent"], golden.index[f"{case}/out"]["shape"]
  )
  x, cotangent = x.transpose(to_ours), cotangent.transpose(to_ours)
  variables = part.variables(jnp.asarray(x), golden.weights(source), **kwargs)

  def apply(variables, x):
    own = module.clone(dtype=jnp.float64)
    out, state = own.apply(variables, x, mutable=["batch_stats"], **kwargs)
    return (out,), state

  (out,), state, grads, (in_grad,) = vjp(apply, variables, (x,), (cotangent,))
  assert golden.rel_l2(f"{case}/out", np.asarray(out).transpose(to_theirs)) < TOLERANCE
  check_input_gradient(golden, f"{case}/in_grad", np.asarray(in_grad).transpose(to_theirs))
  assert check_gradients(golden, case, part.released({"params": grads})) == set()
  if "bn_after" in golden.train[case]:
    names = part.names(variables)
    assert not check_statistics(
      golden.train[case]["bn_after"],
      variables["batch_stats"],
      state["batch_stats"],
      element_counts(module, variables, x, **kwargs),
      names.__getitem__,
    )


def test_initial_values_follow_the_released_distributions(
  golden, released_model, jit_quickly, quick_key
):
  """Mean and spread of each tensor, within its sampling error."""
  model = released_model.clone(prior_probability=None)
  image = jnp.zeros((1, 32, 32, 3))
  variables = jit_quickly(lambda key: model.init(key, image, train=False))(quick_key)
  ours = torch_weights.export_state_dict(model, variables)
  for entry in golden.manifest["params"]:
    if entry["kind"] != "param" or np.prod(entry["shape"]) < 64:
      continue
    theirs, value = entry["upstream_init"], ours[entry["name"]]
    slack = 6 * max(theirs["std"], 1e-7) / np.sqrt(value.size)
    assert abs(value.mean() - theirs["mean"]) < 2 * slack, entry["name"]
    assert abs(value.std() - theirs["std"]) < slack, entry["name"]


def test_conv_of_one_pixel_equals_a_matrix_product():
  x = jax.random.normal(jax.random.key(0), (1, 2, 3, 4))
  conv = Conv(5)
  variables = conv.init(jax.random.key(1), x)
  kernel = np.asarray(variables["params"]["kernel"])[0, 0]
  np.testing.assert_allclose(conv.apply(variables, x), np.asarray(x) @ kernel, rtol=1e-5)

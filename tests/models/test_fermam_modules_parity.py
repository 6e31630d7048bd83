"""The parts of FERMam by themselves, with their gradients, against the released program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import ferjax
from ferjax.interop import released_names, torch_weights
from ferjax.models.fermam import Gate, PyramidFusion, half_by_nearest, image_tokens
from ferjax.models.ir50 import IR50, IRUnit
from ferjax.models.mobilefacenet import MobileFaceNet
from ferjax.models.ssm import ASFR, SS2D, ConvSSM

TOLERANCE = 1e-4
NCHW, NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


@pytest.fixture
def part(stand_alone):
  whole = ferjax.create_model("fermam", num_classes=7, variant="released")
  return lambda module, *path: stand_alone(module, *path, whole=whole)


def vjp(apply, variables, inputs, cotangents):
  """Outputs, what `apply` captured, and the gradients for the parameters and the inputs."""

  def loss_fn(params, inputs):
    outputs, state = apply({**variables, "params": params}, *inputs)
    pairs = zip(outputs, cotangents, strict=True)
    return sum(jnp.sum(x * cotangent) for x, cotangent in pairs), (outputs, state)

  grad = jax.jit(jax.grad(loss_fn, argnums=(0, 1), has_aux=True))
  (params, in_grads), (outputs, state) = grad(variables["params"], inputs)
  return outputs, state, params, in_grads


def capturing():
  """Keyword arguments of `apply` for new statistics and what each BatchNorm returns."""

  def wanted(submodule, _):
    return type(submodule).__name__ == "BatchNorm"

  return {"mutable": ["batch_stats", "intermediates"], "capture_intermediates": wanted}


def element_counts(state):
  return {
    k[:-1]: v[0].size // v[0].shape[-1] for k, v in flatten_dict(state["intermediates"]).items()
  }


@pytest.fixture
def check_gradients(float64_gradient_error):
  """Compares those that the released program computes; returns the names of the others."""
  return functools.partial(_check_gradients, float64_gradient_error)


def _check_gradients(error_of, golden, case, released):
  worst, name = error_of(golden, case, released)
  assert worst < 1e-3, (name, worst)
  unused = {name for name, x in golden.train[case]["params"].items() if x is None}
  assert not any(np.any(released[name]) for name in unused & set(released))
  return unused


CONV_SSM, UNIT = ("conv_ssm",), ("image", "unit0")
MODULE_CASES = {
  # case: (module, its path in the whole network, case whose input it has, takes `train`)
  "ss2d4_7x7": (SS2D(4, merge="visit"), ("conv_ssm", "ss2d"), "ss2d4_7x7", False),
  "ss2d4_5x7": (SS2D(4, merge="visit"), ("conv_ssm", "ss2d"), "ss2d4_5x7", False),
  "asfr_7x7": (ASFR("released"), ("fusion", "asfr0"), "asfr_7x7", True),
  "asfr_3x3": (ASFR("released"), ("fusion", "asfr0"), "asfr_3x3", True),
  "asfr_1x1": (ASFR("released"), ("fusion", "asfr0"), "asfr_1x1", True),
  "ssconvssm": (ConvSSM("released"), CONV_SSM, "ssconvssm", True),
  "ssconvssm_train": (ConvSSM("released"), CONV_SSM, "ssconvssm", True),
  "ssconvssm_conv_only": (ConvSSM("released", "conv_only"), CONV_SSM, "ssconvssm", True),
  "ssconvssm_ssm_only": (ConvSSM("released", "ssm_only"), CONV_SSM, "ssconvssm", True),
  "bottleneck_ir_s2": (IRUnit(32, 2), UNIT, "bottleneck_ir_s2", True),
  "bottleneck_ir_s2_train": (IRUnit(32, 2), UNIT, "bottleneck_ir_s2", True),
  "bottleneck_ir_same": (IRUnit(16, 2), UNIT, "bottleneck_ir_s2", True),
  "bottleneck_ir_same_train": (IRUnit(16, 2), UNIT, "bottleneck_ir_s2", True),
  "se_block_32": (Gate(), ("gate",), "se_block_32", False),
}
UNUSED_ENTRIES = {"asfr_7x7": 1, "asfr_3x3": 1, "asfr_1x1": 1} | {
  "ssconvssm_conv_only": 13,
  "ssconvssm_ssm_only": 12,
}


@pytest.mark.parametrize("case", MODULE_CASES)
def test_module_and_its_gradients(
  case, fermam_golden, golden_rules, part, check_statistics, check_gradients
):
  golden = fermam_golden
  module, path, source, takes_train = MODULE_CASES[case]
  part = part(module, *path)
  kwargs = {"train": case.endswith("_train")} if takes_train else {}
  channels_first = golden.index[f"{case}/out"]["layout"] == "NCHW"
  x = golden_rules.normal(f"input:{source}", golden.index[f"{case}/in"]["shape"])
  assert golden.rel_l2(f"{case}/in", x) == 0
  cotangent = golden_rules.normal(
    golden.train[case]["cotangent"], golden.index[f"{case}/out"]["shape"]
  )
  if channels_first:
    x, cotangent = x.transpose(NHWC), cotangent.transpose(NHWC)
  x, weights = jnp.asarray(x), golden.weights(case.removesuffix("_train"))
  variables = part.variables(x, weights, **kwargs)

  def apply(variables, x):
    out, state = module.apply(variables, x, **capturing(), **kwargs)
    return (out,), state

  (out,), state, grads, (in_grad,) = vjp(apply, variables, (x,), (jnp.asarray(cotangent),))
  to_theirs = NCHW if channels_first else range(x.ndim)
  assert golden.rel_l2(f"{case}/out", np.asarray(out).transpose(to_theirs)) < TOLERANCE
  assert golden.rel_l2(f"{case}/in_grad", np.asarray(in_grad).transpose(to_theirs)) < TOLERANCE
  unused = check_gradients(golden, case, part.released({"params": grads}))
  assert len(unused) == UNUSED_ENTRIES.get(case, 0)
  if "bn_after" in golden.train[case]:
    assert not check_statistics(
      golden.train[case]["bn_after"],
      variables["batch_stats"],
      state["batch_stats"],
      element_counts(state),
      part.names(variables).__getitem__,
    )


@pytest.mark.parametrize("case", ["asfr_7x7", "asfr_3x3", "asfr_1x1"])
def test_what_the_scan_of_asfr_adds(case, fermam_golden, golden_rules, part):
  """In the released result it is a difference of large numbers; here it is seen by itself."""
  golden, module = fermam_golden, ASFR("released")
  x = jnp.asarray(golden_rules.normal(f"input:{case}", golden.index[f"{case}/in"]["shape"]))
  variables = part(module, "fusion", "asfr0").variables(x, golden.weights(case), train=False)

  @jax.jit
  def forward(variables, x):
    wanted = lambda submodule, name: submodule.name == "conv" or name == "scan"  # noqa: E731
    return module.apply(variables, x, train=False, capture_intermediates=wanted)[1]

  taps = forward(variables, x)["intermediates"]
  scanned = np.asarray(taps["scan"][0])
  scan_x = np.asarray(taps["conv"]["__call__"][0]).reshape(scanned.shape)
  assert golden.rel_l2(f"{case}/scan_x", scan_x) < TOLERANCE
  assert golden.rel_l2(f"{case}/ssm_part", scanned) < TOLERANCE
  assert golden.rel_l2(f"{case}/scan_y", scanned + 64 * scan_x) < TOLERANCE


@pytest.mark.parametrize("case", ["fusion64_n49", "fusion64_n45"])
def test_pyramid_fusion_and_its_gradients(case, fermam_golden, golden_rules, part, check_gradients):
  """45 tokens are filled up to the 49 of a square."""
  golden, module = fermam_golden, PyramidFusion("released")
  shape = golden.index[f"{case}/in0"]["shape"]
  inputs = tuple(jnp.asarray(golden_rules.normal(f"input:{case}:{x}", shape)) for x in ("ir", "lm"))
  for i, x in enumerate(inputs):
    assert golden.rel_l2(f"{case}/in{i}", x) == 0
  part = part(module, "fusion")
  variables = part.variables(*inputs, golden.weights(case), train=False)

  def apply(variables, *inputs):
    return (module.apply(variables, *inputs, train=False),), None

  cotangent = jnp.asarray(golden_rules.normal(golden.train[case]["cotangent"], shape))
  (out,), _, grads, in_grads = vjp(apply, variables, inputs, (cotangent,))
  assert golden.rel_l2(f"{case}/out", out) < TOLERANCE
  for i, in_grad in enumerate(in_grads):
    assert golden.rel_l2(f"{case}/in_grad{i}", in_grad) < TOLERANCE
  unused = check_gradients(golden, case, part.released({"params": grads}))
  assert unused == {"ssm1.D", "ssm2.D", "ssm3.D"}


@pytest.mark.parametrize("case", ["mobilefacenet", "mobilefacenet_train"])
def test_mobilefacenet_with_its_embedding(
  case, fermam_golden, golden_rules, check_statistics, check_gradients
):
  """In train mode in float64: an activation near 0 changes its sign in a float32 run."""
  golden, train = fermam_golden, case.endswith("_train")
  dtype = jnp.float64 if train else jnp.float32
  module = MobileFaceNet(embedding_size=512)
  image = golden_rules.image(f"input:{case}", golden.index[f"{case}/in"]["shape"])
  assert golden.rel_l2(f"{case}/in", image) == 0
  variables = torch_weights.import_state_dict(module, golden.weights("mobilefacenet"))
  name = golden.train[case]["cotangent"]
  embedding, features = (
    golden_rules.normal(f"{name}:{i}", golden.index[f"{case}/out{i}"]["shape"]) for i in (0, 1)
  )

  def apply(variables, image):
    own = module.clone(dtype=dtype)
    out, state = own.apply(variables, image, train=train, **capturing())
    return (out.embedding, out.features), state

  with jax.enable_x64(train):
    arrays = (image.transpose(NHWC), embedding, features.transpose(NHWC))
    image, *cotangents = (jnp.asarray(x, dtype) for x in arrays)
    outputs, state, grads, (in_grad,) = vjp(apply, variables, (image,), cotangents)
  assert golden.rel_l2(f"{case}/out0", outputs[0]) < TOLERANCE
  assert golden.rel_l2(f"{case}/out1", np.asarray(outputs[1]).transpose(NCHW)) < TOLERANCE
  noisy = 1e-3 if train else TOLERANCE  # recorded in float32
  assert golden.rel_l2(f"{case}/in_grad", np.asarray(in_grad).transpose(NCHW)) < noisy
  released = torch_weights.export_state_dict(module, {**variables, "params": grads})
  assert check_gradients(golden, case, released) == set()
  if train:
    assert not check_statistics(
      golden.train[case]["bn_after"],
      variables["batch_stats"],
      state["batch_stats"],
      element_counts(state),
      released_names.table_of(module),
    )


@pytest.mark.parametrize("case", ["ir50", "ir50_train"])
def test_ir50_from_the_image_to_its_tokens(
  case, fermam_golden, golden_rules, check_statistics, check_gradients
):
  """In train mode in float64, as above."""
  golden, train = fermam_golden, case.endswith("_train")
  dtype = jnp.float64 if train else jnp.float32
  module = IR50()
  image = golden_rules.image("input:ir50", golden.index[f"{case}/in"]["shape"])
  assert golden.rel_l2(f"{case}/in", image) == 0
  variables = torch_weights.import_state_dict(module, golden.weights("ir50"))
  cotangent = golden_rules.normal(
    golden.train[case]["cotangent"], golden.index[f"{case}/out"]["shape"]
  )

  def apply(variables, image):
    own = module.clone(dtype=dtype)
    x, state = own.apply(variables, half_by_nearest(image), train=train, **capturing())
    return (image_tokens(x, variant="released"),), state

  with jax.enable_x64(train):
    arrays = (image.transpose(NHWC), cotangent)
    image, cotangent = (jnp.asarray(x, dtype) for x in arrays)
    (out,), state, grads, (in_grad,) = vjp(apply, variables, (image,), (cotangent,))
  assert golden.rel_l2(f"{case}/out", out) < TOLERANCE
  assert golden.rel_l2(f"{case}/in_grad", np.asarray(in_grad).transpose(NCHW)) < 1e-3
  released = torch_weights.export_state_dict(module, {**variables, "params": grads})
  unused = check_gradients(golden, case, released)
  assert {x.split(".")[0] for x in unused} == {"output_layer"}
  if train:
    unseen = check_statistics(
      golden.train[case]["bn_after"],
      variables["batch_stats"],
      state["batch_stats"],
      element_counts(state),
      released_names.table_of(module),
    )
    assert {x.split(".")[0] for x in unseen} <= {"output_layer"}

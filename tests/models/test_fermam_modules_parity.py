"""FERMam's parts and their gradients, compared with the released program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
  case,
  fermam_golden,
  golden_rules,
  part,
  vjp,
  element_counts,
  check_statistics,
  check_gradients,
  check_input_gradient,
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
  weights = golden.weights(case.removesuffix("_train"))
  variables = part.variables(jnp.asarray(x), weights, **kwargs)

  def apply(variables, x):
    own = module.clone(dtype=jnp.float64)
    out, state = own.apply(variables, x, mutable=["batch_stats"], **kwargs)
    return (out,), state

  (out,), state, grads, (in_grad,) = vjp(apply, variables, (x,), (cotangent,))
  to_theirs = NCHW if channels_first else range(x.ndim)
  assert golden.rel_l2(f"{case}/out", np.asarray(out).transpose(to_theirs)) < TOLERANCE
  check_input_gradient(golden, f"{case}/in_grad", np.asarray(in_grad).transpose(to_theirs))
  unused = check_gradients(golden, case, part.released({"params": grads}))
  assert len(unused) == UNUSED_ENTRIES.get(case, 0)
  if "bn_after" in golden.train[case]:
    assert not check_statistics(
      golden.train[case]["bn_after"],
      variables["batch_stats"],
      state["batch_stats"],
      element_counts(module, variables, x, **kwargs),
      part.names(variables).__getitem__,
    )


@pytest.mark.parametrize("case", ["asfr_7x7", "asfr_3x3", "asfr_1x1"])
def test_what_the_scan_of_asfr_adds(case, fermam_golden, golden_rules, part):
  """In the released result it is a difference of large numbers; here it is compared alone."""
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
def test_pyramid_fusion_and_its_gradients(
  case, fermam_golden, golden_rules, part, vjp, check_gradients, check_input_gradient
):
  """45 tokens are padded to the 49 of a square."""
  golden, module = fermam_golden, PyramidFusion("released")
  shape = golden.index[f"{case}/in0"]["shape"]
  inputs = tuple(golden_rules.normal(f"input:{case}:{x}", shape) for x in ("ir", "lm"))
  for i, x in enumerate(inputs):
    assert golden.rel_l2(f"{case}/in{i}", x) == 0
  part = part(module, "fusion")
  variables = part.variables(*map(jnp.asarray, inputs), golden.weights(case), train=False)

  def apply(variables, *inputs):
    own = module.clone(dtype=jnp.float64)
    return (own.apply(variables, *inputs, train=False),), None

  cotangent = golden_rules.normal(golden.train[case]["cotangent"], shape)
  (out,), _, grads, in_grads = vjp(apply, variables, inputs, (cotangent,))
  assert golden.rel_l2(f"{case}/out", out) < TOLERANCE
  for i, in_grad in enumerate(in_grads):
    check_input_gradient(golden, f"{case}/in_grad{i}", in_grad)
  unused = check_gradients(golden, case, part.released({"params": grads}))
  assert unused == {"ssm1.D", "ssm2.D", "ssm3.D"}


@pytest.mark.parametrize("case", ["mobilefacenet", "mobilefacenet_train"])
def test_mobilefacenet_with_its_embedding(
  case,
  fermam_golden,
  golden_rules,
  vjp,
  element_counts,
  check_statistics,
  check_gradients,
  check_input_gradient,
):
  golden, train = fermam_golden, case.endswith("_train")
  module = MobileFaceNet(embedding_size=512)
  image = golden_rules.image(f"input:{case}", golden.index[f"{case}/in"]["shape"])
  assert golden.rel_l2(f"{case}/in", image) == 0
  variables = torch_weights.import_state_dict(module, golden.weights("mobilefacenet"))
  name = golden.train[case]["cotangent"]
  embedding, features = (
    golden_rules.normal(f"{name}:{i}", golden.index[f"{case}/out{i}"]["shape"]) for i in (0, 1)
  )

  def apply(variables, image):
    own = module.clone(dtype=jnp.float64)
    out, state = own.apply(variables, image, train=train, mutable=["batch_stats"])
    return (out.embedding, out.features), state

  cotangents = (embedding, features.transpose(NHWC))
  outputs, state, grads, (in_grad,) = vjp(
    apply, variables, (image.transpose(NHWC),), cotangents, jax.jit
  )
  assert golden.rel_l2(f"{case}/out0", outputs[0]) < TOLERANCE
  assert golden.rel_l2(f"{case}/out1", np.asarray(outputs[1]).transpose(NCHW)) < TOLERANCE
  check_input_gradient(golden, f"{case}/in_grad", np.asarray(in_grad).transpose(NCHW))
  released = torch_weights.export_state_dict(module, {**variables, "params": grads})
  assert check_gradients(golden, case, released) == set()
  if train:
    assert not check_statistics(
      golden.train[case]["bn_after"],
      variables["batch_stats"],
      state["batch_stats"],
      element_counts(module, variables, image.transpose(NHWC), train=True),
      released_names.table_of(module),
    )


@pytest.mark.parametrize("case", ["ir50", "ir50_train"])
def test_ir50_from_the_image_to_its_tokens(
  case,
  fermam_golden,
  golden_rules,
  vjp,
  element_counts,
  check_statistics,
  check_gradients,
  check_input_gradient,
):
  golden, train = fermam_golden, case.endswith("_train")
  module = IR50()
  image = golden_rules.image("input:ir50", golden.index[f"{case}/in"]["shape"])
  assert golden.rel_l2(f"{case}/in", image) == 0
  variables = torch_weights.import_state_dict(module, golden.weights("ir50"))
  cotangent = golden_rules.normal(
    golden.train[case]["cotangent"], golden.index[f"{case}/out"]["shape"]
  )

  def apply(variables, image):
    own = module.clone(dtype=jnp.float64)
    x, state = own.apply(variables, half_by_nearest(image), train=train, mutable=["batch_stats"])
    return (image_tokens(x, variant="released"),), state

  (out,), state, grads, (in_grad,) = vjp(
    apply, variables, (image.transpose(NHWC),), (cotangent,), jax.jit
  )
  assert golden.rel_l2(f"{case}/out", out) < TOLERANCE
  check_input_gradient(golden, f"{case}/in_grad", np.asarray(in_grad).transpose(NCHW))
  released = torch_weights.export_state_dict(module, {**variables, "params": grads})
  unused = check_gradients(golden, case, released)
  assert {x.split(".")[0] for x in unused} == {"output_layer"}
  if train:
    unseen = check_statistics(
      golden.train[case]["bn_after"],
      variables["batch_stats"],
      state["batch_stats"],
      element_counts(
        module, variables, half_by_nearest(jnp.asarray(image.transpose(NHWC))), train=True
      ),
      released_names.table_of(module),
    )
    assert {x.split(".")[0] for x in unseen} <= {"output_layer"}

"""The released variant of EmoNeXt compared with recorded numbers of the released program."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import ferjax
from ferjax.config import LossConfig
from ferjax.expressions import SEVEN_EXPRESSIONS
from ferjax.interop import released_names, torch_weights
from ferjax.models.convnext import ConvNeXtBlock, LayerNorm
from ferjax.models.emonext import SqueezeExcitation, TokenAttention
from ferjax.ops.sampling import affine_grid
from ferjax.tasks.classification.task import ClassificationTask
from ferjax.typing import ClassifierOutput

TOLERANCE = 1e-5
# The residual sums of 18 blocks and the features are float32 for every dtype.
GRADIENT_TOLERANCE = 1e-4
NCHW = (0, 3, 1, 2)
NHWC = (0, 2, 3, 1)
# Recorded modules -> ours, for the arrays that are a module's output.
TAPS = {
  "localization.0": "stn/conv0/conv",
  "localization.3": "stn/conv0",
  "localization": "stn/conv1",
  "fc_loc.0": "stn/dense0",
  "fc_loc": "stn/dense1",
  "stn": "stn",
  **{f"downsample_layers.{i}": f"downsample{i}" for i in (1, 2, 3)},
  "downsample_layers.0": "stem",
  **{f"stages.{i}": f"stage{i}" for i in range(4)},
  "stages.0.0": "stage0/block0",
  "norm": "norm",
  "head": "head",
}


@pytest.fixture(scope="module")
def model():
  return ferjax.create_model("emonext", num_classes=7, variant="released", drop_path_rate=0.0)


@pytest.fixture(scope="module")
def variables(model, emonext_golden):
  return torch_weights.import_state_dict(model, emonext_golden.weights())


@pytest.fixture(scope="module")
def image(golden_rules):
  image = golden_rules.waves01("input:emonext", (2, 3, 224, 224))
  return jnp.asarray(image.transpose(NHWC))


@pytest.fixture(scope="module")
def forward(model):
  @jax.jit
  def run(variables, image):
    """The output, and the recorded intermediate arrays; all would take too much memory."""
    output, state = model.apply(variables, image, train=False, capture_intermediates=True)
    taps = flatten_dict(state["intermediates"], sep="/")
    return output, {name: taps[f"{path}/__call__"][0] for name, path in TAPS.items()}

  return run


@pytest.fixture(scope="module")
def attend(variables):
  """The weights, which the released program computes at evaluation too, and the tokens' norm."""

  def run(features):
    variables_ = {"params": variables["params"]["attention"]}
    (_, weights), state = TokenAttention().apply(variables_, features, capture_intermediates=True)
    return weights, state["intermediates"]["norm"]["__call__"][0]

  return jax.jit(run)


def released_loss(output, labels):
  """(loss, cross entropy) with the released settings."""
  task = ClassificationTask(
    SEVEN_EXPRESSIONS, LossConfig(label_smoothing=0.2, regularizer_weight=1.0)
  )
  labels = jnp.asarray(np.eye(7, dtype=np.float32)[labels])
  loss = task.loss(output, {"label": labels, "mask": jnp.ones(len(labels), bool)})
  return loss.total, loss.parts["cross_entropy"]


def test_every_intermediate_and_output(emonext_golden, forward, attend, variables, image):
  golden = emonext_golden
  output, arrays = forward(variables, image)
  weights, attention_norm = attend(output.features)
  arrays |= {
    "in": np.asarray(image),
    "theta": arrays["fc_loc"].reshape(2, 2, 3),
    "features": output.features,
    "logits": output.logits,
    "attention_weights": weights,
    "attention.norm": attention_norm,
    "logits_batch1": output.logits[:1],
  }
  arrays["grid"] = affine_grid(jnp.asarray(arrays["theta"]), 224, 224, align_corners=True)
  recorded = {x.removeprefix("full/") for x in golden.index if x.startswith("full/")}
  assert set(arrays) == recorded - {"argmax"}
  errors = {}
  for name, value in arrays.items():
    channels_first = golden.index[f"full/{name}"]["layout"] == "NCHW"
    value = np.asarray(value).transpose(NCHW) if channels_first else value
    errors[name] = golden.rel_l2(f"full/{name}", value)
  wrong = {name: error for name, error in errors.items() if not error < TOLERANCE}
  assert wrong == {}
  np.testing.assert_array_equal(output.logits.argmax(-1), golden.expect("full/argmax"))
  record = golden.train["eval_loss"]
  loss, entropy = released_loss(output._replace(attention=weights), record["labels"])
  np.testing.assert_allclose(loss, record["loss"], rtol=1e-5)
  np.testing.assert_allclose(entropy, record["loss_ce"], rtol=1e-5)
  # One image attends to itself only, so that nothing is added to its cross entropy.
  alone = ClassifierOutput(output.logits[:1], output.features[:1], attend(output.features[:1])[0])
  loss, entropy = released_loss(alone, record["labels"][:1])
  np.testing.assert_allclose(loss, record["loss_batch1_first_image"], rtol=1e-5)
  np.testing.assert_allclose(loss, entropy, rtol=1e-7)


def test_batch_of_four(emonext_golden, golden_rules, forward, attend, variables):
  """In two halves, whose features then attend to each other."""
  golden, record = emonext_golden, emonext_golden.train["eval_loss"]
  four = golden_rules.waves01("input:emonext4", (4, 3, 224, 224)).transpose(NHWC)
  halves = [forward(variables, jnp.asarray(x))[0] for x in (four[:2], four[2:])]
  logits, features = (jnp.concatenate(x) for x in zip(*(y[:2] for y in halves), strict=True))
  weights, _ = attend(features)
  assert golden.rel_l2("full4/logits", logits) < TOLERANCE
  assert golden.rel_l2("full4/attention_weights", weights) < TOLERANCE
  loss, _ = released_loss(ClassifierOutput(logits, features, weights), record["labels_batch4"])
  np.testing.assert_allclose(loss, record["loss_batch4"], rtol=1e-5)


@pytest.fixture(scope="module")
def train_step(model, variables, image, emonext_golden, compiled):
  """(loss, cross entropy, output, statistics), gradients.

  In float64: where a point of the transformer's grid crosses the centre of a pixel, the gradients
  of its localisation jump, as those of maxima and ReLUs do.
  """
  own = model.clone(dtype=jnp.float64)

  def step(params, image):
    def loss_fn(params):
      variables_ = {"params": params, "batch_stats": variables["batch_stats"]}
      output, state = own.apply(variables_, image, train=True, mutable=["batch_stats"])
      loss, entropy = released_loss(output, emonext_golden.train["train"]["labels"])
      return loss, (entropy, output, state["batch_stats"])

    return jax.value_and_grad(loss_fn, has_aux=True)(params)

  with jax.enable_x64(True):
    arguments = variables["params"], image.astype(jnp.float64)
    (loss, rest), grads = compiled(step, *arguments)(*arguments)
  return (loss, *rest), grads


def test_loss_and_gradients(emonext_golden, check_gradients, model, variables, train_step):
  golden, record = emonext_golden, emonext_golden.train["train"]
  (loss, entropy, output, _), grads = train_step
  assert golden.rel_l2("train/logits", output.logits) < TOLERANCE
  np.testing.assert_allclose(loss, record["loss"], rtol=1e-5)
  np.testing.assert_allclose(entropy, record["loss_ce"], rtol=1e-5)
  grads = torch_weights.export_state_dict(
    model, {"params": grads, "batch_stats": variables["batch_stats"]}
  )
  values = {"attention.value.weight", "attention.value.bias"}
  assert check_gradients(golden, "train", grads, GRADIENT_TOLERANCE) == values
  recorded = {x for x, y in record["params"].items() if y is not None and not y["negligible"]}
  assert len(recorded) == 203
  total = np.sqrt(sum((grads[x].astype(np.float64) ** 2).sum() for x in record["params"]))
  np.testing.assert_allclose(total, record["total_grad_norm"], rtol=1e-4)
  # BatchNorm cancels the localisation's biases, softmax the key's; the values are unused.
  unused = {
    *(f"localization.{i}.bias" for i in (0, 4)),
    *(f"attention.{x}" for x in ("key.bias", "value.weight", "value.bias")),
  }
  assert set(record["params"]) - recorded == unused
  for name in unused:
    assert np.abs(grads[name]).max() < 1e-5 * total, name


def test_running_statistics(emonext_golden, check_statistics, model, variables, train_step):
  (*_, after), _ = train_step
  left_over = check_statistics(
    emonext_golden.train["train"]["bn_after"],
    variables["batch_stats"],
    after,
    {("stn", "conv0", "norm"): 2 * 218**2, ("stn", "conv1", "norm"): 2 * 105**2},
    released_names.table_of(model),
  )
  assert left_over == set()


_CASES = {
  # case: (module, its path in the network)
  "selayer_64": (SqueezeExcitation(), ("downsample1", "se")),
  "block_32": (ConvNeXtBlock(), ("stage0", "block0")),
  "layernorm_cf": (nn.LayerNorm(epsilon=1e-6, use_fast_variance=False), ("norm",)),
  "attention_48": (TokenAttention(), ("attention",)),
}
MODULE_CASES = {
  **_CASES,
  "layernorm_cl": _CASES["layernorm_cf"],
  "layernorm_cf_lowvar": _CASES["layernorm_cf"],
  "layernorm_cl_lowvar": _CASES["layernorm_cf"],
  "attention_48_3d": _CASES["attention_48"],
  "attention_48_lowvar": _CASES["attention_48"],
}


@pytest.mark.parametrize("case", MODULE_CASES)
def test_module_and_its_gradients(
  case, emonext_golden, golden_rules, stand_alone, model, vjp, check_gradients, check_input_gradient
):
  golden = emonext_golden
  module, path = MODULE_CASES[case]
  part = stand_alone(module, *path, whole=model)
  x = golden_rules.normal(f"input:{case}", golden.index[f"{case}/in"]["shape"])
  x = x * np.float32(0.003 if case.endswith("lowvar") else 1)
  assert golden.rel_l2(f"{case}/in", x) == 0
  kwargs = {"train": False} if isinstance(module, ConvNeXtBlock) else {}
  channels_first = golden.index[f"{case}/out"]["layout"] == "NCHW"

  def ours(x):
    return x.transpose(NHWC) if channels_first else x

  def theirs(x):
    return np.asarray(x).transpose(NCHW) if channels_first else np.asarray(x)

  name = golden.train[case]["cotangent"]
  cotangents = {"out": ours(golden_rules.normal(name, golden.index[f"{case}/out"]["shape"]))}
  if isinstance(module, TokenAttention):
    shape = golden.index[f"{case}/weights"]["shape"]
    cotangents["weights"] = golden_rules.normal(f"{name}:weights", shape)
  variables = part.variables(jnp.asarray(ours(x)), golden.weights(case), **kwargs)

  def apply(variables, x):
    out = module.clone(dtype=jnp.float64).apply(variables, x, **kwargs)
    return out if isinstance(out, tuple) else (out,), None

  outputs, _, grads, (in_grad,) = vjp(apply, variables, (ours(x),), cotangents.values())
  for key, value in zip(cotangents, outputs, strict=True):
    value = theirs(value) if key == "out" else np.asarray(value)
    assert golden.rel_l2(f"{case}/{key}", value) < TOLERANCE, key
  check_input_gradient(golden, f"{case}/in_grad", theirs(in_grad))
  assert check_gradients(golden, case, part.released({"params": grads})) == set()


def test_epsilons(emonext_golden, model, variables, image):
  """Of every normalisation, from its fields: they hardly affect the logits."""
  found = {}

  def note(module, method):
    if isinstance(module, LayerNorm | nn.BatchNorm) and method == "__call__":
      name = released_names.table_of(model)(("params", *module.path, "")).rstrip(".")
      found[name] = module.epsilon
      if isinstance(module, nn.BatchNorm):
        assert module.momentum == 1 - 0.1
    return False

  jax.eval_shape(
    lambda: model.apply(variables, image, train=True, mutable=True, capture_intermediates=note)
  )
  recorded = emonext_golden.manifest["norms"]
  assert found == {name: record["eps"] for name, record in recorded.items()}

"""The released variant of the whole network, compared with recorded numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

import ferjax
from ferjax.interop import released_names, torch_weights
from ferjax.models.fermam import average_pool, half_by_nearest, image_tokens
from ferjax.models.mobilefacenet import Embedding, MobileFaceNet

TOLERANCE = 1e-4
NCHW = (0, 3, 1, 2)

# Released module name -> path of ours, for the recorded activations that a module returns.
TAPS = {
  "landmark_features": "landmark/last",
  "face_landback.conv1": "landmark/stem",
  "face_landback.conv2_dw": "landmark/stem_depthwise",
  "face_landback.conv_23": "landmark/down0",
  "face_landback.conv_3": "landmark/stage0_block3",
  "face_landback.conv_34": "landmark/down1",
  "face_landback.conv_4": "landmark/stage1_block5",
  "face_landback.conv_45": "landmark/down2",
  "face_landback.conv_5": "landmark/stage2_block1",
  "face_landback.conv_6_sep": "landmark/last",
  "ir_back.input_layer": "image/stem_prelu",
  "ir_back.body.2": "image/unit2",
  "ir_back.body.6": "image/unit6",
  "ir_back.body.20": "image/unit20",
  "ir_layer": "image_proj",
  "ir_ssm.conv_branch": "conv_ssm/conv_branch",
  "ir_ssm.ln": "conv_ssm/norm",
  "ir_ssm.ss2d": "conv_ssm/ss2d",
  "ir_ssm": "conv_ssm",
  "fusion.fusion_proj": "fusion/proj",
  "fusion.ssm1": "fusion/asfr0",
  "fusion.ssm2": "fusion/asfr1",
  "fusion.ssm3": "fusion/asfr2",
  "fusion": "fusion",
  "se_block": "gate",
  "head": "head",
}


@pytest.fixture(scope="module")
def weights(fermam_golden):
  return fermam_golden.weights()


@pytest.fixture(scope="module")
def model():
  return ferjax.create_model(
    "fermam", num_classes=7, variant="released", frozen="landmark", dropout_rate=0.0
  )


@pytest.fixture(scope="module")
def variables(model, weights):
  return torch_weights.import_state_dict(model, weights)


@pytest.fixture(scope="module")
def image(golden_rules):
  image = golden_rules.image("input:fermam", (2, 3, 224, 224))
  return jnp.asarray(image.transpose(0, 2, 3, 1))


def embedding(features, weights):
  """The landmark features' embedding by the head that FERMam omits."""
  prefix = "face_landback.output_layer."
  head = Embedding(512)
  naming = released_names.table_of(MobileFaceNet())
  shapes = flatten_dict(jax.eval_shape(lambda: head.init(jax.random.key(0), features, train=False)))
  filled = {}
  for path, leaf in shapes.items():
    name = naming((path[0], "embedding", *path[1:])).removeprefix("output_layer.")
    filled["/".join(path)] = torch_weights.from_torch(path, weights[prefix + name], leaf.shape)
  return head.apply(unflatten_dict(filled, sep="/"), features, train=False)


def test_every_intermediate_and_output(fermam_golden, model, variables, weights, image):
  @jax.jit
  def forward(variables, image):
    output, state = model.apply(variables, image, train=False, capture_intermediates=True)
    taps = flatten_dict(state["intermediates"], sep="/")
    return output, {name: taps[f"{path}/__call__"][0] for name, path in TAPS.items()}

  output, values = forward(variables, image)
  projected = values["fusion.fusion_proj"].reshape(2, 7, 7, 512)
  values |= {
    "in": image,
    "x_face": average_pool(image, 2),
    "x_ir": half_by_nearest(image),
    "ir_back": image_tokens(values["ir_back.body.20"], variant="released"),
    "fusion.down1": average_pool(projected, 2),
    "fusion.down2": average_pool(projected, 4),
    "face_embedding_unused": embedding(values["landmark_features"], weights),
    "logits": output.logits,
    "cls_token": output.features,
  }
  recorded = {x.removeprefix("full/") for x in fermam_golden.index if x.startswith("full/")}
  assert set(values) == recorded
  errors = {}
  for name, value in values.items():
    # The layout begins with NCHW or NHWC where the array is a map.
    channels_first = fermam_golden.index[f"full/{name}"]["layout"].startswith("NCHW")
    value = np.asarray(value)
    value = value.transpose(NCHW) if channels_first else value
    errors[name] = fermam_golden.rel_l2(f"full/{name}", value)
  assert max(errors.values()) < TOLERANCE, errors


def loss_of(logits, labels):
  """Cross entropy and twice the smoothed one, as in lsce_* of the recorded numbers."""
  log_p = jax.nn.log_softmax(logits)
  nll = -log_p[jnp.arange(len(labels)), labels]
  smoothed = 0.8 * nll - 0.2 * log_p.mean(axis=-1)
  return jnp.mean(nll + 2 * smoothed)


def train_loss(model, params, batch_stats, image, labels):
  output, state = model.apply(
    {"params": params, "batch_stats": batch_stats}, image, train=True, mutable=["batch_stats"]
  )
  return loss_of(output.logits, jnp.asarray(labels)), (output, state)


def check_outputs(golden, loss, output):
  np.testing.assert_allclose(loss, golden.train["train"]["loss"], rtol=1e-5)
  assert golden.rel_l2("train/logits", output.logits) < TOLERANCE
  assert golden.rel_l2("train/cls_token", output.features) < TOLERANCE


def test_train_loss(fermam_golden, model, variables, image):
  loss_fn = jax.jit(functools.partial(train_loss, model))
  labels = fermam_golden.train["train"]["labels"]
  loss, (output, _) = loss_fn(variables["params"], variables["batch_stats"], image, labels)
  check_outputs(fermam_golden, loss, output)


def test_train_step(
  fermam_golden,
  check_gradients,
  check_statistics,
  element_counts,
  model,
  variables,
  image,
):
  """In float64 except for the scans: in float32, an activation near 0 changes its sign."""
  record = fermam_golden.train["train"]
  with jax.enable_x64(True):
    loss_fn = functools.partial(train_loss, model.clone(dtype=jnp.float64))
    step = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    (loss, (output, state)), grads = step(
      variables["params"],
      variables["batch_stats"],
      image.astype(jnp.float64),
      record["labels"],
    )
  check_outputs(fermam_golden, loss, output)
  released = torch_weights.export_state_dict(
    model, {"params": grads, "batch_stats": state["batch_stats"]}
  )
  assert len(check_gradients(fermam_golden, "train", released)) == 192
  unseen = check_statistics(
    record["bn_after"],
    variables["batch_stats"],
    state["batch_stats"],
    element_counts(model, variables, image, train=True),
    released_names.table_of(model),
  )
  # The head of the landmark branch, which FERMam leaves out, is run by the released program.
  heads = ("face_landback.output_layer.", "ir_back.output_layer.")
  assert all(x.startswith(heads) for x in unseen)


def test_initial_values_follow_the_released_distributions(
  fermam_golden, model, jit_quickly, quick_key
):
  """Mean and spread of each tensor, within its sampling error."""
  image = jnp.zeros((1, 32, 32, 3))
  variables = jit_quickly(lambda key: model.init(key, image, train=False))(quick_key)
  ours = torch_weights.export_state_dict(model, variables)
  naming = released_names.table_of(model)
  checked = 0
  for entry in fermam_golden.manifest["params"]:
    name = entry["name"]
    if entry["kind"] != "param" or np.prod(entry["shape"]) < 64 or naming.ignores(name):
      continue
    theirs, value = entry["upstream_init"], ours[name].astype(np.float64)
    slack = 6 * max(theirs["std"], 1e-6) / np.sqrt(value.size)
    assert abs(value.mean() - theirs["mean"]) < 2 * slack, name
    assert abs(value.std() - theirs["std"]) < slack, name
    checked += 1
  assert checked > 300

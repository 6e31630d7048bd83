"""Properties of FERMam for every size, variant and mode."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import ferjax
from ferjax.interop.fermam_names import FERMAM
from ferjax.models.fermam import PARTS, average_pool, image_tokens
from ferjax.models.ir50 import IR50
from ferjax.models.mobilefacenet import MobileFaceNet

create = functools.partial(ferjax.create_model, "fermam", num_classes=7)


@pytest.fixture(scope="module")
def nano(jit_quickly, quick_key):
  """A small network whose running statistics and norms differ from channel to channel."""
  model = create(size="nano", dropout_rate=0.0)
  image = jnp.zeros((1, 64, 64, 3))
  variables = jit_quickly(lambda key: model.init(key, image, train=False))(quick_key)
  rng = np.random.default_rng(0)

  def vary(path, x):
    noise = jnp.asarray(rng.standard_normal(x.shape), jnp.float32)
    if path[-1].key in ("scale", "var"):
      return x * jnp.exp(0.2 * noise)
    return x + 0.1 * noise if path[-1].key in ("mean", "bias") else x

  return model, jax.tree_util.tree_map_with_path(vary, variables)


def test_number_of_executed_and_of_unused_released_parameters(fermam_golden, abstract, count):
  """The released program also builds two unused embeddings."""
  counts = fermam_golden.manifest["counts"]
  unused = {"image": 0, "landmark": 0}
  for name, shape in FERMAM.unused.items():
    if "running" not in name:
      unused["image" if name.startswith("ir_back") else "landmark"] += int(np.prod(shape))
  assert unused == {"image": 12_847_616, "landmark": 289_280}
  for variant in ("corrected", "released"):
    params = abstract(create(variant=variant))[0]["params"]
    assert count(params) == 26_874_791 == counts["total_params"] - sum(unused.values())
    parts = {name: count(x) for name, x in params.items()}
    released = counts["per_submodule"]
    assert parts == {
      "image": released["ir_back"] - unused["image"],
      "landmark": released["face_landback"] - unused["landmark"],
      "image_proj": released["ir_layer"],
      "conv_ssm": released["ir_ssm"],
      "fusion": released["fusion"],
      "gate": released["se_block"],
      "head": released["head"],
    }


def test_variants_and_modes_share_their_variables(abstract):
  variables, _ = abstract(create(size="nano"))
  for change in ({"variant": "released"}, {"mode": "conv_only"}, {"mode": "ssm_only"}):
    other, _ = abstract(create(size="nano", **change))
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, other)


def test_parameter_paths_are_an_interface(abstract):
  params = flatten_dict(abstract(create())[0]["params"], sep="/")
  assert len(params) == 422 - 6 - 6
  modules = {"/".join(x.split("/")[:2]) for x in params}
  assert modules == {
    *(f"image/{x}" for x in ("stem", "stem_bn", "stem_prelu")),
    *(f"image/unit{i}" for i in range(21)),
    *(f"landmark/{x}" for x in ("stem", "stem_depthwise", "down0", "down1", "down2", "last")),
    *(f"landmark/stage{i}_block{j}" for i, n in enumerate((4, 6, 2)) for j in range(n)),
    *(f"{x}/{y}" for x in ("image_proj", "head") for y in ("kernel", "bias")),
    *(f"conv_ssm/{x}" for x in ("conv_branch", "norm", "ss2d")),
    *(f"fusion/{x}" for x in ("proj", "asfr0", "asfr1", "asfr2", "norm")),
    *(f"gate/dense{i}" for i in (0, 1)),
  }
  assert {x.split("/")[0] for x in params} == set(PARTS)
  asfr = {x.removeprefix("fusion/asfr1/") for x in params if x.startswith("fusion/asfr1/")}
  assert asfr == {
    "A_log",
    "D",
    "conv/kernel",
    *(f"{x}/kernel" for x in ("in_proj", "x_proj", "dt_proj", "input_step", "out_proj")),
    *(f"{x}/bias" for x in ("dt_proj", "input_step", "norm", "out_proj")),
    "norm/scale",
  }
  unit = {x.removeprefix("image/unit3/") for x in params if x.startswith("image/unit3/")}
  assert unit == {
    *(f"{x}/kernel" for x in ("conv1", "conv2", "shortcut")),
    *(f"{x}/{y}" for x in ("bn1", "bn2", "shortcut_bn") for y in ("scale", "bias")),
    "prelu/slope",
  }


@pytest.mark.parametrize(("height", "width"), [(32, 32), (96, 160), (224, 224), (256, 256)])
def test_image_sizes(abstract, height, width):
  model = create(size="nano", num_classes=8)
  _, output = abstract(model, height, width)
  assert output.logits.shape == (1, 8)
  assert output.features.shape == (1, 128)


def test_tokens_hold_their_own_patches(fermam_golden):
  x = np.arange(2 * 6 * 10 * 3, dtype=np.float32).reshape(2, 6, 10, 3)
  tokens = np.asarray(image_tokens(jnp.asarray(x), variant="corrected")).reshape(2, 3, 5, 12)
  for i in range(3):
    for j in range(5):
      patch = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
      np.testing.assert_array_equal(tokens[:, i, j], patch.reshape(2, 12))


def test_released_tokens_are_the_memory_of_the_map_channels_first(fermam_golden):
  flat = np.arange(256 * 14 * 14, dtype=np.float32).reshape(1, 256, 14, 14)
  tokens = image_tokens(jnp.asarray(flat.transpose(0, 2, 3, 1)), variant="released")
  np.testing.assert_array_equal(tokens[0, 0], fermam_golden.expect("ir50_view/first_row"))
  np.testing.assert_array_equal(tokens[0, :, 0], fermam_golden.expect("ir50_view/first_col"))


def test_moving_a_patch_of_the_image_moves_its_tokens(nano, jit_quickly, check_same):
  """Far from the borders, where every unit sees the same zeros around the image."""
  model, variables = nano
  patch = np.random.default_rng(1).standard_normal((32, 32, 3)).astype(np.float32)
  images = np.zeros((3, 384, 384, 3), np.float32)
  images[1, 160:192, 160:192] = patch
  images[2, 160:192, 192:224] = patch

  @functools.partial(jit_quickly, static_argnames="variant")
  def tokens(images, variant):
    branch = IR50(model.bind(variables).image.width, (1, 1, 2))
    own = {name: x["image"] for name, x in variables.items()}
    x = branch.apply(own, images[:, ::2, ::2], train=False)
    return image_tokens(x, variant=variant).reshape(3, 12, 12, -1)

  empty, first, moved = tokens(images, "corrected")
  check_same(np.roll(first - empty, 1, axis=1), moved - empty)
  changed = np.abs(first - empty).max(axis=-1)
  assert np.unravel_index(changed.argmax(), changed.shape) == (5, 5)
  empty, first, moved = tokens(images, "released")
  assert np.abs(np.roll(first - empty, 1, axis=1) - (moved - empty)).max() > 0.1


@pytest.mark.parametrize(("variant", "alive"), [("corrected", 49), ("released", 16)])
def test_number_of_landmark_tokens_that_reach_the_logits(nano, jit_quickly, variant, alive):
  model, variables = nano
  model = model.clone(variant=variant)
  image, landmark = jax.random.normal(jax.random.key(0), (2, 1, 49, 128))

  @jit_quickly
  def gradient(landmark):
    def score(landmark):
      output = model.apply(variables, image, landmark, (7, 7), train=False, method="classify")
      return jnp.sum(output.logits * jnp.arange(1.0, 8.0)[None])

    return jax.grad(score)(landmark)

  reached = np.abs(np.asarray(gradient(landmark))).max(axis=(0, 2)).reshape(7, 7) > 0
  assert reached.sum() == alive
  if variant == "released":
    assert reached[:4, :4].all()


def test_pooling_drops_incomplete_cells_but_never_all():
  x = jnp.arange(5 * 7.0).reshape(1, 5, 7, 1)
  means = np.asarray(x)[0, :4, :6, 0].reshape(2, 2, 3, 2).mean(axis=(1, 3))
  np.testing.assert_allclose(average_pool(x, 2)[0, :, :, 0], means)
  np.testing.assert_allclose(average_pool(x[:, :1, :3], 4)[0, :, :, 0], [[1.0]])


def test_a_batch_equals_its_images_one_by_one(nano, jit_quickly, check_same):
  model, variables = nano
  image = jax.random.normal(jax.random.key(1), (3, 128, 128, 3))
  forward = jit_quickly(functools.partial(model.apply, train=False))
  whole = forward(variables, image)
  for i in range(3):
    one = forward(variables, image[i : i + 1])
    check_same(whole.logits[i], one.logits[0])
  half = jit_quickly(functools.partial(create(size="nano", dtype="bfloat16").apply, train=False))
  close = half(variables, image)
  assert close.logits.dtype == close.features.dtype == jnp.float32
  error = jnp.linalg.norm(close.features - whole.features) / jnp.linalg.norm(whole.features)
  assert 0 < error < 3e-2


def grads_and_statistics(jit, model, variables, *, side, train):
  image = jax.random.normal(jax.random.key(1), (2, side, side, 3))

  def loss_fn(params):
    output, updates = model.apply(
      {"params": params, "batch_stats": variables["batch_stats"]},
      image,
      train=train,
      mutable=["batch_stats"],
    )
    return jnp.sum(output.logits**2), updates["batch_stats"]

  return jit(jax.grad(loss_fn, has_aux=True))(variables["params"])


def test_every_parameter_gets_a_gradient(nano, jit_quickly):
  """Of a size whose coarsest map has several cells, so that its scan has a state."""
  grads, _ = grads_and_statistics(jit_quickly, *nano, side=256, train=False)
  grads = flatten_dict(grads, sep="/")
  assert [name for name, x in grads.items() if not np.any(np.asarray(x))] == []
  assert all(np.isfinite(np.asarray(x)).all() for x in grads.values())


@pytest.mark.parametrize(
  ("variant", "frozen"), [("corrected", "image+landmark"), ("released", "landmark")]
)
def test_frozen_branches_get_no_gradient_and_keep_statistics(nano, jit_quickly, variant, frozen):
  """Except the released landmark branch, whose statistics are updated."""
  model, variables = nano
  model = model.clone(variant=variant, frozen=frozen)
  grads, stats = grads_and_statistics(jit_quickly, model, variables, side=128, train=True)
  for part in ("image", "landmark", "conv_ssm"):
    is_frozen = part in frozen
    norms = [float(jnp.abs(x).sum()) for x in jax.tree.leaves(grads[part])]
    assert (max(norms) == 0) == is_frozen
    same = jax.tree.map(jnp.array_equal, stats[part], variables["batch_stats"][part])
    assert all(jax.tree.leaves(same)) == (is_frozen and variant == "corrected")


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"size": "s"}, "unknown size 's' of fermam; known: nano, tiny, base"),
    ({"variant": "fixed"}, "unknown variant 'fixed'.*known: corrected, released"),
    ({"mode": "ssm"}, "unknown mode 'ssm' of fermam; known: both, conv_only, ssm_only"),
    ({"frozen": "backbone"}, "unknown frozen 'backbone' of fermam; known: none, landmark"),
  ],
)
def test_unknown_values_are_rejected_on_creation(change, message):
  with pytest.raises(ValueError, match=message):
    create(**change)


def test_sizes_that_do_not_fit(abstract):
  with pytest.raises(ValueError, match="100 x 64 pixels; both sides must be divisible by 32"):
    abstract(create(size="nano"), 100, 64)
  image = jnp.zeros((1, 96, 112, 3))
  with pytest.raises(ValueError, match=r"6 x 7 cells; the embedding of MobileFaceNet takes 7 x 7"):
    jax.eval_shape(
      lambda: MobileFaceNet(embedding_size=4).init(jax.random.key(0), image, train=False)
    )

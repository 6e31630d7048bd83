"""Properties of the network for every size and variant."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import ferjax
from ferjax.models import fer_yolo_mamba
from ferjax.models.fer_yolo_mamba import PARTS

create = functools.partial(ferjax.create_model, "fer_yolo_mamba", num_classes=7)


@pytest.fixture(scope="module", autouse=True)
def mini_size():
  """A network that compiles fast: narrow, and without the depthwise convolutions of "nano"."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(fer_yolo_mamba.SIZES, "mini", (0.33, 0.125))
    patch.setitem(fer_yolo_mamba.CHOICES, "size", tuple(fer_yolo_mamba.SIZES))
    yield


@pytest.fixture(scope="module")
def filled(abstract, random_values):
  """A network of a size, with random variables.

  The attention's kernels are positive: its one or two hidden units may otherwise all be dead.
  """

  def fill(size):
    model = create(size=size)
    variables = jax.tree_util.tree_map_with_path(
      lambda path, x: jnp.abs(x) if "attention" in jax.tree_util.keystr(path) else x,
      random_values(abstract(model)[0]),
    )
    return model, variables

  return fill


@pytest.fixture(scope="module")
def nano(filled):
  return filled("nano")


@pytest.fixture(scope="module")
def mini(filled):
  return filled("mini")


@pytest.fixture(scope="module")
def forward(mini, image, jit_quickly):
  """The compiled network and its output for all images."""
  model, variables = mini
  run = jit_quickly(functools.partial(model.apply, train=False))
  return run, run(variables, image)


@pytest.fixture(scope="module")
def initial_params(jit_quickly, quick_key):
  """Initial parameters of one block and of one level of the head: all take long to compile."""
  model, image = create(size="nano"), jnp.zeros((1, 32, 32, 3))

  def init(key):
    params = model.init(key, image, train=False)["params"]
    return params["neck"]["vss_p3"]["ss2d"], params["head"]["level1"]

  return jit_quickly(init)(quick_key)


@pytest.fixture(scope="module")
def image():
  return jax.random.normal(jax.random.key(1), (3, 64, 64, 3))


def test_released_size_has_the_released_number_of_parameters(golden, abstract, count):
  for variant in ("corrected", "released"):
    variables, _ = abstract(create(variant=variant))
    assert count(variables["params"]) == golden.manifest["counts"]["total_params"]
    parts = {name: count(x) for name, x in variables["params"].items()}
    released = golden.manifest["counts"]["per_submodule"]
    assert parts["head"] == released["head"]
    assert parts["backbone"] + parts["neck"] == released["backbone"]


@pytest.mark.parametrize(
  ("size", "width"), [("nano", 64), ("tiny", 96), ("s", 128), ("m", 192), ("l", 256), ("x", 320)]
)
def test_sizes(abstract, size, width):
  """Channels of the three features are 2, 4 and 8 times 64 * width; the head has 256 * width."""
  variables, output = abstract(create(size=size), 320)
  assert [x.shape for x in output.levels] == [(1, n, n, 12) for n in (40, 20, 10)]
  stems = [variables["params"]["head"][f"level{i}"]["stem"]["conv"]["kernel"] for i in range(3)]
  assert [x.shape for x in stems] == [(1, 1, c * width, width) for c in (1, 2, 4)]


def test_variants_share_parameters_and_differ_in_the_finest_map(abstract):
  corrected, output = abstract(create(variant="corrected"))
  released, released_output = abstract(create(variant="released"))
  assert jax.tree.map(jnp.shape, corrected) == jax.tree.map(jnp.shape, released)
  assert [x.shape[1:3] for x in output.levels] == [(8, 8), (4, 4), (2, 2)]
  assert [x.shape[1:3] for x in released_output.levels] == [(4, 4), (4, 4), (2, 2)]


def test_parameter_paths_are_an_interface(abstract):
  variables, _ = abstract(create())
  params = flatten_dict(variables["params"], sep="/")
  assert len(params) == 279
  modules = {"/".join(x.split("/")[:2]) for x in params}
  assert modules == {
    *(f"backbone/stage{i}_{kind}" for i in (2, 3, 4, 5) for kind in ("conv", "csp")),
    "backbone/stem",
    "backbone/stage5_spp",
    *(f"neck/vss_{x}" for x in ("p4", "p3", "n3", "n4")),
    *(f"neck/{x}" for x in ("lateral", "reduce_p4", "out_p3", "down_p3", "down_n3")),
    *(f"head/level{i}" for i in range(3)),
  }
  assert set(variables["params"]) == set(PARTS)
  block = {x.removeprefix("neck/vss_p3/") for x in params if x.startswith("neck/vss_p3/")}
  assert block == {
    "norm/scale",
    "norm/bias",
    "ss2d/in_proj/kernel",
    "ss2d/conv/kernel",
    "ss2d/conv/bias",
    "ss2d/x_proj_weight",
    "ss2d/dt_proj_weight",
    "ss2d/dt_proj_bias",
    "ss2d/A_log",
    "ss2d/D",
    "ss2d/norm/scale",
    "ss2d/norm/bias",
    "ss2d/out_proj/kernel",
    "frm/reduce/kernel",
    "frm/reduce_bn/scale",
    "frm/reduce_bn/bias",
    *(f"frm/attention/dense{i}/kernel" for i in range(3)),
    "frm/expand/kernel",
    "frm/expand_bn/scale",
    "frm/expand_bn/bias",
    "fuse/kernel",
    "fuse/bias",
  }
  level = {x.removeprefix("head/level0/") for x in params if x.startswith("head/level0/")}
  convs = ("stem", "cls_conv0", "cls_conv1", "reg_conv0", "reg_conv1")
  assert level == {
    *(f"{x}/{y}" for x in convs for y in ("conv/kernel", "bn/scale", "bn/bias")),
    *(f"{x}_pred/{y}" for x in ("cls", "reg", "obj") for y in ("kernel", "bias")),
  }


def test_state_space_parameters_start_as_specified(initial_params):
  ssm, _ = initial_params
  states = np.log(np.arange(1, 17, dtype=np.float32))
  np.testing.assert_allclose(ssm["A_log"], np.broadcast_to(states, (8, 128, 16)), rtol=1e-6)
  np.testing.assert_array_equal(ssm["D"], np.ones((8, 128)))
  dt = np.log1p(np.exp(np.asarray(ssm["dt_proj_bias"], np.float64)))
  assert dt.min() > 0.99e-3
  assert dt.max() < 1.01e-1
  # Log-uniform: the median is the geometric mean of the ends.
  np.testing.assert_allclose(np.median(np.log10(dt)), -2, atol=0.15)
  assert np.abs(ssm["dt_proj_weight"]).max() <= 4**-0.5


def test_prior_probability(initial_params):
  _, head = initial_params
  for name in ("obj_pred", "cls_pred"):
    np.testing.assert_allclose(head[name]["bias"], -np.log(99), rtol=1e-6)
  assert np.abs(head["reg_pred"]["bias"]).max() <= 64**-0.5


def test_a_batch_equals_its_images_one_by_one(mini, image, forward, check_same):
  _, variables = mini
  run, whole = forward
  for i in range(3):
    one = run(variables, image[i : i + 1])
    for a, b in zip(whole.levels, one.levels, strict=True):
      check_same(a[i], b[0])


def test_rectangular_images(nano):
  model, variables = nano
  output = jax.eval_shape(lambda: model.apply(variables, jnp.zeros((2, 96, 160, 3)), train=False))
  assert [x.shape for x in output.levels] == [(2, 12, 20, 12), (2, 6, 10, 12), (2, 3, 5, 12)]


def test_every_parameter_gets_a_gradient(nano, image, jit_quickly):
  model, variables = nano

  def loss_fn(params):
    output, _ = model.apply(
      {"params": params, "batch_stats": variables["batch_stats"]},
      image,
      train=True,
      mutable=["batch_stats"],
    )
    return sum(jnp.sum(x**2) for x in output.levels)

  grads = flatten_dict(jit_quickly(jax.grad(loss_fn))(variables["params"]), sep="/")
  dead = [name for name, x in grads.items() if not np.any(np.asarray(x))]
  assert dead == []
  assert all(np.isfinite(np.asarray(x)).all() for x in grads.values())


@pytest.mark.parametrize("frozen", ["backbone", "backbone+neck"])
def test_frozen_parts_keep_statistics_and_get_no_gradient(mini, image, frozen, jit_quickly):
  model, variables = mini
  model = model.clone(frozen=frozen)

  def loss_fn(params):
    output, updates = model.apply(
      {"params": params, "batch_stats": variables["batch_stats"]},
      image,
      train=True,
      mutable=["batch_stats"],
    )
    return sum(jnp.sum(x**2) for x in output.levels), updates["batch_stats"]

  grads, stats = jit_quickly(jax.grad(loss_fn, has_aux=True))(variables["params"])
  for part in ("backbone", "neck", "head"):
    is_frozen = part in frozen.split("+")
    norms = [float(jnp.abs(x).sum()) for x in jax.tree.leaves(grads[part])]
    assert (max(norms) == 0) == is_frozen
    same = jax.tree.map(jnp.array_equal, stats[part], variables["batch_stats"][part])
    assert all(jax.tree.leaves(same)) == is_frozen


def test_bfloat16_follows_float32(mini, image, forward, jit_quickly):
  """Outputs stay float32, and the maps agree as far as bfloat16 carries."""
  _, variables = mini
  # Kernels about as small as initial ones, so that no error grows from layer to layer.
  variables = jax.tree_util.tree_map_with_path(
    lambda path, x: 0.5 * x if path[-1].key == "kernel" else x, variables
  )
  half = create(size="mini", dtype="bfloat16")
  full_output = forward[0](variables, image)
  half_output = jit_quickly(functools.partial(half.apply, train=False))(variables, image)
  for a, b in zip(full_output.levels, half_output.levels, strict=True):
    assert b.dtype == jnp.float32
    error = jnp.linalg.norm((a - b).ravel()) / jnp.linalg.norm(a.ravel())
    assert 0 < error < 3e-2


def test_pure_function_under_the_transformations(mini, image, forward, jit_quickly, check_same):
  """`jit`, `vmap`, `grad`, `pmap` and `shard_map` of `model.apply`."""
  model, variables = mini
  images = image[:2, None]
  apply = functools.partial(model.apply, train=False)
  score = lambda x: sum(level.sum() for level in apply(variables, x).levels)  # noqa: E731
  expected = jax.tree.map(lambda x: x[:2], forward[1])
  mapped = jit_quickly(jax.vmap(apply, in_axes=(None, 0)))(variables, images)
  parallel = jax.pmap(apply, in_axes=(None, 0))(variables, images)
  mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  sharded = jit_quickly(
    jax.shard_map(
      apply, mesh=mesh, in_specs=(jax.P(), jax.P("data")), out_specs=jax.P("data"), check_vma=False
    )
  )(variables, images[:, 0])
  for want, a, b, c in zip(
    expected.levels, mapped.levels, parallel.levels, sharded.levels, strict=True
  ):
    for got in (a[:, 0], b[:, 0], c):
      check_same(got, want)
  assert jax.eval_shape(jax.grad(score), images[0]).shape == images[0].shape


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"size": "xl"}, "unknown size 'xl' of fer_yolo_mamba; known: nano, tiny, s, m, l, x"),
    ({"variant": "fixed"}, "unknown variant 'fixed'.*known: corrected, released"),
    ({"frozen": "head"}, "unknown frozen 'head'"),
    ({"dtype": "float8"}, "unknown dtype 'float8'; known: float32"),
    ({"num_classes": 0}, "num_classes is 0"),
  ],
)
def test_unknown_values_are_rejected_on_creation(change, message):
  with pytest.raises(ValueError, match=message):
    ferjax.create_model("fer_yolo_mamba", **({"num_classes": 7} | change))


def test_unknown_model_option_and_image_size(nano):
  with pytest.raises(ValueError, match="unknown model 'yolo'; known: fer_yolo_mamba"):
    ferjax.create_model("yolo", num_classes=7)
  with pytest.raises(TypeError, match="widht"):
    create(widht=0.5)
  model, variables = nano
  with pytest.raises(ValueError, match="100 x 64 pixels; both sides must be divisible by 32"):
    model.apply(variables, jnp.zeros((1, 100, 64, 3)), train=False)

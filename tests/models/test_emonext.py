"""Properties of EmoNeXt for every size, variant and image."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

import ferjax
from ferjax.interop.torch_weights import export_state_dict
from ferjax.models import emonext
from ferjax.models.layers import DropPath

create = functools.partial(ferjax.create_model, "emonext", num_classes=7)
PAPER_SIZES = ("tiny", "small", "base", "large", "xlarge")


@pytest.fixture(scope="module", autouse=True)
def mini_size():
  """A network that compiles fast: two stages, narrow and short."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(emonext.SIZES, "mini", emonext.Size((2, 2), (32, 64)))
    patch.setitem(emonext.CHOICES, "size", tuple(emonext.SIZES))
    yield


@pytest.fixture(scope="module")
def variables(abstract):
  """Random values, because many initial ones are 0 or 1e-6."""
  rng, (shapes, _) = np.random.default_rng(0), abstract(create(size="mini"))

  def fill(path, x):
    normal = rng.standard_normal(x.shape).astype(np.float32)
    if path[1:3] == ("stn", "dense1"):
      near_identity = np.float32([1, 0, 0, 0, 1, 0]) if path[-1] == "bias" else np.float32(0)
      return jnp.asarray(near_identity + np.float32(0.02) * normal)
    if path[-3:-1] == ("se", "dense0"):
      normal = np.abs(normal)  # so that none of its few units is dead
    if path[-1] in ("scale", "var"):
      return jnp.asarray(1 + 0.1 * np.abs(normal))
    scales = {"bias": 0.05, "mean": 0.1, "gamma": 0.5}
    scale = scales.get(path[-1], 1 / np.sqrt(np.prod(x.shape[:-1])))
    return jnp.asarray(normal * np.float32(scale))

  return unflatten_dict({k: fill(k, x) for k, x in flatten_dict(shapes).items()})


@pytest.fixture(scope="module")
def image():
  """Smooth, so that a slight shift changes samples little."""
  coarse = jax.random.uniform(jax.random.key(1), (3, 6, 6, 3))
  return jax.image.resize(coarse, (3, 64, 64, 3), "bilinear")


@functools.cache
def evaluate(**options):
  return jax.jit(functools.partial(create(size="mini", **options).apply, train=False))


@functools.cache
def train(**options):
  """Output and branch activations in training."""
  model = create(size="mini", **options)

  @jax.jit
  def run(variables, image, seed=0):
    return model.apply(
      variables,
      image,
      train=True,
      mutable=["batch_stats", "intermediates"],
      capture_intermediates=lambda module, _: isinstance(module, DropPath),
      rngs={"dropout": jax.random.key(seed)},
    )

  return run


@pytest.mark.parametrize("size", PAPER_SIZES)
def test_sizes_have_the_released_number_of_parameters(emonext_golden, abstract, count, size):
  record = emonext_golden.manifest["counts_by_size"][size]
  variables, output = abstract(create(size=size), 224)
  params = variables["params"]
  assert count(params) == record["total_params"]
  assert count(variables["batch_stats"]) == record["buffers_numel"] - 2  # two counters
  parts = {name: count(x) for name, x in params.items()}
  released = record["per_submodule"]
  assert parts["stn"] == released["localization"] + released["fc_loc"]
  for name in ("norm", "attention", "head"):
    assert parts[name] == released[name]
  for i in range(4):
    assert parts[f"stage{i}"] == record["per_stage"][f"stages.{i}"]
    name = f"downsample{i}" if i else "stem"
    assert parts[name] == record["per_downsample"][f"downsample_layers.{i}"]
  assert [x.shape for x in output[:2]] == [(1, 7), (1, record["dims"][-1])]


@pytest.mark.parametrize("size", PAPER_SIZES)
def test_rates_of_stochastic_depth(emonext_golden, size):
  record = emonext_golden.manifest["counts_by_size"][size]
  rates = create(size=size)._rates(tuple(record["depths"]))
  assert [len(x) for x in rates] == record["depths"]
  np.testing.assert_allclose(sum(rates, ()), record["drop_path_rates_at_0.1"], rtol=1e-5)


@pytest.mark.parametrize(
  ("size", "scale", "deviation"), [("tiny", 1e-6, 0.02), ("atto", 0.1, 32**-0.5)]
)
def test_first_values_of_a_block(monkeypatch, jit_quickly, size, scale, deviation):
  monkeypatch.setitem(emonext.SIZES, size, emonext.SIZES[size]._replace(depths=(2,), widths=(32,)))
  network = create(size=size)
  variables = jit_quickly(lambda x: network.init(jax.random.key(0), x, train=False))(
    jnp.zeros((1, 32, 32, 3))
  )
  block = variables["params"]["stage0"]["block0"]
  np.testing.assert_allclose(block["gamma"], scale, rtol=1e-6)
  # 4,096 values: their deviation has a relative standard error of 1.1 %.
  np.testing.assert_allclose(jnp.std(block["dense0"]["kernel"]), deviation, rtol=0.06)


def test_variants_share_parameters(abstract):
  corrected, released = (abstract(create(variant=x))[0] for x in emonext.VARIANTS)
  assert jax.tree.map(jnp.shape, corrected) == jax.tree.map(jnp.shape, released)
  assert emonext.SPEC.task == "classification"


def test_parameter_paths_are_an_interface(abstract):
  variables, _ = abstract(create())
  both = ("kernel", "bias")
  norm = ("scale", "bias")
  block = {
    "gamma",
    *(f"{x}/{y}" for x in ("conv", "dense0", "dense1") for y in both),
    *(f"norm/{y}" for y in norm),
  }
  assert set(flatten_dict(variables["params"], sep="/")) == {
    *(f"stn/conv{i}/conv/{y}" for i in (0, 1) for y in both),
    *(f"stn/conv{i}/norm/{y}" for i in (0, 1) for y in norm),
    *(f"stn/dense{i}/{y}" for i in (0, 1) for y in both),
    *(f"{x}/conv/{y}" for x in ("stem", "downsample1", "downsample2", "downsample3") for y in both),
    *(f"{x}/norm/{y}" for x in ("stem", "downsample1", "downsample2", "downsample3") for y in norm),
    *(f"downsample{i}/se/dense{j}/kernel" for i in (1, 2, 3) for j in (0, 1)),
    *(
      f"stage{i}/block{j}/{y}" for i, n in enumerate((3, 3, 9, 3)) for j in range(n) for y in block
    ),
    *(f"norm/{y}" for y in norm),
    *(f"attention/norm/{y}" for y in norm),
    *(f"attention/{x}/{y}" for x in ("query", "key", "value") for y in both),
    *(f"head/{y}" for y in both),
  }
  assert set(variables["params"]) == set(emonext.PARTS)
  assert set(flatten_dict(variables["batch_stats"], sep="/")) == {
    f"stn/conv{i}/norm/{y}" for i in (0, 1) for y in ("mean", "var")
  }


def test_initial_values_follow_the_released_distributions(emonext_golden, jit_quickly, quick_key):
  """Mean and spread of each tensor, within its sampling error."""
  model, image = create(), jnp.zeros((1, 224, 224, 3))
  variables = jit_quickly(lambda key: model.init(key, image, train=False))(quick_key)
  ours = export_state_dict(model, variables)
  for entry in emonext_golden.manifest["params"]:
    if entry["kind"] != "param":
      continue
    theirs, value = entry["upstream_init"], ours[entry["name"]].astype(np.float64)
    slack = 6 * max(theirs["std"], 1e-9) / np.sqrt(value.size)
    assert abs(value.mean() - theirs["mean"]) < 2 * slack, entry["name"]
    assert abs(value.std() - theirs["std"]) < slack, entry["name"]
  np.testing.assert_array_equal(ours["fc_loc.2.bias"], [1, 0, 0, 0, 1, 0])


def test_the_initial_transformer_is_the_identity(image, jit_quickly, quick_key):
  out, _ = jit_quickly(
    functools.partial(emonext.SpatialTransformer().init_with_output, train=False)
  )(quick_key, image)
  np.testing.assert_allclose(out, image, atol=1e-5)


def test_a_batch_equals_its_images_one_by_one(variables, image, check_same):
  for variant in emonext.VARIANTS:
    forward = evaluate(variant=variant)
    whole = forward(variables, image)
    assert whole.attention is None
    for i in range(3):
      one = forward(variables, image[i : i + 1])
      for a, b in zip(whole[:2], one[:2], strict=True):
        check_same(a[i], b[0])


def with_fixed_transformer(variables):
  """Its BatchNorm depends on the batch; an image-independent matrix hides that."""
  flat = flatten_dict(variables)
  path = ("params", "stn", "dense1", "kernel")
  return unflatten_dict(flat | {path: jnp.zeros_like(flat[path])})


def test_attention_of_an_image_and_its_neighbours(variables, image):
  """Neighbours do not affect `corrected`; `released` attends over them."""
  variables = with_fixed_transformer(variables)
  others = jnp.concatenate([image[:1], image[:0:-1] ** 2])
  corrected = train(variant="corrected", drop_path_rate=0.0)
  a, b = (corrected(variables, x)[0].attention for x in (image, others))
  assert a.shape == (3, 64, 64)
  np.testing.assert_allclose(a.sum(-1), np.ones((3, 64)), rtol=1e-5)
  np.testing.assert_allclose(a[0], b[0], rtol=1e-4)
  assert np.abs(a[1] - b[1]).max() > 1e-3
  released = train(variant="released", drop_path_rate=0.0)
  a, b = (released(variables, x)[0].attention for x in (image, others))
  assert a.shape == (3, 3)
  np.testing.assert_allclose(a.sum(-1), np.ones(3), rtol=1e-5)
  assert np.abs(a[0] - b[0]).max() > 1e-3


@pytest.mark.parametrize("variant", emonext.VARIANTS)
def test_two_devices_equal_one(variables, image, check_same, variant):
  """Including the attention over the batch and BatchNorm statistics."""
  images = jnp.concatenate([image, image[:1] ** 2])
  step = train(variant=variant, drop_path_rate=0.0)
  mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  place = lambda x, spec: jax.device_put(x, jax.NamedSharding(mesh, spec))  # noqa: E731
  one, state = step(variables, images)
  two, sharded_state = step(place(variables, jax.P()), place(images, jax.P("data")))
  for a, b in zip(one, two, strict=True):
    check_same(a, b)
  jax.tree.map(check_same, state["batch_stats"], sharded_state["batch_stats"])


def test_stochastic_depth_differs_by_block_example_and_step(variables, image):
  """A dropped branch is zero, a kept one is scaled up by its rate."""
  images, variables = jnp.repeat(image[:1], 64, axis=0), with_fixed_transformer(variables)

  def branches(seed, rate=0.9):
    _, state = train(drop_path_rate=rate)(variables, images, seed)
    taps = flatten_dict(state["intermediates"], sep="/")
    return {k.removesuffix("/drop_path/__call__"): np.asarray(v[0]) for k, v in taps.items()}

  first, again, second, whole = branches(0), branches(0), branches(1), branches(0, rate=0.0)
  blocks = [f"stage{i}/block{j}" for i in (0, 1) for j in (0, 1)]
  rates = dict(zip(blocks, (0.0, 0.3, 0.6, 0.9), strict=True))
  assert set(first) == set(rates)
  kept = {k: np.any(x != 0, axis=(1, 2, 3)) for k, x in first.items()}
  for name, rate in rates.items():
    assert abs(kept[name].mean() - (1 - rate)) <= 4 * np.sqrt(rate * (1 - rate) / 64), name
    np.testing.assert_array_equal(first[name], again[name])
    other = np.any(second[name] != 0, axis=(1, 2, 3))
    assert np.array_equal(other, kept[name]) == (rate == 0), name
  # Of one key for all blocks, every mask would hold those of the higher rates.
  for before, after in itertools.pairwise(blocks[1:]):
    assert np.any(kept[after] & ~kept[before])
  name = blocks[1]  # the first that drops, so that its inputs are the same
  np.testing.assert_allclose(
    first[name][kept[name]], whole[name][kept[name]] / 0.7, rtol=1e-3, atol=1e-4
  )


def test_every_parameter_gets_a_gradient(variables, image, jit_quickly):
  """Except those that a normalisation cancels, and the attended values."""

  @jit_quickly
  def gradients(params):
    def loss_fn(params):
      output, _ = create(size="mini", drop_path_rate=0.0).apply(
        {"params": params, "batch_stats": variables["batch_stats"]},
        image,
        train=True,
        mutable=["batch_stats"],
      )
      return jnp.sum(output.logits**2) + 100 * jnp.var(output.attention)

    return jax.grad(loss_fn)(params)

  grads = flatten_dict(gradients(variables["params"]), sep="/")
  norms = {k: float(np.linalg.norm(x)) for k, x in grads.items()}
  assert np.isfinite(list(norms.values())).all()
  total = np.linalg.norm(list(norms.values()))
  assert {k for k, x in norms.items() if x < 1e-6 * total} == {
    *(f"stn/conv{i}/conv/bias" for i in (0, 1)),
    *(f"attention/{x}" for x in ("key/bias", "value/kernel", "value/bias")),
  }


def test_bfloat16_follows_float32(variables, image):
  """Parameters and outputs stay float32; they agree to bfloat16 precision."""
  full = train(drop_path_rate=0.0)(variables, image)[0]
  half, state = train(drop_path_rate=0.0, dtype="bfloat16")(variables, image)
  for a, b in zip(full, half, strict=True):
    assert b.dtype == jnp.float32
    error = jnp.linalg.norm((a - b).ravel()) / jnp.linalg.norm(a.ravel())
    assert 0 < error < 3e-2
  assert {x.dtype.name for x in jax.tree.leaves(state["batch_stats"])} == {"float32"}


@pytest.mark.parametrize("side", [(32, 32), (96, 64), (128, 224), (448, 448)])
def test_other_image_sizes(abstract, side):
  height, width = side
  variables, output = abstract(create(size="mini"), height, width)
  assert output.logits.shape == (1, 7)
  rows = variables["params"]["stn"]["dense0"]["kernel"].shape[0]
  assert rows == 10 * (height // 4 - 4) * (width // 4 - 4)


def test_pure_function_under_the_transformations(variables, image, check_same):
  """`vmap`, `pmap` and `shard_map` of `model.apply`."""
  apply = functools.partial(create(size="mini").apply, train=False)
  expected, images = evaluate()(variables, image).logits[:2], image[:2, None]
  mapped = jax.jit(jax.vmap(apply, in_axes=(None, 0)))(variables, images).logits[:, 0]
  parallel = jax.pmap(apply, in_axes=(None, 0))(variables, images).logits[:, 0]
  mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  sharded = jax.jit(
    jax.shard_map(
      apply, mesh=mesh, in_specs=(jax.P(), jax.P("data")), out_specs=jax.P("data"), check_vma=False
    )
  )(variables, image[:2]).logits
  for got in (mapped, parallel, sharded):
    check_same(got, expected)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"size": "huge"}, "unknown size 'huge' of emonext; known: .*tiny, small, base, large, xlarge"),
    ({"variant": "fixed"}, "unknown variant 'fixed' of emonext; known: corrected, released"),
    ({"frozen": "backbone"}, "unknown frozen 'backbone' of emonext; known: none"),
    ({"drop_path_rate": 1.0}, "drop_path_rate is 1.0; it must be at least 0 and below 1"),
  ],
)
def test_unknown_values_are_rejected_on_creation(change, message):
  with pytest.raises(ValueError, match=message):
    create(**change)


def test_images_that_do_not_fit(variables):
  model = create(size="mini")
  with pytest.raises(ValueError, match="100 x 64 pixels; both sides must be divisible by 32"):
    model.apply(variables, jnp.zeros((1, 100, 64, 3)), train=False)
  with pytest.raises(ValueError, match="0 x 64 pixels; both sides"):
    model.apply(variables, jnp.zeros((1, 0, 64, 3)), train=False)
  message = r"96 x 96 pixels, .* 4000 elements; its kernel has 1440 rows, as for .* of 64 pixels"
  with pytest.raises(ValueError, match=message):
    model.apply(variables, jnp.zeros((1, 96, 96, 3)), train=False)

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ferjax
from ferjax.compiler_options import REMAT as BARRIERS
from ferjax.models import remat
from ferjax.models.layers import DropPath
from ferjax.models.registry import model_spec
from ferjax.training.state import init_variables

# Network and its smallest size.
NETWORKS = (("emonext", "atto"), ("fermam", "nano"), ("fer_yolo_mamba", "nano"))


class Block(nn.Module):
  @nn.compact
  def __call__(self, x, *, train):
    y = nn.Dense(8, name="dense")(x)
    y = nn.BatchNorm(use_running_average=not train, name="bn")(y)
    return x + DropPath(0.5, name="drop_path")(jnp.sin(y), train=train)


class Network(nn.Module):
  """A stage of three blocks, and one more block."""

  remat: str

  @nn.compact
  def __call__(self, x, *, train):
    recompute = train and self.remat == "stage"
    x = remat.call_function(
      lambda network, x: network.stage(x, train), self, x, recompute=recompute
    )
    return remat.call(Block(name="last"), x, train=train, recompute=self.remat != "none")

  def stage(self, x, train):
    for i in range(3):
      block = Block(name=f"block{i}")
      x = remat.call(block, x, train=train, recompute=self.remat == "block")
    return x


def gradient_of(model, variables, image):
  """Of the sum of squares of the outputs, with the new batch statistics."""

  def loss(params):
    output, changed = model.apply(
      {"params": params, "batch_stats": variables["batch_stats"]},
      image,
      train=True,
      mutable=["batch_stats"],
      rngs={"dropout": jax.random.key(1)},
    )
    return sum(jnp.sum(x**2) for x in jax.tree.leaves(output)), changed["batch_stats"]

  return jax.value_and_grad(loss, has_aux=True)(variables["params"])


def stored_bytes(model, variables, image):
  """Bytes that the gradient stores, beside the parameters; nothing is computed."""

  def store(params, batch_stats, image):
    def loss(params):
      output, _ = model.apply(
        {"params": params, "batch_stats": batch_stats},
        image,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(1)},
      )
      return sum(jnp.sum(x) for x in jax.tree.leaves(output))

    return jax.vjp(loss, params)[1]

  size = lambda tree: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))  # noqa: E731
  stored = jax.eval_shape(store, variables["params"], variables["batch_stats"], image)
  return size(stored) - size(variables["params"])


@pytest.mark.parametrize("name", remat.REMAT[1:])
def test_gradients_statistics_and_random_numbers_are_the_same(name):
  image = jax.random.normal(jax.random.key(0), (16, 8))
  plain, model = Network("none"), Network(name)
  variables = plain.init(jax.random.key(2), image, train=False)
  assert jax.tree.map(jnp.shape, model.init(jax.random.key(2), image, train=False)) == (
    jax.tree.map(jnp.shape, variables)
  )
  expected = jax.jit(gradient_of, static_argnums=0)(plain, variables, image)
  compiled = jax.jit(gradient_of, static_argnums=0, compiler_options=BARRIERS)
  found = compiled(model, variables, image)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())
  assert stored_bytes(model, variables, image) < stored_bytes(plain, variables, image) / 2


def test_nothing_is_recomputed_outside_of_training():
  image = jnp.ones((2, 8))
  variables = Network("none").init(jax.random.key(2), image, train=False)

  def text(name):
    apply = lambda x: Network(name).apply(variables, x, train=False)  # noqa: E731
    return str(jax.make_jaxpr(apply)(image))

  assert text("block") == text("stage") == text("none")
  assert not remat.rematerialises(Network("none"))
  assert remat.rematerialises(Network("stage"))
  assert not remat.rematerialises(Block())


@pytest.mark.parametrize(
  ("network", "size"),
  [NETWORKS[0], *(pytest.param(*x, marks=pytest.mark.slow) for x in NETWORKS[1:])],
)
def test_networks_store_less(network, size):
  image = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
  stored = {}
  for name in remat.REMAT:
    model = ferjax.create_model(network, num_classes=7, size=size, remat=name)
    variables = jax.eval_shape(
      lambda key, model=model: init_variables(model, key, 64), jax.random.key(0)
    )
    stored[name] = stored_bytes(model, variables, image)
  assert max(stored["stage"], stored["block"]) < stored["none"] / 2


def test_unknown_value():
  for network, _ in NETWORKS:
    with pytest.raises(ValueError, match=r"unknown remat 'all' of .*; known: none, stage"):
      ferjax.create_model(network, num_classes=7, remat="all")


@pytest.mark.slow
@pytest.mark.parametrize(("network", "size"), NETWORKS)
def test_gradients_of_networks_are_the_same(network, size, random_values):
  """Rounding grows from BatchNorm to BatchNorm.

  A relative rounding of 2^-11 changes the detector's gradient by up to a quarter
  (docs/performance.md, bfloat16); that of float32, 2^-24, is 8192 times less: 3e-5. Ten times that
  is allowed.
  """
  spec = model_spec(network)
  image = jax.random.normal(jax.random.key(0), (4, 64, 64, 3))
  gradients = {}
  for name in remat.REMAT:
    model = ferjax.create_model(network, num_classes=7, size=size, remat=name)
    shapes = jax.eval_shape(
      lambda key, model=model: init_variables(model, key, 64), jax.random.key(0)
    )
    variables = random_values(shapes)
    compiled = jax.jit(gradient_of, static_argnums=0, compiler_options=BARRIERS)
    (_, statistics), gradient = compiled(model, variables, image)
    gradients[name] = jax.tree.leaves((statistics, gradient))
    assert set(variables["params"]) == set(spec.parts)
  expected = gradients.pop("none")
  norm = np.sqrt(sum(np.sum(np.square(x)) for x in expected))
  for found in gradients.values():
    off = np.sqrt(sum(np.sum(np.square(a - b)) for a, b in zip(found, expected, strict=True)))
    assert off <= 3e-4 * norm

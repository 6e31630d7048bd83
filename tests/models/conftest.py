"""Flax variables and gradients under the released names."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.extend.random import define_prng_impl

import ferjax
from ferjax.interop import released_names, torch_weights


@pytest.fixture(scope="session")
def released_model():
  return ferjax.create_model("fer_yolo_mamba", num_classes=7, variant="released")


@pytest.fixture(scope="session")
def released_variables(released_model, golden):
  return torch_weights.import_state_dict(released_model, golden.weights())


@pytest.fixture(scope="session")
def golden_image(golden_rules):
  image = golden_rules.image("input:fer_yolo_mamba", (2, 3, 320, 320))
  return jnp.asarray(image.transpose(0, 2, 3, 1))


@dataclasses.dataclass
class StandAlone:
  """A standalone part of the network; `path` is its path in the whole one."""

  module: nn.Module
  path: tuple[str, ...]
  whole: nn.Module

  def names(self, variables) -> dict[tuple[str, ...], str]:
    """Variable path -> name in the released standalone module."""
    rename = released_names.table_of(self.whole)
    prefix = rename(("params", *self.path, "")).rstrip(".")
    return {
      path: rename((path[0], *self.path, *path[1:])).removeprefix(prefix + ".")
      for path in flatten_dict(variables)
    }

  def variables(self, *inputs_and_weights, **kwargs):
    *inputs, weights = inputs_and_weights
    init = jax.eval_shape(lambda: self.module.init(jax.random.key(0), *inputs, **kwargs))
    names, shapes = self.names(init), flatten_dict(init)
    used = {n for n in weights if not n.endswith(".num_batches_tracked")}
    assert used == set(names.values())
    filled = {
      path: jnp.asarray(torch_weights.from_torch(path, weights[name], shapes[path].shape))
      for path, name in names.items()
    }
    return unflatten_dict(filled)

  def released(self, variables) -> dict[str, np.ndarray]:
    """The variables (or gradients) in torch's layout under the released names."""
    flat = flatten_dict(variables)
    return {
      name: torch_weights.to_torch(path, np.asarray(flat[path]))
      for path, name in self.names(variables).items()
    }


@pytest.fixture
def stand_alone(released_model):
  return lambda module, *path, whole=released_model: StandAlone(module, path, whole)


def unbiased(path, before, after, count, momentum):
  """Torch's running variance, from that of Flax."""
  if path[-1] != "var":
    return after
  batch = (after - momentum * before) / (1 - momentum)
  return momentum * before + (1 - momentum) * batch * count / (count - 1)


@pytest.fixture
def check_statistics(golden_rules):
  """Compares the statistics after a training step with the recorded sums and projections."""

  def check(records, before, after, counts, name_of, momentum_of=lambda path: 0.9):
    assert records
    before, after = flatten_dict(before), flatten_dict(after)
    seen = set()
    for path in after:
      name = name_of(("batch_stats", *path))
      new = unbiased(
        path,
        np.asarray(before[path], np.float64),
        np.asarray(after[path], np.float64),
        counts[path[:-1]],
        momentum_of(path),
      )
      projection = golden_rules.normal("bndot:" + name, new.shape).astype(np.float64)
      scale = np.linalg.norm(new)
      assert abs(new.sum() - records[name]["sum"]) < 1e-4 * scale * np.sqrt(new.size), name
      assert abs((new * projection).sum() - records[name]["dot"]) < 1e-4 * scale * np.sqrt(new.size)
      seen.add(name)
    return {x for x in records if not x.endswith(".num_batches_tracked")} - seen

  return check


@pytest.fixture(scope="session")
def quick_key():
  """A random key for the initial values of a whole network.

  Its numbers are hashes of their positions ("lowbias32", Wellons 2018): random enough for means and
  spreads, and one loop for each parameter. JAX's generators are about ten, and compile much longer.
  """

  def mix(x):
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)

  def numbers(key, shape):
    position = jnp.arange(np.prod(shape, dtype=int), dtype=jnp.uint32)
    return mix(mix(position) + key[0]).reshape(shape)

  def random_bits(key, bit_width, shape):
    assert bit_width == 32
    return numbers(key, shape)

  hashing = define_prng_impl(
    key_shape=(1,),
    seed=lambda seed: mix(seed.astype(jnp.uint32))[None],
    split=lambda key, shape: mix(numbers(key, shape))[..., None],
    random_bits=random_bits,
    fold_in=lambda key, data: mix(key + mix(jnp.uint32(data) + jnp.uint32(1))[None]),
    name="hashing",
  )
  return jax.random.key(0, impl=hashing)


@pytest.fixture(scope="session")
def abstract():
  """Shapes of a network's variables and of its output for one image."""

  def shapes(model, height=64, width=None):
    image = jnp.zeros((1, height, width or height, 3))
    output, variables = jax.eval_shape(
      lambda: model.init_with_output(jax.random.key(0), image, train=False)
    )
    return variables, output

  return shapes


@pytest.fixture(scope="session")
def count():
  """The number of values in a tree."""
  return lambda tree: sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))


@pytest.fixture(scope="session")
def element_counts():
  """Path of each BatchNorm of a module -> the number of values per mean."""

  def counts(module, variables, *inputs, **kwargs):
    apply = functools.partial(
      module.apply,
      mutable=["batch_stats", "intermediates"],
      capture_intermediates=lambda submodule, _: type(submodule).__name__ == "BatchNorm",
      **kwargs,
    )
    _, state = jax.eval_shape(apply, variables, *inputs)
    flat = flatten_dict(state["intermediates"])
    return {path[:-1]: x[0].size // x[0].shape[-1] for path, x in flat.items()}

  return counts


@pytest.fixture(scope="session")
def keeps_products():
  """A policy of `jax.checkpoint`: what is cheap to compute is computed again, which saves 1 GB."""

  def is_kept(primitive, *_, **__):
    return primitive.name in ("conv_general_dilated", "dot_general")

  return is_kept


@pytest.fixture(scope="session")
def compiled(jit_fully, trim_memory):
  """Compiles a function for its arguments, and returns the compiler's memory before it runs."""

  def compile_for(function, *arguments):
    program = jit_fully(function).lower(*arguments).compile()
    trim_memory()
    return program

  return compile_for


@pytest.fixture(scope="session")
def vjp(jit_quickly):
  """Outputs, auxiliary outputs of `apply`, gradients for the parameters and the inputs.

  In float64 if the module supports it: in float32 the gradients of ReLU, PReLU and maxima jump
  where rounding takes an input across the kink. The scans stay float32; they are smooth.
  """

  def run(apply, variables, inputs, cotangents, jit=jit_quickly):
    with jax.enable_x64(True):
      inputs = tuple(jnp.asarray(x, jnp.float64) for x in inputs)
      cotangents = [jnp.asarray(x, jnp.float64) for x in cotangents]

      def loss_fn(params, inputs):
        outputs, state = apply({**variables, "params": params}, *inputs)
        pairs = zip(outputs, cotangents, strict=True)
        return sum(jnp.sum(x * cotangent) for x, cotangent in pairs), (outputs, state)

      grad = jit(jax.grad(loss_fn, argnums=(0, 1), has_aux=True))
      (params, in_grads), (outputs, state) = grad(variables["params"], inputs)
    return outputs, state, params, in_grads

  return run


@pytest.fixture(scope="session")
def check_gradients(golden_rules):
  """Compares the gradients that the released program computes with its float64 run.

  Compares norms and random projections; returns the names of parameters without a released
  gradient, for which ours is zero. Parameters, their gradients and the scans are float32, with a
  relative error of 6e-8; scans sum a few hundred such errors of random sign, which gives 1e-6.
  """

  def check(golden, case, grads, tolerance=1e-5):
    records, rows = golden.train[case]["params"], []
    for name, record in records.items():
      if record is None or record["negligible"]:
        continue
      grad = np.asarray(grads[name], np.float64)
      projection = (grad * golden_rules.normal("graddot:" + name, grad.shape)).sum()
      norm_error = abs(np.linalg.norm(grad) - record["norm_fp64"])
      error = max(norm_error, abs(projection - record["dot_fp64"])) / record["norm_fp64"]
      rows.append((error, name))
    wrong = sorted(row for row in rows if not row[0] < tolerance)
    assert wrong == []
    unused = {name for name, record in records.items() if record is None}
    assert not any(np.any(grads[name]) for name in unused & set(grads))
    return unused

  return check


@pytest.fixture(scope="session")
def check_input_gradient():
  """Compares a gradient for an input with the released program's float32 one.

  The record has its distance from the float64 run over all elements, but only every n-th element. A
  few elements near kinks make nearly all of the distance, so that of the sample differs; twice the
  recorded one is allowed.
  """

  def check(golden, name, gradient):
    assert golden.rel_l2(name, gradient) < 2 * golden.index[name]["fp64_rel_l2"] + 1e-5

  return check

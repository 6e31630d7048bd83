"""Outputs and gradients of the three networks, on the device and on a CPU.

Both sides compute in float32 with the highest precision of matrix products, at the published sizes
on small images, from the same random values. Gradients are compared through their products with
random vectors, of which few numbers have to be stored. Stored BatchNorm statistics are used: those
of a small batch would amplify rounding errors.
"""

import functools
import pathlib
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from report import Section

import ferjax
from ferjax.training.state import init_variables

# Network -> image size.
SIZES = {"emonext": 64, "fermam": 64, "fer_yolo_mamba": 96}
TINY = {"emonext": "atto", "fermam": "nano", "fer_yolo_mamba": "nano"}
BATCH, PRODUCTS = 2, 4


def values(model, image_size: int) -> Any:
  """Random variables, the same on every machine; large enough that outputs differ."""
  shapes = jax.eval_shape(lambda key: init_variables(model, key, image_size), jax.random.key(0))

  def fill(path, leaf):
    random = _random(jax.tree_util.keystr(path))
    if path[-1].key in ("scale", "var", "D", "gamma"):
      return np.ones(leaf.shape, np.float32)
    fan_in = np.prod(leaf.shape[:-1])
    return (random.standard_normal(leaf.shape) / np.sqrt(max(fan_in, 1))).astype(np.float32)

  return jax.tree_util.tree_map_with_path(fill, shapes)


def _random(name: str) -> np.random.Generator:
  return np.random.default_rng(zlib.crc32(name.encode()))


def computed(network: str, *, tiny: bool, device: jax.Device) -> dict[str, np.ndarray]:
  """Name -> outputs of inference, and products of each gradient with random vectors."""
  image_size = 64 if tiny else SIZES[network]
  model = ferjax.create_model(network, num_classes=7, size=TINY[network] if tiny else None)
  image = _random("image").random((BATCH, image_size, image_size, 3), np.float32)
  variables = values(model, image_size)

  def loss_fn(params, variables, image):
    output = model.apply({**variables, "params": params}, image, train=False)
    return sum(jnp.mean(jnp.square(x)) for x in jax.tree.leaves(output)), output

  def program(variables, image):
    grads, output = jax.grad(loss_fn, has_aux=True)(variables["params"], variables, image)
    return output, grads

  with jax.default_matmul_precision("highest"):
    arguments = jax.device_put((variables, image), device)
    output, grads = jax.device_get(jax.jit(program)(*arguments))
  result = {f"output{i}": np.asarray(x) for i, x in enumerate(jax.tree.leaves(output))}
  for path, grad in jax.tree_util.tree_leaves_with_path(grads):
    name = jax.tree_util.keystr(path)
    vectors = _random(name).standard_normal((PRODUCTS, grad.size))
    result[name] = np.append(vectors @ np.ravel(grad).astype(np.float64), np.linalg.norm(grad))
  return result


def compared(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict[str, float]:
  """The largest error of outputs, relative to the largest output, and those of the gradients."""
  outputs, gradients = [], []
  for name, want in expected.items():
    error = float(np.abs(found[name] - want).max())
    if name.startswith("output"):
      outputs.append(error / float(np.abs(want).max()))
    else:
      gradients.append(error / max(float(want[-1]), 1e-30))
  return {
    "outputs": max(outputs),
    "gradients, median": float(np.median(gradients)),
    "gradients, largest": max(gradients),
  }


def store(path: pathlib.Path, *, tiny: bool) -> None:
  """Computes all arrays on the CPU and stores them."""
  cpu = jax.local_devices(backend="cpu")[0]
  arrays = {
    f"{network}:{name}": value
    for network in SIZES
    for name, value in computed(network, tiny=tiny, device=cpu).items()
  }
  np.savez(path, **arrays)


def _stored(path: pathlib.Path, network: str) -> dict[str, np.ndarray]:
  with np.load(path) as arrays:
    prefix = network + ":"
    return {k.removeprefix(prefix): arrays[k] for k in arrays.files if k.startswith(prefix)}


def run(section: Section, stored: pathlib.Path | None = None) -> None:
  device, cpu = jax.devices()[0], jax.local_devices(backend="cpu")[0]
  for network in SIZES:

    def measure(network=network):
      on = functools.partial(computed, network, tiny=section.tiny)
      expected = _stored(stored, network) if stored else on(device=cpu)
      return compared(on(device=device), expected)

    section.attempt(
      {"network": network, "compared with": stored.name if stored else "CPU"}, measure
    )

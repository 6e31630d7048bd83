"""Sharding: batches are split along the axis "data"; the state is replicated or partly split."""

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType

from ferjax.training.joined import SMALL
from ferjax.training.state import TrainState
from ferjax.typing import Batch


def make_mesh(num_devices: int | None = None) -> jax.sharding.Mesh:
  """A one-dimensional mesh of all devices of all hosts, or of the first `num_devices`.

  The devices of a host are neighbours, in the order of the hosts, so that row i of a batch is the
  same record for any number of hosts. `jax.make_mesh` may order them by their connections instead,
  which matters only to meshes of several axes.
  """
  devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
  return jax.sharding.Mesh(np.array(devices[:num_devices]), ("data",), (AxisType.Auto,))


def replicated(mesh: jax.sharding.Mesh) -> jax.NamedSharding:
  """Replicated: every device has the whole array."""
  return jax.NamedSharding(mesh, jax.P())


def data_sharding(mesh: jax.sharding.Mesh) -> jax.NamedSharding:
  """Sharded: every device has an equal part of the leading axis."""
  return jax.NamedSharding(mesh, jax.P("data"))


def state_shardings(state: TrainState, mesh: jax.sharding.Mesh, *, shard: bool) -> TrainState:
  """The sharding of each array of a state: all replicated, or with `shard` partly split.

  Then each device keeps and updates only its part of the optimiser's state and of the moving
  averages (ZeRO stage 1; Rajbhandari et al., arXiv 1910.02054). An array is split along its longest
  axis that the number of devices divides. Small arrays, and those without such an axis, stay
  replicated.
  """
  everywhere = replicated(mesh)
  shardings = jax.tree.map(lambda _: everywhere, state)
  if not shard:
    return shardings
  split = lambda x: jax.NamedSharding(mesh, _split(x.shape, mesh.size))  # noqa: E731
  return shardings.replace(
    opt_state=jax.tree.map(split, state.opt_state), ema=jax.tree.map(split, state.ema)
  )


def _split(shape: tuple[int, ...], parts: int) -> jax.P:
  sizes = [size if size % parts == 0 else 0 for size in shape]
  if math.prod(shape) <= SMALL or not any(sizes):
    return jax.P()
  axis = sizes.index(max(sizes))
  return jax.P(*([None] * axis), "data")


def gathered(tree: Any, mesh: jax.sharding.Mesh) -> Any:
  """The same values, replicated over the mesh."""
  return jax.device_put(tree, replicated(mesh))


def check_batch_size(batch_size: int, mesh: jax.sharding.Mesh) -> None:
  """Raises a ValueError if the batch size is not divisible by the number of devices."""
  if batch_size % mesh.size:
    raise ValueError(
      f"batch size ({batch_size}) must be divisible by the number of devices ({mesh.size})"
    )


def to_global(batch: Batch, mesh: jax.sharding.Mesh) -> Batch:
  """Global arrays, sharded along "data", from this host's part of a batch."""
  sharding = data_sharding(mesh)
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)

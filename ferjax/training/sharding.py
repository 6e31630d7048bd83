"""Sharding: the state is replicated, batches are sharded along the mesh axis "data"."""

import jax
from jax.sharding import AxisType

from ferjax.typing import Batch


def make_mesh(num_devices: int | None = None) -> jax.sharding.Mesh:
  """A one-dimensional mesh of all devices of all hosts, or of the first `num_devices`."""
  devices = jax.devices()[:num_devices]
  return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: jax.sharding.Mesh) -> jax.NamedSharding:
  """Replicated: every device has the whole array."""
  return jax.NamedSharding(mesh, jax.P())


def data_sharding(mesh: jax.sharding.Mesh) -> jax.NamedSharding:
  """Sharded: every device has an equal part of the leading axis."""
  return jax.NamedSharding(mesh, jax.P("data"))


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

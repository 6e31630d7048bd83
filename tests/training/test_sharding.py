import jax
import numpy as np
import pytest

from ferjax.training.sharding import check_batch_size, make_mesh, replicated, to_global


def test_batches_are_sharded_and_state_is_replicated():
  mesh = make_mesh()
  assert mesh.shape == {"data": 2}
  batch = to_global({"image": np.arange(12.0).reshape(4, 3)}, mesh)["image"]
  shards = {shard.device.id: np.asarray(shard.data) for shard in batch.addressable_shards}
  np.testing.assert_array_equal(shards[0], [[0, 1, 2], [3, 4, 5]])
  np.testing.assert_array_equal(shards[1], [[6, 7, 8], [9, 10, 11]])
  whole = jax.device_put(np.arange(3.0), replicated(mesh))
  assert all(shard.data.shape == (3,) for shard in whole.addressable_shards)


def test_mesh_of_fewer_devices():
  assert make_mesh(1).shape == {"data": 1}


def test_batch_size_must_divide():
  check_batch_size(30, make_mesh())
  message = r"batch size \(31\) must be divisible by the number of devices \(2\)"
  with pytest.raises(ValueError, match=message):
    check_batch_size(31, make_mesh())

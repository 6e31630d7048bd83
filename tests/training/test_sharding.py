import chex
import jax
import numpy as np
import pytest

from ferjax.training.sharding import (
  check_batch_size,
  gathered,
  make_mesh,
  replicated,
  state_shardings,
  to_global,
)
from ferjax.training.state import TrainState


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


LARGE = {"tall": (6, 2**15), "wide": (2**17, 3), "odd": (1, 3**11), "small": (2, 4)}


def test_large_arrays_are_split_along_their_longest_axis():
  arrays = {name: np.arange(np.prod(s), dtype=np.float32).reshape(s) for name, s in LARGE.items()}
  zero = np.int32(0)
  state = TrainState(
    step=zero,
    skipped=zero,
    params=arrays,
    batch_stats={},
    opt_state=arrays,
    ema={"params": arrays},
  )
  mesh = make_mesh()
  shardings = state_shardings(state, mesh, shard=True)
  expected = {"tall": jax.P(None, "data"), "wide": jax.P("data"), "odd": jax.P(), "small": jax.P()}
  assert {name: x.spec for name, x in shardings.opt_state.items()} == expected
  assert shardings.ema["params"] == shardings.opt_state
  assert all(x == replicated(mesh) for x in jax.tree.leaves((shardings.params, shardings.step)))
  whole = state_shardings(state, mesh, shard=False)
  assert all(x == replicated(mesh) for x in jax.tree.leaves(whole))

  split = jax.device_put(state, shardings)
  assert {x.data.shape for x in split.opt_state["wide"].addressable_shards} == {(2**16, 3)}
  again = gathered(split.ema, mesh)
  chex.assert_trees_all_equal(jax.device_get(again), state.ema)
  assert all(x.sharding == replicated(mesh) for x in jax.tree.leaves(again))


def test_batch_size_must_divide():
  check_batch_size(30, make_mesh())
  message = r"batch size \(31\) must be divisible by the number of devices \(2\)"
  with pytest.raises(ValueError, match=message):
    check_batch_size(31, make_mesh())

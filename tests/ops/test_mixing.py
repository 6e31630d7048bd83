"""Pairs mixed on the device compared with NumPy."""

import jax
import numpy as np
import pytest

from ferjax.ops.mixing import mixed_pairs


def batch_of(size, seed=0):
  """Images, distributions, no masked example; mixup and CutMix in turn, some pairs not mixed."""
  rng = np.random.default_rng(seed)
  image = rng.integers(0, 256, (size, 6, 8, 1), np.uint8)
  label = rng.dirichlet(np.ones(3), size).astype(np.float32)
  weight, box = rng.uniform(size=size).astype(np.float32), np.zeros((size, 4), np.int32)
  left_top = rng.integers(0, 4, (size, 2))
  box[::2] = np.concatenate([left_top, left_top + rng.integers(1, 3, (size, 2))], 1)[::2]
  weight[::2] = 1 - ((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) / 48)[::2]
  weight[3::4] = 1
  return image, label, np.ones(size, bool), {"weight": weight, "box": box}


def mixed_by_numpy(image, label, mask, mixing):
  size = len(image)
  new_image, new_label = image.astype(np.float64), label.astype(np.float64)
  for first in range(size // 2):
    last = size - 1 - first
    if not (mask[first] and mask[last]):
      continue
    weight, (left, top, right, bottom) = float(mixing["weight"][first]), mixing["box"][first]
    for own, partner in ((first, last), (last, first)):
      if right > left and bottom > top:
        new_image[own, top:bottom, left:right] = image[partner, top:bottom, left:right]
      else:
        new_image[own] = weight * image[own].astype(float) + (1 - weight) * image[partner]
      new_label[own] = weight * label[own] + (1 - weight) * label[partner]
  return new_image, new_label


@pytest.mark.parametrize("size", [8, 7])
def test_images_and_labels_equal_numpy(size, jit_quickly):
  """A masked example in a pair; the middle one of seven."""
  image, label, mask, mixing = batch_of(size)
  mask[1] = False
  expected, distribution = mixed_by_numpy(image, label, mask, mixing)
  mixed, soft = map(np.asarray, jit_quickly(mixed_pairs)(image, label, mask, mixing))
  assert mixed.dtype == np.uint8
  assert np.abs(mixed - expected).max() < 0.501  # rounded to bytes
  np.testing.assert_allclose(soft, distribution, atol=1e-6)
  changed = [int((mixed[i] != image[i]).sum()) for i in range(size)]
  assert changed[1] == changed[-2] == 0
  assert changed[0] == changed[-1] == np.prod(mixing["box"][0, 2:] - mixing["box"][0, :2])


def test_two_devices_equal_one(jit_quickly):
  mesh = jax.sharding.Mesh(jax.devices()[:2], ("data",))
  sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  batch = batch_of(8)
  mix = jit_quickly(mixed_pairs)
  one, two = mix(*batch), mix(*jax.device_put(batch, sharding))
  assert np.abs(np.asarray(one[0], int) - np.asarray(two[0], int)).max() <= 1
  np.testing.assert_allclose(one[1], two[1], atol=1e-6)

import jax
import numpy as np
import pytest

from ferjax.data import image as host
from ferjax.ops.normalize import normalize

LEVELS = np.arange(256, dtype=np.uint8)


@pytest.mark.parametrize(
  ("mean", "std"),
  [
    (host.IMAGENET_MEAN, host.IMAGENET_STD),
    ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ((0.5, 0.1, 128 / 255), (0.3, 1e-3, 7.0)),
  ],
)
def test_every_level_equals_the_host_bit_by_bit(mean, std):
  program = jax.jit(lambda image: normalize(image, mean, std))
  rgb = np.stack([LEVELS, LEVELS[::-1], np.roll(LEVELS, 100)], axis=-1)
  for image in (rgb.reshape(2, 8, 16, 3), LEVELS.reshape(2, 1, 8, 16, 1)):
    expected = host.normalize(image, mean, std)
    actual = np.asarray(program(image))
    assert (actual.dtype, actual.shape) == (np.float32, expected.shape)
    np.testing.assert_array_equal(actual, expected)
    # The shift, at most 255, has an error of 2^-17 grey levels; two roundings follow.
    exact, spread = (image / 255 - mean) / std, 1 / (255 * np.array(std))
    assert (np.abs(actual - exact) <= 2.0**-17 * spread + 2.0**-22 * np.abs(exact)).all()

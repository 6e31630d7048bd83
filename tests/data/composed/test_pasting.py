"""Pasting against slices and rotations of arrays; edges, light and camera."""

import cv2
import numpy as np
import pytest

from ferjax.config import ComposeConfig
from ferjax.data.composed.layout import Patch
from ferjax.data.composed.pasting import (
  as_lit_as,
  light_of,
  match_light,
  paste,
  photograph,
  random_mask,
  relit,
)

ONES = np.ones((64, 64), np.float32)


def _patch(*numbers):
  return Patch(*map(float, numbers))


def _texture(seed, size=(90, 90)):
  """Smooth blobs of a few pixels, like a photograph."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(60, 200, (size[0] // 6, size[1] // 6, 3)).astype(np.uint8)
  return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def test_an_opaque_patch_of_the_same_size_is_copied():
  canvas, image = _texture(0), _texture(1, (20, 30))
  expected = canvas.copy()
  expected[40:60, 10:40] = image
  paste(canvas, image, ONES, _patch(25, 50, 30, 20, 0.0))
  # The opacity falls within half a pixel of the border.
  np.testing.assert_array_equal(canvas[41:59, 11:39], expected[41:59, 11:39])
  outside = np.ones(canvas.shape[:2], bool)
  outside[40:60, 10:40] = False
  np.testing.assert_array_equal(canvas[outside], expected[outside])


def test_the_border_cuts_a_patch():
  canvas, image = np.zeros((50, 50, 3), np.uint8), _texture(1, (20, 20))
  paste(canvas, image, ONES, _patch(45, 0, 20, 20, 0.0))
  np.testing.assert_array_equal(canvas[:9, 36:50], image[10:19, 1:15])
  assert not canvas[11:].any()
  before = canvas.copy()
  paste(canvas, image, ONES, _patch(200, 10, 20, 20, 0.5))
  np.testing.assert_array_equal(canvas, before)


def test_a_quarter_turn_is_clockwise():
  canvas, image = np.zeros((60, 60, 3), np.uint8), _texture(1, (20, 30))
  paste(canvas, image, ONES, _patch(30, 30, 30, 20, np.pi / 2))
  expected = np.rot90(image, -1).astype(int)
  np.testing.assert_allclose(canvas[16:44, 21:39], expected[1:-1, 1:-1], atol=1)


def test_a_large_image_is_averaged():
  stripes = np.zeros((80, 80, 3), np.uint8)
  stripes[:, ::2] = 200
  canvas = np.zeros((40, 40, 3), np.uint8)
  paste(canvas, stripes, ONES, _patch(20, 20, 20, 20, 0.2))
  assert abs(int(canvas[15:25, 15:25].min()) - 100) <= 2
  assert abs(int(canvas[15:25, 15:25].max()) - 100) <= 2


def test_masks():
  masks = [random_mask(np.random.default_rng(seed)) for seed in range(60)]
  for mask in masks:
    assert mask.min() == 0
    assert mask.max() == 1
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    assert not border.any()
    assert mask[20:44, 20:44].min() == 1
    assert 0.5 < mask.mean() < 0.97
  asymmetric = [np.abs(mask - mask[:, ::-1]).max() > 0.05 for mask in masks]
  assert 10 < sum(asymmetric) < 50  # half of them are irregular


def _gradient(image):
  grey = image.astype(np.float32).mean(2)
  return np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))


def test_a_pasted_patch_has_no_hard_edge():
  """Along the edge of the mask, gradients are those of the pictures; a hard edge has larger."""
  ratios = {"soft": [], "hard": []}
  for seed in range(12):
    for kind, mask in (("soft", random_mask(np.random.default_rng(seed))), ("hard", ONES)):
      canvas = _texture(seed)
      usual = _gradient(canvas).mean()
      patch = _patch(45, 45, 50, 50, 0.1)
      paste(canvas, _texture(100 + seed, (48, 48)), mask, patch)
      white = np.zeros((90, 90, 3), np.uint8)
      paste(white, np.full((48, 48, 3), 255, np.uint8), mask, patch)
      opacity = white[..., 0] / 255
      edge = _gradient(white) > 0 if kind == "hard" else (opacity > 0.02) & (opacity < 0.98)
      ratios[kind].append(_gradient(canvas)[edge].mean() / usual)
  assert max(ratios["soft"]) < 1.5
  assert np.mean(ratios["soft"]) < 1.15
  assert np.mean(ratios["hard"]) > 1.5


def test_relit_has_the_wanted_light():
  image = _texture(3)
  assert light_of(image) == pytest.approx((image.mean(), image.std((0, 1)).mean()), abs=0.1)
  lit = relit(image, (100.0, 20.0), gain=(0.1, 10.0))
  assert light_of(lit) == pytest.approx((100, 20), abs=0.5)
  half = relit(image, (100.0, 20.0), weight=0.5, gain=(0.1, 10.0))
  mean, deviation = light_of(image)
  assert light_of(half) == pytest.approx(((mean + 100) / 2, np.sqrt(deviation * 20)), abs=0.5)
  np.testing.assert_array_equal(relit(image, (9.0, 9.0), weight=0.0, gain=(0.1, 10.0)), image)
  # The contrast of a plain area is not enlarged to that of a face.
  plain = np.full((9, 9, 3), 50, np.uint8)
  plain[0] = 51
  assert light_of(as_lit_as(plain, image))[1] < 5


def test_matched_light_lies_between_the_patch_and_its_surroundings():
  canvas, image = np.full((50, 50, 3), 20, np.uint8), _texture(3, (24, 24))
  patch = _patch(25, 25, 20, 20, 0.0)
  config = ComposeConfig(match=1.0)
  rngs = [np.random.default_rng(seed) for seed in range(20)]
  means = [match_light(rng, image, canvas, patch, config).mean() for rng in rngs]
  assert 19 < min(means) < 50
  assert image.mean() - 40 < max(means) < image.mean() + 1
  config = ComposeConfig(match=0.0)
  assert match_light(np.random.default_rng(0), image, canvas, patch, config) is image


def test_photograph():
  scene = _texture(0, (60, 60))
  plain = ComposeConfig(blur=0.0, noise=0.0, quality=(100, 100))
  image = photograph(np.random.default_rng(0), scene, plain)
  assert np.abs(image.astype(int) - scene).mean() < 4  # colour is stored at half the resolution
  grey = np.repeat(scene[..., :1], 3, axis=2)
  image = photograph(np.random.default_rng(0), grey, plain)
  assert np.abs(image.astype(int) - grey).max() <= 2
  image = photograph(np.random.default_rng(0), grey, ComposeConfig())
  assert np.ptp(image, axis=2).max() == 0
  flat = np.full((60, 60, 3), 128, np.uint8)
  noisy = [
    photograph(
      np.random.default_rng(s), flat, ComposeConfig(noise=8.0, blur=0.0, quality=(100, 100))
    )
    for s in range(30)
  ]
  deviations = [image.std() for image in noisy]
  assert min(deviations) < 2
  assert 5 < max(deviations) < 8.5

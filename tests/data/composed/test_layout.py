"""Geometry of patches against values computed by hand, and what may hide a face."""

import dataclasses

import numpy as np
import pytest

from ferjax.config import ComposeConfig
from ferjax.data.composed.layout import Patch, place, sample_count

SIDE = 200
CONFIG = ComposeConfig(size=(12.0, 150.0), occlusion=0.5)


def _rng(*seed):
  return np.random.default_rng(seed)


def _patch(*numbers):
  return Patch(*map(float, numbers))


@pytest.mark.parametrize(
  ("angle", "window", "box"),
  [
    (0, (80, 50, 120, 110), (84, 62, 120, 104)),
    # A quarter turn, clockwise: the box's centre moves from (2, 3) to (-3, 2) of the patch's.
    (np.pi / 2, (70, 60, 130, 100), (76, 64, 118, 100)),
    (np.pi, (80, 50, 120, 110), (80, 56, 116, 98)),
  ],
)
def test_box_and_window(angle, window, box):
  patch = _patch(100, 80, 40, 60, angle)
  np.testing.assert_allclose(patch.window, window)
  np.testing.assert_allclose(patch.box((0.1, 0.2, 0.0, 0.1)), box)


def test_a_round_box_does_not_grow_with_the_angle():
  for angle in (0.0, 0.3, np.pi / 4):
    np.testing.assert_allclose(
      _patch(50, 60, 40, 40, angle).box((0.0, 0.0, 0.0, 0.0)), [30, 40, 70, 80]
    )
  half = 20 * np.sqrt(2)
  window = _patch(50, 60, 40, 40, np.pi / 4).window
  np.testing.assert_allclose(window, [50 - half, 60 - half, 50 + half, 60 + half])


def test_the_box_bounds_the_points_of_the_rotated_ellipse():
  inset, angle = (0.1, 0.3, 0.05, 0.2), 0.4
  turn = np.linspace(0, 2 * np.pi, 2000)
  # Of a patch of 80 x 50: the ellipse inside x 8..76, y 15..40, relative to the centre.
  points = np.stack([42 - 40 + 34 * np.cos(turn), 27.5 - 25 + 12.5 * np.sin(turn)])
  rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
  points = rotation @ points + [[11], [22]]
  expected = np.concatenate([points.min(1), points.max(1)])
  np.testing.assert_allclose(_patch(11, 22, 80, 50, angle).box(inset), expected, atol=1e-3)


def _cells(window):
  """Which pixels are inside, also beyond the scene."""
  centres = np.arange(-50, SIDE + 50) + 0.5
  x = (centres >= window[0]) & (centres < window[2])
  y = (centres >= window[1]) & (centres < window[3])
  return y[:, None] & x


def test_enough_of_every_box_is_visible():
  hidden, cut = [], 0
  for seed in range(25):
    placed = place(_rng(seed), SIDE, [1.0, 0.8, 1.2, 1.0, 1.0, 0.9], CONFIG)
    for position, one in enumerate(placed):
      covers = [other.patch for other in placed[position + 1 :]]
      covers += [other.occluder for other in placed[position:] if other.occluder]
      outside = ~_cells((0, 0, SIDE, SIDE))
      covered = np.any([outside, *(_cells(cover.window) for cover in covers)], axis=0)
      box = _cells(one.box)
      hidden.append(covered[box].mean())
      cut += outside[box].any()
  assert max(hidden) <= CONFIG.hidden + 0.08  # boxes from 12 pixels on, in whole pixels
  assert np.mean(np.array(hidden) > 0.05) > 0.2
  assert cut > 3


def test_sizes_are_log_uniform_and_the_smallest_comes_first():
  config = dataclasses.replace(CONFIG, occlusion=0.0, rotation=0.0)
  sizes = []
  for seed in range(200):
    (one,) = place(_rng(seed), SIDE, [(0.7, 1.3)[seed % 2]], config)
    sizes.append((one.box[2:] - one.box[:2]).max())
  place_in_range = np.log(np.array(sizes) / 12) / np.log(150 / 12)
  assert place_in_range.min() >= 0
  assert place_in_range.max() <= 1
  # 200 uniform numbers: five standard deviations of each fraction.
  for part in (0.25, 0.5, 0.75):
    assert abs((place_in_range < part).mean() - part) < 5 * np.sqrt(part * (1 - part) / 200)
  placed = place(_rng(5), SIDE, [1.0] * 6, config)
  heights = [one.patch.height for one in placed]
  assert len(heights) > 2
  assert heights == sorted(heights)
  assert len({one.number for one in placed}) == len(placed)


def test_sizes_end_at_the_side_of_the_scene():
  config = dataclasses.replace(CONFIG, size=(12.0, 1e6), occlusion=0.0, rotation=0.0)
  largest = max(place(_rng(i), 40, [1.0], config)[0].box[2:].max() for i in range(100))
  assert largest <= 40 * 1.25


def test_nothing_hidden_means_nothing_overlaps():
  config = dataclasses.replace(CONFIG, hidden=0.0, occlusion=0.0, inset=(0.0, 0.0, 0.0, 0.0))
  for seed in range(20):
    placed = place(_rng(seed), SIDE, [1.0] * 4, config)
    assert placed
    for one in placed:
      assert one.box.min() >= 0
      assert one.box.max() <= SIDE
    covered = np.sum([_cells(one.box) for one in placed], axis=0)
    assert covered.max() == 1


def test_counts():
  config = ComposeConfig(empty=0.25, count=(2, 4))
  rng = _rng(1)
  counts = np.bincount([sample_count(rng, config) for _ in range(2000)], minlength=5) / 2000
  np.testing.assert_allclose(counts, [0.25, 0, 0.25, 0.25, 0.25], atol=0.05)
  assert sample_count(rng, ComposeConfig(empty=1.0)) == 0

"""Each augmentation alone, against values computed by hand, loops and invariances."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import ndimage

from ferjax.config import FaceAugmentConfig
from ferjax.data.classification import augment, views

PLAIN = FaceAugmentConfig(flip=0.0, rotation=0.0)


def _noise(size=32):
  return np.random.default_rng(1).integers(256, size=(size, size, 3), dtype=np.uint8)


def _view(image, seed=0, *, size=32, resize=0, grey=False, **changes):
  config = dataclasses.replace(PLAIN, **changes)
  rng = np.random.default_rng(seed)
  return augment.training_view(image, rng, size, resize=resize, grey=grey, config=config)


def test_no_augmentation_changes_nothing():
  np.testing.assert_array_equal(_view(_noise()), _noise())
  image = _noise(50)
  np.testing.assert_array_equal(_view(image), views.center_view(image, 32))


def test_same_seed_same_view():
  options = {"rotation": 20.0, "brightness": 0.3, "erasing": 0.5, "noise": 0.5, "flip": 0.5}
  image = _noise(40)
  before = image.copy()
  first = [_view(image, seed, resize=36, **options) for seed in range(8)]
  again = [_view(image, seed, resize=36, **options) for seed in range(8)]
  np.testing.assert_array_equal(first, again)
  np.testing.assert_array_equal(image, before)
  assert len({view.tobytes() for view in first}) == 8


def test_flips():
  image = _noise()
  mirrored = _view(image, flip=1.0)
  np.testing.assert_array_equal(mirrored, image[:, ::-1])
  np.testing.assert_array_equal(_view(mirrored, flip=1.0), image)
  np.testing.assert_array_equal(_view(image, vertical_flip=1.0), image[::-1])
  flipped = [np.array_equal(_view(image, s, flip=0.3), mirrored) for s in range(400)]
  assert 0.2 < np.mean(flipped) < 0.4


def test_crop_is_anywhere_in_the_resized_image():
  image = _noise(36)
  windows = {
    image[top : top + 32, left : left + 32].tobytes(): (top, left)
    for top in range(5)
    for left in range(5)
  }
  places = {windows[_view(image, seed, resize=36).tobytes()] for seed in range(300)}
  assert len(places) == 25


def test_shifted_crops_repeat_the_border():
  image = _noise(36)
  padded = np.pad(image, ((6, 6), (6, 6), (0, 0)), mode="edge")
  windows = {
    padded[top : top + 32, left : left + 32].tobytes(): (top, left)
    for top in range(17)
    for left in range(17)
  }
  # Up to 6 pixels beyond the 5 places inside, which is 17 in each direction.
  views = [
    _view(image, seed, resize=36, shift=6 / 32, border="repeat").tobytes() for seed in range(300)
  ]
  tops, lefts = zip(*(windows[view] for view in views), strict=True)
  assert (set(tops), set(lefts)) == (set(range(17)), set(range(17)))


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_are_exact(quarters):
  image = _noise()
  for angle in (90.0 * quarters, 90.0 * quarters - 360):
    rotated = augment._rotated_crop(image, angle, 0, 0, 32)
    np.testing.assert_array_equal(rotated, np.rot90(image, quarters))


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize(("height", "width", "left", "top"), [(48, 40, 3, 9), (24, 28, -4, -7)])
def test_rotation_equals_scipy(height, width, left, top, repeats):
  image, angle = _noise(48)[:height, :width], 17.0
  view = augment._rotated_crop(image, angle, left, top, 32, repeats=repeats)
  cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
  # The position in the rotated image, from its middle, rotated back clockwise (y points down).
  rows, columns = np.mgrid[:32, :32]
  x, y = columns + 0.5 + left - width / 2, rows + 0.5 + top - height / 2
  places = (
    sine * x + cosine * y + height / 2 - 0.5,
    cosine * x - sine * y + width / 2 - 0.5,
  )
  for channel in range(3):
    # Bilinear between the pixels; those beyond the image are black, or those of its border.
    expected = ndimage.map_coordinates(
      image[..., channel].astype(float),
      places,
      order=1,
      mode="nearest" if repeats else "grid-constant",
    )
    np.testing.assert_allclose(view[..., channel], expected, atol=0.51)
  grey = augment._rotated_crop(image[..., 0].copy(), angle, left, top, 32, repeats=repeats)
  np.testing.assert_array_equal(grey, view[..., 0])


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("short", [20, 32, 47, 100])
def test_images_are_scaled_as_for_evaluation(short, grey):
  image = _noise(40)[:32]
  expected = np.asarray(views.scaled(image, short, grey=grey)).astype(int)
  # Luma and interpolation are rounded, each to a neighbouring level at most.
  actual = augment._scaled(image, views.scaled_size(40, 32, short), grey=grey)
  np.testing.assert_allclose(actual, expected, atol=2 if grey else 1)


def test_angles_fill_their_range_and_corners_are_black():
  white = np.full((64, 64, 3), 255, np.uint8)
  black = [(_view(white, seed, size=64, rotation=20.0) == 0).mean() for seed in range(40)]
  # Four triangles are cut off: t / 2 / (1 + t)^2 of a square each, with t the tangent of half.
  tangent = math.tan(math.radians(10))
  assert max(black) < 4 * tangent / 2 / (1 + tangent)
  assert max(black) > 0.05
  assert min(black) < 0.02
  assert all((_view(white, s, size=64, rotation=20.0)[24:40, 24:40] == 255).all() for s in range(5))


def test_zoom_scales_before_the_crop():
  image = np.zeros((64, 64, 3), np.uint8)
  image[:, 28:36] = 255
  for scale, width in ((2.0, 16), (1.5, 12), (0.5, 4)):
    # Resized to 64 already: `size` is 64 and the stripe `8 * scale` wide, if it is in the view.
    widths = [
      (_view(image, seed, size=64, scale=(scale, scale)) / 255).sum(1).max() for seed in range(20)
    ]
    assert abs(np.max(widths) - width) < 0.05
  small = _view(np.full((64, 64, 3), 255, np.uint8), size=64, scale=(0.5, 0.5))
  assert (small == 255).sum() == 32 * 32 * 3
  assert (small == 0).sum() == (64 * 64 - 32 * 32) * 3


def test_brightness_and_contrast():
  image = np.full((32, 32, 3), 100, np.uint8)
  image[:16] = 60
  gains = [_view(image, seed, brightness=0.4).astype(float) / image for seed in range(60)]
  means = [gain.mean() for gain in gains]
  assert max(gain.std() for gain in gains) < 0.01
  assert 0.59 < min(means) < 0.7
  assert 1.3 < max(means) < 1.41
  # Mean 80, and 20 to both sides of it.
  views = [_view(image, seed, contrast=0.5).astype(int) for seed in range(60)]
  spread = [view[20, 0, 0] - view[0, 0, 0] for view in views]
  assert all(abs(view.mean() - 80) <= 1 for view in views)
  assert 19 <= min(spread) < 26
  assert 54 < max(spread) <= 61
  assert (_view(np.full((32, 32, 3), 250, np.uint8), 3, brightness=1.0) <= 255).all()


def test_noise_has_its_variance():
  image = np.full((64, 64, 3), 128, np.uint8)
  difference = _view(image, size=64, noise=1.0).astype(float) - 128
  # 12,288 samples: 4.5 standard errors of mean and variance; rounding adds 1 / 12.
  assert abs(difference.mean()) < 4.5 * math.sqrt(30 / difference.size)
  assert abs(difference.var() - 30 - 1 / 12) < 4.5 * 30 * math.sqrt(2 / difference.size)
  assert abs(np.corrcoef(difference[..., 0].ravel(), difference[..., 1].ravel())[0, 1]) < 0.08
  saturated = _view(np.full((64, 64, 3), 255, np.uint8), size=64, noise=1.0)
  assert saturated.min() > 200


def test_flip_or_noise_is_one_of_the_two():
  image = np.tile(np.arange(32, dtype=np.uint8)[None, :, None] * 4 + 60, (32, 1, 3))
  kinds = []
  for seed in range(600):
    view = _view(image, seed, flip_or_noise=0.5)
    if np.array_equal(view, image):
      kinds.append("same")
    elif np.array_equal(view, image[:, ::-1]):
      kinds.append("mirrored")
    else:
      assert abs(view.astype(int) - image).mean() < 8  # noise, but not mirrored
      kinds.append("noisy")
  fractions = [kinds.count(kind) / 600 for kind in ("same", "mirrored", "noisy")]
  np.testing.assert_allclose(fractions, [0.5, 0.25, 0.25], atol=0.08)
  # The choice replaces the separate probabilities, even if both are 1.
  view = _view(image, flip_or_noise=1.0, flip=1.0, noise=1.0)
  mirrored = np.array_equal(view, image[:, ::-1])
  assert mirrored or abs(view.astype(int) - image).mean() < 8


def test_erasing_replaces_a_rectangle():
  image = np.full((64, 64, 3), 100, np.uint8)
  areas, aspects, centres = [], [], []
  for seed in range(300):
    changed = (_view(image, seed, size=64, erasing=1.0) != 100).any(-1)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert changed.sum() > 0.98 * height * width
    areas.append(height * width / 64**2)
    aspects.append(height / width)
    centres.append((rows.mean(), columns.mean()))
  assert 0.017 < min(areas) < 0.03
  assert 0.09 < max(areas) < 0.107
  assert min(aspects) < 0.5
  assert max(aspects) > 2
  assert np.std(centres, axis=0).min() > 10
  assert (np.array([_view(image, s, size=64, erasing=0.4) == 100 for s in range(200)])).all(
    (1, 2, 3)
  ).mean() == pytest.approx(0.6, abs=0.12)


def test_erasing_of_everything_still_fits():
  view = _view(np.full((64, 64, 3), 100, np.uint8), size=64, erasing=1.0, erasing_area=(1.0, 1.0))
  assert (view == 100).mean() < 0.02


def test_grey_is_one_channel():
  view = _view(_noise(), grey=True, noise=1.0, erasing=1.0, brightness=0.5, rotation=30.0, flip=1.0)
  assert view.shape == (32, 32, 1)
  plain = _view(_noise(), grey=True)
  expected = _noise() @ np.array([0.299, 0.587, 0.114])  # ITU-R 601
  np.testing.assert_allclose(plain[..., 0], expected, atol=0.51)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"flip": 1.5}, r"face_augment.flip \(1.5\) must be a probability, 0..1"),
    ({"vertical_flip": -0.1}, r"face_augment.vertical_flip \(-0.1\)"),
    ({"erasing": math.nan}, r"face_augment.erasing \(nan\)"),
    ({"noise": 2.0}, r"face_augment.noise \(2.0\) must be a probability"),
    ({"flip_or_noise": 2.0}, r"face_augment.flip_or_noise \(2.0\)"),
    ({"rotation": -5.0}, r"face_augment.rotation \(-5.0\) must be in 0..180 degrees"),
    ({"rotation": 200.0}, r"face_augment.rotation \(200.0\)"),
    ({"shift": 1.5}, r"face_augment.shift \(1.5\) must be in 0..1"),
    ({"border": "white"}, r"face_augment.border \(white\) must be one of black, repeat"),
    ({"brightness": 1.2}, r"face_augment.brightness \(1.2\) must be in 0..1"),
    ({"contrast": -1.0}, r"face_augment.contrast \(-1.0\) must be in 0..1"),
    ({"noise_variance": -1.0}, r"face_augment.noise_variance \(-1.0\) must be not negative"),
    ({"scale": (0.0, 1.0)}, r"face_augment.scale \(\(0.0, 1.0\)\) must be \(low, high\) with 0 <"),
    ({"scale": (1.2, 1.0)}, r"face_augment.scale"),
    ({"erasing_area": (0.1, 1.2)}, r"face_augment.erasing_area \(\(0.1, 1.2\)\) must be"),
    ({"erasing_area": (0.2, 0.1)}, r"face_augment.erasing_area"),
  ],
)
def test_impossible_ranges_are_refused(changes, message):
  augment.check_ranges(FaceAugmentConfig())
  with pytest.raises(ValueError, match=message):
    augment.check_ranges(dataclasses.replace(PLAIN, **changes))


@pytest.mark.parametrize("shape", [(1, 200000, 3), (200000, 1, 3)])
@pytest.mark.parametrize("grey", [False, True])
def test_very_long_images_are_cropped_to_the_middle(shape, grey):
  """Enlarging the whole image would take gigabytes."""
  image = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
  middle = image[:, 99984:100016] if shape[0] == 1 else image[99984:100016]
  options = {"resize": 40, "grey": grey, "scale": (0.9, 1.5)}
  for seed in range(4):
    for rotation in (0.0, 10.0):
      view = _view(image, seed, rotation=rotation, **options)
      np.testing.assert_array_equal(view, _view(middle, seed, rotation=rotation, **options))
    assert _view(image, seed, **options).any()

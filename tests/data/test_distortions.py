import io
import pickle

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from ferjax.data import distortions
from ferjax.data.distortions import DISTORTIONS, STRENGTHS, DistortedSource, SampledSource
from ferjax.data.synthetic.faces import SyntheticFaces
from ferjax.data.synthetic.scenes import SyntheticScenes

RNG = np.random.default_rng(0)


def image(height: int, width: int) -> np.ndarray:
  return RNG.integers(0, 256, (height, width, 3)).astype(np.uint8)


def disc(height: int, width: int, box: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
  """A white ellipse that fills a box, on black."""
  x1, y1, x2, y2 = box
  y, x = np.mgrid[:height, :width] + 0.5
  inside = ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1
  return np.repeat(np.uint8(255) * inside[..., None], 3, axis=2), np.array([box], np.float32)


def extent(picture: np.ndarray) -> list[int]:
  """The box of the pixels brighter than the frame."""
  rows, columns = np.nonzero(picture[..., 0] > 192)
  return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_blur_is_gaussian():
  picture = image(20, 30)
  expected = scipy.ndimage.gaussian_filter(
    picture.astype(float), 1.5, mode="nearest", axes=(0, 1), truncate=4
  )
  np.testing.assert_allclose(distortions.blur(picture, 1.5), expected, atol=1.0)


def test_darkness_scales_and_rounds():
  picture = np.array([[[200, 101, 3]]], np.uint8)
  np.testing.assert_array_equal(distortions.darken(picture, 0.25), [[[50, 25, 1]]])


def test_a_quarter_turn_is_clockwise():
  picture = image(9, 9)
  np.testing.assert_array_equal(distortions.rotate(picture, 90.0), np.rot90(picture, -1))
  photograph = image(6, 10)
  turned, boxes = distortions.rotate_photograph(photograph, np.array([[1.0, 2, 4, 3]]), 90.0)
  np.testing.assert_array_equal(turned, np.rot90(photograph, -1))
  np.testing.assert_allclose(boxes, [[3, 1, 4, 4]], atol=1e-9)


@pytest.mark.parametrize("degrees", [30.0, -45.0])
def test_boxes_follow_a_rotation(degrees):
  picture, boxes = disc(120, 200, (30, 20, 80, 90))
  turned, expected = distortions.rotate_photograph(picture, boxes, degrees)
  np.testing.assert_allclose(extent(turned), expected[0], atol=1.6)


def test_crops_by_hand():
  """Rows of ten pixels; beyond the image, its border is repeated."""
  row = np.arange(10, dtype=np.uint8)
  image = np.broadcast_to(row[None, :, None], (10, 10, 3))
  for change, expected in (
    ((1.0, 0.0, 0.0), row),
    ((1.4, 0.0, 0.0), [0, 0, *row, 9, 9]),
    ((0.6, 0.0, 0.0), row[2:8]),
    ((1.0, -0.1, 0.0), [0, *row[:9]]),
    ((1.0, 0.2, 0.0), [*row[2:], 9, 9]),
    ((1.0, 0.0, 0.3), row),
  ):
    cropped = distortions.crop(image, *change)
    assert cropped.shape == (len(expected), len(expected), 3)
    np.testing.assert_array_equal(cropped[0, :, 0], expected)
    np.testing.assert_array_equal(cropped[-1, :, 2], expected)
  down = distortions.crop(np.swapaxes(image, 0, 1), 1.0, 0.0, 0.3)
  np.testing.assert_array_equal(down[:, 0, 0], [*row[3:], 9, 9, 9])


def test_reduced_size_averages_areas():
  picture = image(6, 4)
  means = picture.reshape(3, 2, 2, 2, 3).mean(axis=(1, 3))
  np.testing.assert_allclose(distortions.reduce_size(picture, 0.5), means, atol=0.51)
  assert distortions.reduce_size(picture, 1.0) is picture
  assert distortions.reduce_size(picture, 0.01).shape == (1, 1, 3)


def test_noise_is_gaussian_and_grey():
  grey = np.full((100, 120, 3), 128, np.uint8)
  noisy = distortions.add_noise(grey, 16.0, np.random.default_rng(1))
  np.testing.assert_array_equal(noisy, noisy[..., :1].repeat(3, axis=2))
  # The deviation of 12,000 samples has an error of 0.6 %; four times that, and rounding.
  assert noisy[..., 0].std() == pytest.approx(16, rel=0.03)
  assert noisy.mean() == pytest.approx(128, abs=0.6)


def test_jpeg_equals_a_saved_file():
  picture = image(32, 40)
  file = io.BytesIO()
  Image.fromarray(picture).save(file, "jpeg", quality=20)
  np.testing.assert_array_equal(
    distortions.compress(picture, 20), np.asarray(Image.open(file).convert("RGB"))
  )


@pytest.mark.parametrize("share", [0.05, 0.45])
def test_occlusion_hides_a_share_of_the_box(share):
  picture = np.zeros((100, 120, 3), np.uint8)
  box = np.array([20, 10, 100, 70], np.float32)
  for seed in range(5):
    hidden = distortions.occlude(picture, box, share, np.random.default_rng(seed))[..., 0] > 0
    rows, columns = np.nonzero(hidden)
    assert hidden.sum() == pytest.approx(share * 80 * 60, rel=0.1)
    assert 10 <= rows.min() <= rows.max() < 70
    assert 20 <= columns.min() <= columns.max() < 100
    assert hidden[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
  assert picture.max() == 0


@pytest.fixture(scope="module")
def faces():
  return SyntheticFaces(3, image_size=64, seed=0)


@pytest.fixture(scope="module")
def scenes():
  return SyntheticScenes(3, image_size=96, seed=0, min_faces=1)


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_a_face_changes_more_with_each_strength(faces, kind):
  clean = np.asarray(Image.fromarray(faces[1]["image"]), float)
  errors = []
  for strength in STRENGTHS:
    source = pickle.loads(pickle.dumps(DistortedSource(faces, kind, strength)))
    example = source[1]
    again = DistortedSource(faces, kind, strength)[1]["image"]
    np.testing.assert_array_equal(example["image"], again)
    assert set(example) == {"image", "label"}
    resized = Image.fromarray(example["image"]).resize((64, 64), Image.Resampling.BILINEAR)
    errors.append(np.abs(np.asarray(resized, float) - clean).mean())
  assert errors[0] > 0
  assert errors == sorted(errors)


def test_records_have_noise_of_their_own_and_directions_of_all_strengths(faces):
  grey = np.full((40, 40, 3), 128, np.uint8)

  class Grey(SyntheticFaces):
    def __getitem__(self, index):
      return {**super().__getitem__(index), "image": grey}

  source = Grey(3, image_size=64, seed=0)
  weak, strong = (DistortedSource(source, "noise", strength) for strength in (1, 2))
  first, second = (weak[i]["image"].astype(int) - 128 for i in (0, 1))
  assert np.abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.1
  assert np.corrcoef(first.ravel(), strong[0]["image"].ravel())[0, 1] > 0.99
  other = DistortedSource(source, "noise", 1, seed=1)
  assert not np.array_equal(weak[0]["image"], other[0]["image"])


@pytest.mark.parametrize("kind", distortions.distortions_of("detection"))
def test_boxes_stay_on_the_faces(scenes, kind):
  source = DistortedSource(scenes, kind, 3)
  for i in range(3):
    clean, example = scenes[i], source[i]
    assert example["boxes"].dtype == np.float32
    assert example["boxes"].shape == clean["boxes"].shape
    height, width = example["image"].shape[:2]
    assert (example["boxes"] >= -1).all()
    assert (example["boxes"] <= np.array([width, height] * 2) + 1).all()
    np.testing.assert_array_equal(example["label"], clean["label"])
  assert source.max_boxes == 0  # synthetic scenes do not say


def test_resolution_is_that_of_the_face():
  picture, boxes = disc(120, 200, (30, 20, 110, 100))
  small, moved = DISTORTIONS["resolution"].apply(picture, boxes, 16.0, RNG)
  assert small.shape == (24, 40, 3)
  np.testing.assert_allclose(moved, boxes / 5)
  assert distortions.face_side(small, moved) == pytest.approx(16)
  np.testing.assert_allclose(extent(small), moved[0], atol=1.6)


def test_a_photograph_without_faces_is_distorted_too():
  picture, boxes = image(60, 80), np.zeros((0, 4), np.float32)
  assert distortions.face_side(picture, boxes) == 15
  for kind in distortions.distortions_of("detection"):
    changed, moved = DISTORTIONS[kind].apply(picture, boxes, DISTORTIONS[kind].levels[4], RNG)
    assert moved.shape == (0, 4)
    assert np.array_equal(changed, picture) == (kind == "occlusion")


def test_a_detector_has_no_crop(scenes):
  assert "crop offset" not in distortions.distortions_of("detection")
  with pytest.raises(ValueError, match="unknown distortion 'crop offset' for detection; known: bl"):
    DistortedSource(scenes, "crop offset", 1)
  with pytest.raises(ValueError, match="the strength of blur is 6; expected 1 to 5"):
    DistortedSource(scenes, "blur", 6)


def test_a_sample_keeps_the_order_and_the_noise_of_the_records():
  source = SyntheticFaces(40, image_size=32, seed=0)
  distorted = DistortedSource(source, "noise", 2)
  sample, other = (SampledSource(x, 10) for x in (distorted, source))
  origins = [sample.origin(i) for i in range(10)]
  numbers = [int(origin.split()[2]) for origin in origins]
  assert (len(sample), sample.task) == (10, "classification")
  assert numbers == sorted(set(numbers))
  assert origins == [other.origin(i) for i in range(10)]
  np.testing.assert_array_equal(sample[3]["image"], distorted[numbers[3]]["image"])
  with pytest.raises(ValueError, match="a sample of 0 records; expected at least 1"):
    SampledSource(source, 0)

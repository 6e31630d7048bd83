"""Boxes follow their pixels: in these images, each box is a coloured rectangle."""

import colorsys
import dataclasses

import numpy as np
import pytest

from ferjax.config import AugmentConfig
from ferjax.data.detection import augment

SIZE = 96
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
NO_COLOR_CHANGE = AugmentConfig(hue=0.0, saturation=0.0, value=0.0)


def _example(boxes, height=60, width=90, labels=None, background=0):
  """An image in which each box is filled with the colour of its label."""
  image = np.full((height, width, 3), background, np.uint8)
  labels = list(range(len(boxes))) if labels is None else labels
  for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
    image[y1:y2, x1:x2] = COLORS[label]
  boxes = np.array(boxes, np.float32).reshape(-1, 4)
  return {"image": image, "boxes": boxes, "label": np.array(labels, np.int32)}


def _extent(image, color):
  """The bounding box of the pixels that are close to a colour."""
  rows, columns = np.nonzero(np.abs(image.astype(int) - color).max(-1) < 100)
  return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def _rngs(count=40):
  return [np.random.default_rng((7, i)) for i in range(count)]


def test_resize_and_place_keeps_boxes_on_their_pixels():
  example = _example([(5, 8, 35, 40), (50, 20, 85, 55)])
  before = {key: value.copy() for key, value in example.items()}
  dropped = 0
  for rng in _rngs():
    out = augment.resize_and_place(example, rng, SIZE, AugmentConfig())
    assert out["image"].shape == (SIZE, SIZE, 3)
    for box, label in zip(out["boxes"], out["label"], strict=True):
      np.testing.assert_allclose(_extent(out["image"], COLORS[label]), box, atol=1.01)
    dropped += 2 - len(out["label"])
  assert 0 < dropped < 40  # enlarged images lose some boxes
  for key, value in before.items():
    np.testing.assert_array_equal(example[key], value)


def test_resize_range_and_grey_border():
  example = _example([(0, 0, 80, 80)], 80, 80)
  config = AugmentConfig(scale=(0.5, 0.5), aspect_jitter=0.0)
  corners = set()
  for rng in _rngs():
    out = augment.resize_and_place(example, rng, SIZE, config)
    x1, y1, x2, y2 = out["boxes"][0].astype(int)
    assert (x2 - x1, y2 - y1) == (48, 48)
    assert (out["image"][y1:y2, x1:x2] == COLORS[0]).all()
    border = np.ones((SIZE, SIZE), bool)
    border[y1:y2, x1:x2] = False
    assert (out["image"][border] == 128).all()
    corners.add((x1, y1))
  assert len(corners) > 30
  assert max(x for x, _ in corners) > 40
  assert min(x for x, _ in corners) < 8


def test_scales_and_aspects_cover_the_range_of_the_config():
  example = _example([(20, 20, 40, 40)], 60, 60)
  config = AugmentConfig(scale=(0.25, 1.0))
  sides = np.array(
    [
      (box[2:] - box[:2]) / (20 * SIZE / 60)
      for rng in _rngs(300)
      for box in augment.resize_and_place(example, rng, SIZE, config)["boxes"]
    ]
  )
  longer, aspect = sides.max(axis=1), sides[:, 0] / sides[:, 1]
  assert 0.24 < longer.min() < 0.3
  assert 0.95 < longer.max() < 1.02
  assert 0.7 / 1.3 - 0.02 < aspect.min() < 0.65
  assert 1.55 < aspect.max() < 1.3 / 0.7 + 0.05


def test_whole_image_at_scale_one_has_the_size_of_the_letterbox():
  example = _example([(0, 0, 90, 60)])
  config = AugmentConfig(scale=(1.0, 1.0), aspect_jitter=0.0)
  box = augment.resize_and_place(example, np.random.default_rng(0), SIZE, config)["boxes"][0]
  np.testing.assert_array_equal(box[2:] - box[:2], [96, 64])


def test_flip_mirrors_image_and_boxes_and_twice_is_the_identity():
  example = _example([(5, 8, 35, 40), (50, 20, 85, 55)])
  rng = np.random.default_rng(0)
  once = augment.flip(example, rng, 1.0)
  np.testing.assert_array_equal(once["boxes"], [[55, 8, 85, 40], [5, 20, 40, 55]])
  for box, label in zip(once["boxes"], once["label"], strict=True):
    np.testing.assert_array_equal(_extent(once["image"], COLORS[label]), box)
  twice = augment.flip(once, rng, 1.0)
  for key, value in example.items():
    np.testing.assert_array_equal(twice[key], value)
  assert augment.flip(example, rng, 0.0) is example


def test_hsv_gains_against_colorsys():
  pixels = np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8)
  example = {**_example([]), "image": pixels}
  config = AugmentConfig(hue=0.1, saturation=0.7, value=0.4)
  for seed in range(4):
    hue, saturation, value = 1 + np.array([0.1, 0.7, 0.4]) * np.random.default_rng(seed).uniform(
      -1, 1, 3
    )
    out = augment.hsv(example, np.random.default_rng(seed), config)["image"]
    expected = []
    for pixel in pixels.reshape(-1, 3) / 255:
      h, s, v = colorsys.rgb_to_hsv(*pixel)
      expected.append(colorsys.hsv_to_rgb(h * hue % 1, min(s * saturation, 1), min(v * value, 1)))
    expected = np.array(expected).reshape(16, 16, 3) * 255
    # Rounding to the nearest level alone.
    assert np.abs(out - expected).max() < 0.51


def test_hsv_without_gains_changes_nothing():
  example = _example([(5, 8, 35, 40)])
  assert augment.hsv(example, np.random.default_rng(0), NO_COLOR_CHANGE) is example


def test_mosaic_crops_boxes_with_their_tiles():
  examples = [_example([(5, 5, 50, 55)], labels=[i % 3], background=20 + 10 * i) for i in range(4)]
  cut_points, counts = set(), []
  for rng in _rngs():
    out = augment.mosaic(examples, rng, SIZE, AugmentConfig())
    assert out["boxes"].dtype == np.float32
    counts.append(len(out["label"]))
    for box, label in zip(out["boxes"], out["label"], strict=True):
      x1, y1, x2, y2 = np.round(box).astype(int)
      inside = out["image"][y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].astype(int)
      assert (np.abs(inside - COLORS[label]).max(-1) < 100).all()
    is_label = np.zeros((SIZE, SIZE), bool)
    for x1, y1, x2, y2 in np.round(out["boxes"]).astype(int):
      is_label[max(0, y1 - 2) : y2 + 2, max(0, x1 - 2) : x2 + 2] = True
    colored = np.ptp(out["image"].astype(int), axis=-1) > 100
    # Coloured pixels without a label are slivers of dropped boxes.
    assert (colored & ~is_label).sum() < augment.MIN_VISIBLE * 4 * 45 * 50 * (SIZE / 90) ** 2
    cut_points.add(tuple(np.round(out["boxes"][-1]).astype(int)) if len(out["boxes"]) else None)
  assert max(counts) == 4
  assert len(cut_points) > 30


def test_mosaic_with_flips_equals_mosaic_of_flipped_images():
  examples = [_example([(5, 5, 50, 55)], labels=[i % 3], background=20 + 10 * i) for i in range(4)]
  before = [augment.flip(example, np.random.default_rng(0), 1.0) for example in examples]
  for seed in range(20):
    a = augment.mosaic(examples, np.random.default_rng(seed), SIZE, AugmentConfig(flip=1.0))
    b = augment.mosaic(before, np.random.default_rng(seed), SIZE, AugmentConfig(flip=0.0))
    # Resampling rounds its coefficients, which are not quite symmetric.
    np.testing.assert_allclose(a["image"].astype(int), b["image"], atol=2)
    np.testing.assert_allclose(a["boxes"], b["boxes"], atol=1e-3)
    assert a["label"].tolist() == b["label"].tolist()


def test_mosaic_tiles_do_not_overlap():
  """Four images of one grey level each that fill their tiles: each quarter has only its level."""
  examples = [_example([], 200, 200, background=40 * (i + 1)) for i in range(4)]
  for rng in _rngs(10):
    image = augment.mosaic(examples, rng, SIZE, AugmentConfig(aspect_jitter=0.0))["image"][..., 0]
    for i, (low, right) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
      rows, columns = np.nonzero(image == 40 * (i + 1))
      assert ((rows >= 28) if low else (rows < 68)).all()
      assert ((columns >= 28) if right else (columns < 68)).all()
      assert len(rows) > 100


def test_mixup_is_the_mean_with_the_boxes_of_both():
  a = {**_example([(1, 2, 30, 40)]), "image": np.full((8, 8, 3), 255, np.uint8)}
  b = {**_example([(3, 4, 50, 60)], labels=[2]), "image": np.full((8, 8, 3), 101, np.uint8)}
  out = augment.mixup(a, b)
  assert (out["image"] == 178).all()
  np.testing.assert_array_equal(out["boxes"], [[1, 2, 30, 40], [3, 4, 50, 60]])
  assert out["label"].tolist() == [0, 2]
  assert out["image"].dtype == np.uint8


@pytest.mark.parametrize(
  ("box", "left"),
  [
    ((10, 10, 20, 20), (10, 10, 20, 20)),
    ((-5, 10, 5, 20), (0, 10, 5, 20)),  # half is visible
    ((-8, 10, 2, 20), (0, 10, 2, 20)),  # a fifth, just enough
    ((-8.5, 10, 1.5, 20), None),  # 15 %
    ((10, 10, 11, 20), None),  # not wider than a pixel
    ((40, 40, 50, 50), None),  # outside
  ],
)
def test_cropped_boxes(box, left):
  boxes, label = augment._clip(np.array([box], np.float32), np.array([2], np.int32), (0, 0, 32, 32))
  assert boxes.tolist() == ([] if left is None else [list(left)])
  assert label.tolist() == ([] if left is None else [2])


def _training_example(config, seed, mosaic_allowed=True):
  examples = [_example([(20, 10, 70, 50)], labels=[i % 3]) for i in range(5)]
  loaded = []

  def load(index):
    loaded.append(index)
    return examples[index]

  rng = np.random.default_rng(seed)
  out = augment.training_example(
    examples[0],
    load,
    [1, 2, 3, 4],
    rng,
    size=SIZE,
    config=config,
    mosaic_allowed=mosaic_allowed,
  )
  return out, loaded


@pytest.mark.parametrize(
  ("mosaic", "mixup", "allowed", "loaded"),
  [(0, 1, True, []), (1, 0, True, [1, 2, 3]), (1, 1, True, [1, 2, 3, 4]), (1, 1, False, [])],
)
def test_training_example_loads_what_it_needs(mosaic, mixup, allowed, loaded):
  config = AugmentConfig(mosaic=float(mosaic), mixup=float(mixup))
  for seed in range(5):
    out, actual = _training_example(config, seed, allowed)
    assert actual == loaded
    assert out["image"].shape == (SIZE, SIZE, 3)


def test_mosaic_and_mixup_have_their_probabilities():
  config = AugmentConfig(mosaic=0.5, mixup=0.5)
  counts = [len(_training_example(config, seed)[1]) for seed in range(400)]
  # Standard deviations are 0.025 and 0.022.
  assert abs(np.mean(np.array(counts) >= 3) - 0.5) < 0.1
  assert abs(np.mean(np.array(counts) == 4) - 0.25) < 0.09


def test_same_generator_same_example():
  first, _ = _training_example(AugmentConfig(), 5)
  again, _ = _training_example(AugmentConfig(), 5)
  other, _ = _training_example(AugmentConfig(), 6)
  for key, value in first.items():
    np.testing.assert_array_equal(again[key], value)
  assert not np.array_equal(first["image"], other["image"])


def test_images_without_faces():
  empty = _example([])
  out = augment.training_example(
    empty,
    lambda index: empty,
    [0, 0, 0, 0],
    np.random.default_rng(0),
    size=SIZE,
    config=AugmentConfig(mosaic=1.0, mixup=1.0),
    mosaic_allowed=True,
  )
  assert out["boxes"].shape == (0, 4)
  assert out["label"].shape == (0,)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"flip": 1.5}, r"augment.flip \(1.5\) must be in 0..1"),
    ({"mosaic": -0.1}, r"augment.mosaic \(-0.1\)"),
    ({"scale": (2.0, 0.5)}, r"augment.scale \(2.0, 0.5\) must be \(low, high\)"),
    ({"scale": (0.0, 0.5)}, "0 < low"),
    ({"aspect_jitter": 1.0}, "aspect_jitter"),
  ],
)
def test_impossible_ranges_are_refused(changes, message):
  augment.check_ranges(AugmentConfig())
  with pytest.raises(ValueError, match=message):
    augment.check_ranges(dataclasses.replace(AugmentConfig(), **changes))


@pytest.mark.parametrize("shape", [(1, 200000), (200000, 1)])
def test_very_long_images_are_never_enlarged_whole(shape):
  example = _example([], *shape, background=200)
  canvas = augment.resize_and_place(example, np.random.default_rng(0), SIZE, AugmentConfig())
  assert canvas["image"].shape == (SIZE, SIZE, 3)
  rows, columns = np.nonzero((canvas["image"] != 128).any(-1))
  assert 1 in (len(set(rows)), len(set(columns)))  # still a line
  out = augment.mosaic([example] * 4, np.random.default_rng(0), SIZE, AugmentConfig())
  assert out["image"].shape == (SIZE, SIZE, 3)

"""Views that the device makes, against those that the host makes from the same random numbers."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from ferjax.config import DataConfig, FaceAugmentConfig
from ferjax.data import pipeline
from ferjax.data.classification.stored import decode_all
from ferjax.ops.stored_views import stored_views
from ferjax.training.inputs import augmentation_of

SIZE = 16


class Faces:
  """Smooth images: between two pixels, interpolations differ by a fraction of their difference."""

  task, class_names, skipped = "classification", ("a", "b"), []

  def __init__(self, height, width, count=5):
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.normal(size=(count, height, width, 3)), (0, 2, 2, 0))
    self.images = np.clip(128 + 60 * noise / noise.std(), 0, 255).astype(np.uint8)
    self.labels = np.eye(2, dtype=np.float32)[np.arange(count) % 2]

  def __len__(self):
    return len(self.images)

  def origin(self, index):
    return f"face {index}"

  def __getitem__(self, index):
    return {"image": self.images[index], "label": self.labels[index]}


def batches(config, height, width):
  """A batch of the host's pipeline, the same with stored images, and a function for its views."""
  source = Faces(height, width)
  pixels, stored = decode_all(source, config)
  options = {"batch_size": 32, "seed": 3, "epochs": 4}
  iterators = [
    iter(pipeline.train_dataset(source, config, stored=each, **options)) for each in (None, stored)
  ]
  host, device = map(next, iterators)
  for iterator in iterators:
    iterator.close()
  program = jax.jit(stored_views, static_argnames="augmentation")

  def make(batch, key=0):
    views = program(
      pixels, batch["index"], batch["view"], jax.random.key(key), augmentation_of(config, stored)
    )
    return np.asarray(views)

  return host, device, make


@pytest.mark.parametrize(
  ("shape", "data", "faces"),
  [
    # Nothing is interpolated.
    ((18, 21), {"resize": 18}, {"rotation": 0.0, "vertical_flip": 0.5, "contrast": 0.0}),
    # Enlarged and rotated, in part black; brightness and contrast.
    (
      (12, 14),
      {"resize": 20, "grey": True, "balance": True},
      {"rotation": 20.0, "scale": (0.8, 1.2), "brightness": 0.3, "contrast": 0.3},
    ),
    # The same, with the border repeated, far beyond the image.
    (
      (12, 14),
      {"resize": 17, "grey": True},
      {"rotation": 20.0, "scale": (0.7, 1.2), "shift": 0.3, "border": "repeat"},
    ),
    (
      (18, 21),
      {"resize": 18},
      {"rotation": 0.0, "shift": 0.5, "border": "repeat"},
    ),
    # Shrunk.
    ((44, 40), {}, {"rotation": 0.0, "scale": (0.7, 1.3)}),
  ],
)
def test_views_equal_those_of_the_host_within_the_interpolation_error(shape, data, faces):
  config = DataConfig(image_size=SIZE, face_augment=FaceAugmentConfig(**faces), **data)
  host, device, make = batches(config, *shape)
  for name in ("index", "label", "mask", "skipped"):
    np.testing.assert_array_equal(device[name], host[name], err_msg=name)
  views = make(device)
  assert (views.dtype, views.shape) == (np.uint8, host["image"].shape)
  errors = np.abs(views.astype(int) - host["image"])
  if faces["rotation"] == 0 and "scale" not in faces:
    assert errors.max() == 0
    return
  # The host rounds its weights and intermediate levels. Each of two steps, and the gain of up to
  # 1.3 * 1.3 after them, moves a value across a rounding boundary.
  assert errors.max() <= 3
  assert errors.mean() < 0.3


def test_noise_and_erased_rectangles():
  faces = FaceAugmentConfig(
    rotation=0.0, noise=0.5, noise_variance=64.0, erasing=0.5, erasing_area=(0.1, 0.4)
  )
  config = DataConfig(image_size=SIZE, face_augment=faces)
  host, device, make = batches(config, SIZE, SIZE)
  views, view = make(device), device["view"]
  left, top, width, height = np.moveaxis(view["erased"], 1, 0)[:, :, None, None, None]
  place = np.arange(SIZE)
  columns, rows = place[None, None, :, None], place[None, :, None, None]
  erased = (columns >= left) & (columns < left + width) & (rows >= top) & (rows < top + height)
  erased = np.broadcast_to(erased, views.shape)
  noisy = np.broadcast_to(view["noisy"][:, None, None, None], views.shape)
  assert 0.2 < np.mean(width > 0) < 0.8
  assert 0.2 < view["noisy"].mean() < 0.8
  # The host erases the same rectangles, and adds noise to the same views.
  plain = ~erased & ~noisy
  np.testing.assert_array_equal(views[plain], host["image"][plain])
  for images in (views, host["image"]):
    content = images[erased].astype(float)
    assert abs(content.mean() - 127.5) < 5  # uniform in 0..255; four standard errors
    assert abs(content.std() - 73.9) < 3
  # Both add noise of the same distribution to the same clean levels.
  difference = (views.astype(float) - host["image"])[noisy & ~erased]
  assert abs(difference.mean()) < 0.5
  assert abs(difference.var() - 2 * 64) < 10
  assert not np.array_equal(make(device, key=1)[erased], views[erased])


def test_a_view_does_not_depend_on_its_batch():
  faces = FaceAugmentConfig(rotation=5.0, noise=0.5, erasing=0.5)
  config = DataConfig(image_size=SIZE, face_augment=faces)
  _, device, make = batches(config, 20, 20)
  views = make(device)
  some = np.array([7, 30, 2, 7])
  part = jax.tree.map(lambda rows: rows[some], {key: device[key] for key in ("index", "view")})
  # The programs of two batch sizes may round a grey level in the middle of two differently.
  off = np.abs(np.asarray(make(part), np.int32) - np.asarray(views[some], np.int32))
  assert off.max() <= 1
  assert (off > 0).mean() < 0.02

import dataclasses

import numpy as np
import pytest

from ferjax.config import DataConfig
from ferjax.data import pipeline
from ferjax.data.classification import augment
from ferjax.data.classification.stored import decode_all
from ferjax.data.image import ImageError

CONFIG = DataConfig(image_size=8)


class Faces:
  task, class_names, skipped = "classification", ("a", "b"), []

  def __init__(self, shapes, bad=()):
    self.images = [
      np.random.default_rng(i).integers(256, size=(*shape, 3), dtype=np.uint8)
      for i, shape in enumerate(shapes)
    ]
    self.labels = np.eye(2, dtype=np.float32)[np.arange(len(shapes)) % 2]
    self.bad = bad

  def __len__(self):
    return len(self.images)

  def origin(self, index):
    return f"list.txt:{index + 1}"

  def __getitem__(self, index):
    if index in self.bad:
      raise ImageError(f"{self.origin(index)}: damaged")
    return {"image": self.images[index], "label": self.labels[index]}


@pytest.mark.parametrize("grey", [False, True])
def test_every_record_is_decoded_in_order(grey):
  source = Faces([(10, 12)] * 20)
  pixels, stored = decode_all(source, dataclasses.replace(CONFIG, grey=grey))
  expected = [augment.as_grey(x)[..., None] if grey else x for x in source.images]
  np.testing.assert_array_equal(pixels, expected)
  assert pixels.dtype == np.uint8
  assert (stored.width, stored.height, stored.channels) == (12, 10, 1 if grey else 3)
  np.testing.assert_array_equal(stored.labels, source.labels)
  assert not stored.skipped.any()


def test_only_the_middle_of_a_very_long_image_is_stored():
  pixels, stored = decode_all(Faces([(2, 100)]), CONFIG)
  assert pixels.shape == (1, 2, 64, 3)
  assert (stored.width, stored.height) == (64, 2)


def test_images_of_different_sizes_are_refused():
  message = r"list.txt:3 has 12x10 pixels, and list.txt:1 has 10x10. .* turn data.on_device off"
  with pytest.raises(ValueError, match=message):
    decode_all(Faces([(10, 10), (10, 10), (10, 12)]), CONFIG)


def test_sets_above_the_limit_are_refused():
  # 4 images of 16 * 16 * 4 kB are 12 MiB.
  source = Faces([(1024, 1024)] * 4)
  config = dataclasses.replace(CONFIG, on_device_limit=0.01)
  message = r"4 images of 1024x1024 pixels with 3 channels take 0.0117 GiB .* 0.01 GiB. Raise it"
  with pytest.raises(ValueError, match=message):
    decode_all(source, config)
  assert decode_all(source, dataclasses.replace(config, grey=True))[0].nbytes == 4 * 2**20


def test_bad_records_stop_or_are_grey_and_masked():
  source = Faces([(10, 10)] * 4, bad=(0, 2))
  with pytest.raises(ImageError, match=r"list.txt:1: damaged"):
    decode_all(source, CONFIG)
  config = dataclasses.replace(CONFIG, on_bad_record="skip")
  pixels, stored = decode_all(source, config)
  assert stored.skipped.tolist() == [True, False, True, False]
  assert (pixels[stored.skipped] == 128).all()
  options = {"batch_size": 4, "seed": 0, "epochs": 1}
  batches = [
    next(iter(pipeline.train_dataset(source, config, stored=each, **options)))
    for each in (None, stored)
  ]
  for name in ("index", "label", "mask", "skipped"):
    np.testing.assert_array_equal(batches[0][name], batches[1][name], err_msg=name)
  # Without black corners, as on the host.
  view, skipped = batches[1]["view"], batches[1]["skipped"]
  assert (view["matrix"][skipped] == [[1, 0, 0], [0, 1, 0]]).all()
  with pytest.raises(ValueError, match="none of the 1 records can be read"):
    decode_all(Faces([(10, 10)], bad=(0,)), config)

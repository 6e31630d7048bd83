import itertools

import numpy as np
import pytest
from PIL import Image

from ferjax.data.image import ImageError
from ferjax.inference.base import ImagePredictor, batched, read_ahead, stack_padded
from ferjax.inference.results import Face


class Mean(ImagePredictor[float]):
  """Returns the brightness of an image and records the batch sizes."""

  def __init__(self, batch_size):
    self.class_names = ("bright",)
    self.step = None
    self.batch_size = batch_size
    self.settings = {}
    self.sizes = []

  def _inputs(self, image):
    return float(image.mean())

  def _faces(self, batch):
    self.sizes.append(len(batch))
    return [(Face(None, x.inputs, "bright", {"bright": x.inputs}),) for x in batch]


def _plain(value, height=2, width=3):
  return np.full((height, width, 3), value, np.uint8)


def test_predictions_are_in_input_order():
  predictor = Mean(3)
  predictions = predictor.predict(_plain(i) for i in range(7))
  assert [prediction.faces[0].score for prediction in predictions] == list(range(7))
  assert {(prediction.width, prediction.height) for prediction in predictions} == {(3, 2)}
  assert predictor.sizes == [3, 3, 1]


def test_predictions_are_streamed(tmp_path):
  Image.fromarray(_plain(5)).save(tmp_path / "a.png")
  read = 0

  def endless():
    nonlocal read
    while True:
      read += 1
      yield tmp_path / "a.png"

  results = Mean(2).predict_files(endless())
  for prediction, image in itertools.islice(results, 4):
    assert prediction.faces[0].score == 5
    np.testing.assert_array_equal(image, _plain(5))
  results.close()
  assert read <= 6  # two batches done and one ahead


def test_bad_images_are_reported_once_and_skipped(tmp_path):
  Image.fromarray(_plain(5)).save(tmp_path / "a.png")
  reported = []
  paths = [tmp_path / name for name in ("x.png", "a.png", "y.png", "a.png")]
  results = Mean(2).predict_files(paths, on_bad_image=lambda path, error: reported.append(path))
  assert [prediction.image for prediction, _ in results] == [str(tmp_path / "a.png")] * 2
  assert reported == [str(tmp_path / "x.png"), str(tmp_path / "y.png")]
  with pytest.raises(ImageError, match=r"x\.png: file not found"):
    Mean(2).predict(paths)


def test_an_error_in_preparation_is_raised():
  def fail(image):
    raise RuntimeError("too bright")

  with pytest.raises(RuntimeError, match="too bright"):
    list(read_ahead([_plain(1)], fail, images_ahead=2, on_bad_image=None))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_batched(count):
  expected = [list(range(count))[start : start + 2] for start in range(0, count, 2)]
  assert list(batched(iter(range(count)), 2)) == expected


def test_stack_padded():
  rows = [np.array([1, 2]), np.array([3, 4])]
  assert stack_padded(rows, 4).tolist() == [[1, 2], [3, 4], [3, 4], [3, 4]]
  assert stack_padded(rows, 2).tolist() == [[1, 2], [3, 4]]


def test_compiled_batch_sizes():
  predictor = Mean(6)
  predictor.compile([1, 4, 8])
  assert predictor.sizes == [1, 4, 6]  # 8 is above the batch size
  with pytest.raises(ValueError, match="a batch size is 0; expected at least 1"):
    predictor.compile([0])


def test_prepared_images_are_predicted_in_one_call():
  predictor = Mean(3)
  batch = [predictor.prepare(_plain(level), path=f"{level}.png") for level in (4, 9)]
  first, second = predictor.predict_batch(batch)
  assert (first.image, first.faces[0].score) == ("4.png", 4)
  assert (second.image, second.width, second.height) == ("9.png", 3, 2)
  assert predictor.sizes == [2]

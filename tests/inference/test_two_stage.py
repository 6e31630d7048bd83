"""With a detector of fixed squares, a classifier of colours, and real checkpoints."""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ferjax.inference.classification import ExpressionClassifier
from ferjax.inference.detection import Predictor
from ferjax.inference.two_stage import DetectAndClassify, scale_margin, square_crop
from ferjax.typing import ClassifierOutput, DetectorOutput

COLOURS = ("red", "green", "blue")


class FixedDetector(nn.Module):
  """Detects the squares (centre x, centre y, side, class, logit) in images of 64 pixels."""

  squares: tuple[tuple[float, float, float, int, float], ...]

  @nn.compact
  def __call__(self, image, *, train):
    cells = np.full((8, 8, 7), -40, np.float32)  # of 8 pixels; box, objectness and two classes
    for i, (x, y, side, label, logit) in enumerate(self.squares):
      width = math.log(side / 8)
      cells[0, i, :5] = (x / 8 - i, y / 8, width, width, logit)
      cells[0, i, 5 + label] = 40
    return DetectorOutput((jnp.tile(cells[None], (image.shape[0], 1, 1, 1)),))


class Colour(nn.Module):
  """The logit of a class is the mean of a channel over every other row."""

  @nn.compact
  def __call__(self, image, *, train):
    logits = image[:, ::2].mean((1, 2))
    return ClassifierOutput(logits, logits)


def _predictor(*squares, crop_side=16, iou_threshold=0.3, weights_margin=None, **cropping):
  detector = Predictor.from_model(
    FixedDetector(squares), {}, ("one", "two"), 64, batch_size=3, iou_threshold=iou_threshold
  )
  classifier = ExpressionClassifier.from_model(
    Colour(), {}, COLOURS, crop_side, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), batch_size=2
  )
  classifier.crop_margin = weights_margin
  return DetectAndClassify(detector, classifier, **(cropping or {"crop_scale": 1.0}))


def _softmax(logits):
  exponentials = np.exp(np.asarray(logits, np.float64))
  return exponentials / exponentials.sum()


@pytest.mark.parametrize(
  ("box", "scale", "left", "top", "side"),
  [
    ((20, 10, 40, 30), 1.0, 20, 10, 20),
    ((20, 10, 40, 30), 1.2, 18, 8, 24),
    ((20, 10, 40, 26), 1.2, 18, 6, 24),  # wider than high
    ((20, 10, 30, 30), 1.2, 13, 8, 24),  # higher than wide
    ((20, 10, 40, 30), 0.5, 25, 15, 10),
    ((20.4, 10.6, 40.4, 30.6), 1.0, 20, 11, 20),
    ((20, 10, 35, 25), 1.2, 19, 9, 18),  # centre 27.5, 17.5: 18.5 and 8.5 are rounded up
    ((0, 0, 20, 20), 1.2, -2, -2, 24),
    ((40, 30, 60, 50), 1.2, 38, 28, 24),
    ((0, 0, 60, 50), 2.0, -30, -35, 120),
    ((59, 49, 60, 50), 1.2, 59, 49, 1),
    ((30, 20, 30, 20), 1.2, 30, 20, 1),  # an empty box
  ],
)
def test_the_square_around_a_box(box, scale, left, top, side):
  image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
  edge = 100
  padded = np.pad(image, ((edge, edge), (edge, edge), (0, 0)), mode="edge")
  expected = padded[top + edge :, left + edge :][:side, :side]
  crop = square_crop(image, tuple(map(float, box)), scale_margin(scale))
  np.testing.assert_array_equal(crop, expected)


@pytest.mark.parametrize(
  ("margin", "left", "top", "side"),
  [
    ((0.1, 0.1, 0.1, 0.1), 18, 8, 24),
    ((0.25, 0.5, 0.25, 0.0), 15, 0, 30),  # 30 x 30: from (15, 0) to (45, 30)
    ((0.0, 0.5, 0.0, 0.0), 15, 0, 30),  # 20 x 30, centred on (30, 15)
    ((-0.25, 0.0, 0.0, 0.0), 23, 10, 20),  # 15 x 20, centred on (32.5, 20): 22.5 is rounded up
    ((0.0, 0.0, 0.5, 1.0), 15, 10, 40),  # 30 x 40, centred on (35, 30)
  ],
)
def test_the_square_around_a_box_with_margins(margin, left, top, side):
  image = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
  expected = image[top : top + side, left : left + side]
  np.testing.assert_array_equal(square_crop(image, (20.0, 10.0, 40.0, 30.0), margin), expected)


def test_the_square_around_a_very_long_box():
  """A side of 1.2 times its length would need 172 gigabytes."""
  image = np.random.default_rng(0).integers(0, 256, (1, 200000, 3), np.uint8)
  crop = square_crop(image, (0.0, 0.0, 200000.0, 1.0), scale_margin(1.2))
  assert crop.shape == (3577, 3577, 3)  # the root of 64 * 200000
  np.testing.assert_array_equal(crop[::1788], np.repeat(image[:, 98212 : 98212 + 3577], 3, axis=0))


def test_boxes_are_the_detectors_and_scores_the_classifiers():
  image = np.zeros((64, 64, 3), np.uint8)
  image[10:26, 20:36] = (51, 255, 102)
  (prediction,) = _predictor((28, 18, 16, 1, 2.0)).predict([image])
  assert (prediction.image, prediction.width, prediction.height) == (None, 64, 64)
  (face,) = prediction.faces
  assert face.box == pytest.approx((20, 10, 36, 26), abs=1e-3)
  assert list(face.scores) == list(COLOURS)
  assert list(face.scores.values()) == pytest.approx(_softmax([0.2, 1.0, 0.4]), abs=1e-6)
  assert (face.expression, face.score) == ("green", face.scores["green"])
  assert face.detection is not None
  assert face.detection.box == face.box
  assert face.detection.expression == "two"
  assert face.detection.score == pytest.approx(1 / (1 + math.exp(-2)), abs=1e-6)
  assert list(face.detection.scores) == ["one", "two"]


def test_crops_have_original_resolution():
  """Twice the size of the detector's input, and not square: 128x96 is halved and moved by 8."""
  image = np.zeros((96, 128, 3), np.uint8)
  image[20:52, 40:72] = 255
  (prediction,) = _predictor((28, 26, 16, 0, 2.0)).predict([image])
  assert prediction.faces[0].box == pytest.approx((40, 20, 72, 52), abs=1e-3)
  image[20:52, 40:72] = (255, 0, 0)
  image[21:52:2, 40:72] = (0, 0, 255)  # rows below the resolution of the detector's input
  ((face,),) = (x.faces for x in _predictor((28, 26, 16, 0, 2.0), crop_side=32).predict([image]))
  assert list(face.scores.values()) == pytest.approx(_softmax([1, 0, 0]), abs=1e-6)


def test_crop_scale():
  image = np.zeros((64, 64, 3), np.uint8)
  image[20:40, 20:40] = (255, 0, 0)
  for scale, red in ((1.0, 1.0), (2.0, 0.25)):  # of the square's area
    (prediction,) = _predictor((30, 30, 20, 0, 2.0), crop_scale=scale).predict([image])
    expected = _softmax([red, 0, 0])
    assert list(prediction.faces[0].scores.values()) == pytest.approx(expected, abs=0.01)


def test_crops_at_the_border_repeat_the_edge():
  image = np.zeros((64, 64, 3), np.uint8)
  image[:16, :16] = (0, 0, 255)
  (prediction,) = _predictor((8, 8, 16, 0, 2.0), crop_scale=2.0).predict([image])
  # The square is -8..24 in both directions; only pixels beyond 16 in either are black.
  expected = _softmax([0, 0, (24 / 32) ** 2])
  assert list(prediction.faces[0].scores.values()) == pytest.approx(expected, abs=0.01)


def test_faces_are_sorted_by_decreasing_detector_score():
  image = np.zeros((64, 64, 3), np.uint8)
  image[8:16, 8:16], image[8:16, 40:48], image[40:48, 8:16] = np.diag([255, 255, 255])
  squares = ((12, 12, 8, 0, 1.0), (44, 12, 8, 1, 3.0), (12, 44, 8, 0, 2.0))
  (prediction,) = _predictor(*squares).predict([image])
  assert [face.expression for face in prediction.faces] == ["green", "blue", "red"]


def test_one_face_detected_as_two_expressions_is_listed_once():
  squares = ((20, 20, 16, 0, 1.0), (21, 20, 16, 1, 3.0), (50, 50, 16, 0, 2.0))
  image = np.zeros((64, 64, 3), np.uint8)
  predictor = _predictor(*squares)
  (prediction,) = predictor.predict([image])
  assert [face.box[0] for face in prediction.faces] == pytest.approx([13, 42], abs=1e-3)
  (prediction,) = _predictor(*squares, iou_threshold=0.95).predict([image])
  assert len(prediction.faces) == 3


def test_images_without_faces():
  images = [np.zeros((64, 64, 3), np.uint8)] * 4
  assert [p.faces for p in _predictor().predict(images)] == [()] * 4
  assert _predictor().predict([]) == []


def test_compiling_for_several_batch_sizes():
  compiled, plain = (_predictor((28, 18, 16, 1, 2.0)) for _ in range(2))
  compiled.compile([1, 2])
  images = list(np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8))
  for count in (1, 2, 3):
    for found, expected in zip(
      compiled.predict(images[:count]), plain.predict(images[:count]), strict=True
    ):
      assert found.faces[0].box == pytest.approx(expected.faces[0].box, abs=1e-3)
      assert found.faces[0].scores == pytest.approx(expected.faces[0].scores, abs=1e-6)
  # Of 1, 2 and 3 images, and of 1 and 2 crops.
  assert compiled._detector._detect._cache_size() == 3
  assert compiled._classifier._classify._cache_size() == 2


def test_margins_of_the_weights_and_given_ones():
  """From the bottom half of the box to twice its height below the top: a quarter is red."""
  image = np.zeros((64, 64, 3), np.uint8)
  image[20:40, 20:40] = (255, 0, 0)
  square = (30, 30, 20, 0, 2.0)
  margin = (0.0, 0.0, 1.0, 1.0)  # from (20, 20) to (60, 60)

  def scores(**cropping):
    (prediction,) = _predictor(square, **cropping).predict([image])
    return list(prediction.faces[0].scores.values())

  whole, quarter = _softmax([1, 0, 0]), _softmax([0.25, 0, 0])
  assert scores(crop_margin=margin) == pytest.approx(quarter, abs=0.01)
  assert scores(crop_margin=0.5) == pytest.approx(quarter, abs=0.01)
  assert scores(weights_margin=margin, crop_scale=None) == pytest.approx(quarter, abs=0.01)
  assert scores(weights_margin=margin, crop_scale=1.0) == pytest.approx(whole, abs=0.01)
  assert scores(weights_margin=margin, crop_margin=0.0) == pytest.approx(whole, abs=0.01)


def test_the_setting_of_the_crops():
  assert _predictor(crop_scale=None).settings["crop_scale"] == 1.2
  settings = _predictor(weights_margin=(0.0, 0.5, 0.0, 0.0), crop_scale=None).settings
  assert settings["crop_margin"] == [0.0, 0.5, 0.0, 0.0]
  assert "crop_scale" not in settings


@pytest.mark.parametrize("margin", [-0.5, 1.6, float("nan"), (0.1, 0.1), (0.1, 0.1, 0.1, 2.0)])
def test_wrong_margins(margin):
  with pytest.raises(ValueError, match=r"crop_margin is .*; expected one number, or four"):
    _predictor(crop_margin=margin)


def test_a_scale_and_margins():
  with pytest.raises(
    ValueError, match=r"crop_scale is 1\.0 and crop_margin is 0\.1; give only one"
  ):
    _predictor(crop_scale=1.0, crop_margin=0.1)


def test_a_detector_with_several_boxes_a_face():
  both = _predictor()
  detector = Predictor.from_model(FixedDetector(()), {}, ("one",), 64, per_class_nms=True)
  with pytest.raises(ValueError, match="per_class_nms=True, which gives a face several boxes"):
    DetectAndClassify(detector, both._classifier)


@pytest.mark.parametrize("scale", [0.0, -1.0, 4.1, float("nan"), float("inf")])
def test_wrong_scales(scale):
  with pytest.raises(ValueError, match=r"crop_scale is .*; expected above 0 and at most 4"):
    _predictor(crop_scale=scale)


@pytest.fixture(scope="module")
def detector(tiny_checkpoint):
  return Predictor(tiny_checkpoint, batch_size=2, score_threshold=0.5)


@pytest.fixture(scope="module")
def classifier(classifier_checkpoint):
  return ExpressionClassifier(classifier_checkpoint, batch_size=3)


@pytest.fixture(scope="module")
def real(detector, classifier):
  return DetectAndClassify(detector, classifier)


def _crop(image, box):
  """The crop, from an image with wide edge padding."""
  padded = np.pad(image, ((400, 400), (400, 400), (0, 0)), mode="edge")
  x1, y1, x2, y2 = box
  side = max(1, int(1.2 * max(x2 - x1, y2 - y1) + 0.5))
  # int() rounds positive numbers down, so this rounds halves up.
  left, top = (int((a + b - side) / 2 + 400.5) for a, b in ((x1, x2), (y1, y2)))
  return padded[top : top + side, left : left + side]


def test_faces_match_both_models(real, detector, classifier, photographs, nearest, check_same_face):
  """Each model runs on one image alone, at another position in its batch."""
  predictions = real.predict(photographs)
  assert max(len(prediction.faces) for prediction in predictions) > classifier.batch_size
  expressions = set()
  for image, prediction in zip(photographs, predictions, strict=True):
    (alone,) = detector.predict([image])
    for face in prediction.faces:
      check_same_face(face.detection, nearest(face.detection, alone.faces))
      assert face.box == face.detection.box
      (classified,) = classifier.predict([_crop(image, face.box)])
      check_same_face(face, classified.faces[0])
      expressions.add(face.expression)
  assert len(expressions) > 1


def test_names_and_settings(real):
  assert (real.class_names, real.step) == (("happiness", "anger", "surprise"), 5)
  assert real.settings == {
    "detector_step": 3,
    "score_threshold": 0.5,
    "iou_threshold": 0.3,
    "max_detections": 100,
    "per_class_nms": False,
    "crop_scale": 1.2,
  }


def test_exif_orientation_is_applied_once(real, photographs, tmp_path):
  upright = photographs[4]
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.fromarray(np.ascontiguousarray(np.rot90(upright))).save(tmp_path / "a.png", exif=exif)
  ((prediction, pixels),) = real.predict_files([tmp_path / "a.png"])
  np.testing.assert_array_equal(pixels, upright)
  assert prediction.faces == real.predict([upright])[0].faces
  assert len(prediction.faces) > 0

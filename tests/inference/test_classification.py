"""With models whose outputs can be computed by hand, and with a real checkpoint."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ferjax.checkpoint import load_variables
from ferjax.data.image import IMAGENET_MEAN, IMAGENET_STD, ImageError
from ferjax.inference.classification import ExpressionClassifier
from ferjax.inference.results import Face
from ferjax.models import create_model
from ferjax.typing import ClassifierOutput

COLOURS = ("red", "green", "blue")
SIDES = ("left", "right", "top", "bottom")
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


class Colour(nn.Module):
  """The logit of a class is the mean of an input channel."""

  @nn.compact
  def __call__(self, image, *, train):
    logits = image.mean((1, 2))
    return ClassifierOutput(logits, logits)


class Side(nn.Module):
  """The logit of a class is 10 times the mean of half of the input."""

  @nn.compact
  def __call__(self, image, *, train):
    half = image.shape[1] // 2
    halves = (image[:, :, :half], image[:, :, half:], image[:, :half], image[:, half:])
    logits = 10 * jnp.stack([x.mean((1, 2, 3)) for x in halves], axis=1)
    return ClassifierOutput(logits, logits)


def _colours(**settings):
  return ExpressionClassifier.from_model(Colour(), {}, COLOURS, 8, batch_size=3, **settings)


@pytest.fixture(scope="module")
def side():
  return ExpressionClassifier.from_model(Side(), {}, SIDES, 8, batch_size=3, **PLAIN)


def _plain(height, width, colour):
  return np.full((height, width, 3), colour, np.uint8)


def _classified(classifier, image):
  (prediction,) = classifier.predict([image])
  (face,) = prediction.faces
  return face


def _softmax(logits):
  exponentials = np.exp(np.asarray(logits, np.float64))
  return exponentials / exponentials.sum()


def test_the_probabilities_are_the_softmax():
  (prediction,) = _colours(**PLAIN).predict([_plain(8, 10, (51, 255, 102))])
  assert (prediction.image, prediction.width, prediction.height) == (None, 10, 8)
  (face,) = prediction.faces
  expected = _softmax([0.2, 1.0, 0.4])
  assert list(face.scores) == list(COLOURS)
  assert list(face.scores.values()) == pytest.approx(expected, abs=1e-6)
  assert (face.expression, face.score) == ("green", face.scores["green"])
  assert (face.box, face.detection) == (None, None)


def test_flips_are_averaged(side):
  """Left and right halves of 0 and 1: the logits 0, 10, 5, 5, and mirrored 10, 0, 5, 5."""
  image = _plain(8, 8, 0)
  image[:, 4:] = 255
  flips = ExpressionClassifier.from_model(Side(), {}, SIDES, 8, batch_size=3, flip=True, **PLAIN)
  logits = np.array([[0, 10, 5, 5], [10, 0, 5, 5]])
  expected = np.mean([_softmax(row) for row in logits], axis=0)
  assert list(_classified(flips, image).scores.values()) == pytest.approx(expected, abs=1e-6)
  assert _classified(side, image).expression == "right"
  assert (flips.settings, side.settings) == ({"flip": True}, {})


def test_scores_are_shifted_by_the_frequencies():
  prior = np.array([0.7, 0.2, 0.1])
  adjusted = _colours(**PLAIN, class_prior=tuple(prior), logit_adjustment=0.5)
  expected = _softmax([0.2, 1.0, 0.4] - 0.5 * np.log(prior))
  scores = _classified(adjusted, _plain(8, 8, (51, 255, 102))).scores
  assert list(scores.values()) == pytest.approx(expected, abs=1e-6)
  with pytest.raises(
    ValueError, match="the classes' frequencies in training, is \\(\\), but an adj"
  ):
    _colours(logit_adjustment=0.5)
  with pytest.raises(ValueError, match="logit_adjustment is nan; expected a finite number"):
    _colours(logit_adjustment=float("nan"))


def test_temperature_divides_the_adjusted_logits():
  prior = np.array([0.7, 0.2, 0.1])
  colder = _colours(**PLAIN, class_prior=tuple(prior), logit_adjustment=0.5, temperature=0.5)
  expected = _softmax(([0.2, 1.0, 0.4] - 0.5 * np.log(prior)) / 0.5)
  scores = _classified(colder, _plain(8, 8, (51, 255, 102))).scores
  assert list(scores.values()) == pytest.approx(expected, abs=1e-6)
  assert colder.settings == {"logit_adjustment": 0.5, "temperature": 0.5}
  with pytest.raises(ValueError, match=r"temperature is -1\.0; expected a finite number above 0"):
    _colours(temperature=-1.0)


@pytest.mark.parametrize(
  ("settings", "mean", "std"),
  [
    ({}, IMAGENET_MEAN, IMAGENET_STD),
    ({"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.2, 1.0)}, (0.1, 0.2, 0.3), (0.5, 0.2, 1.0)),
  ],
)
def test_images_are_normalised(settings, mean, std):
  face = _classified(_colours(**settings), _plain(8, 8, (51, 102, 204)))
  expected = _softmax((np.array([0.2, 0.4, 0.8]) - mean) / std)
  assert list(face.scores.values()) == pytest.approx(expected, abs=1e-6)


def test_grey_removes_colour():
  face = _classified(_colours(grey=True, **PLAIN), _plain(8, 8, (255, 0, 0)))
  assert list(face.scores.values()) == pytest.approx([1 / 3] * 3, abs=1e-6)


def test_grey_is_luma():
  mean = (0.0, 0.0, 0.5)  # distinguishes the channels again
  face = _classified(_colours(grey=True, **PLAIN | {"mean": mean}), _plain(8, 8, (255, 0, 0)))
  luma = 76 / 255  # 0.299 of 255, rounded
  assert list(face.scores.values()) == pytest.approx(_softmax([luma, luma, luma - 0.5]), abs=1e-6)


def test_only_the_middle_is_classified():
  image = _plain(8, 24, (255, 0, 0))
  image[:, 8:16] = (0, 0, 255)
  face = _classified(_colours(**PLAIN), image)
  assert list(face.scores.values()) == pytest.approx(_softmax([0, 0, 1]), abs=1e-6)


def test_resize_crops_a_border():
  image = _plain(16, 16, (255, 0, 0))
  image[4:12, 4:12] = (0, 255, 0)
  face = _classified(_colours(resize=16, **PLAIN), image)
  assert list(face.scores.values()) == pytest.approx(_softmax([0, 1, 0]), abs=1e-6)
  whole = _classified(_colours(**PLAIN), image)
  assert whole.scores["red"] > whole.scores["green"]  # three quarters of the image


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(side, tmp_path, orientation):
  upright = _plain(8, 8, (0, 0, 0))
  upright[:, :4] = 255
  upright[:3] //= 2  # brightest on the left, and towards the bottom
  stored = {
    1: upright,
    2: upright[:, ::-1],
    3: upright[::-1, ::-1],
    4: upright[::-1],
    5: upright.swapaxes(0, 1),
    6: np.rot90(upright),  # row 0 is the right edge of the upright image, top first
    7: upright[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90(upright, -1),  # row 0 is the left edge, bottom first
  }
  exif = Image.Exif()
  exif[0x0112] = orientation
  path = tmp_path / "photo.png"
  Image.fromarray(np.ascontiguousarray(stored[orientation])).save(path, exif=exif)
  (prediction,) = side.predict([path])
  assert prediction.image == str(path)
  assert prediction.faces[0].expression == "left"
  assert prediction.faces[0].scores == _classified(side, upright).scores


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7])
def test_order_is_kept_and_the_last_batch_is_padded(count):
  images = [_plain(5 + i, 9, (30 * i, 0, 0)) for i in range(count)]
  predictions = _colours(**PLAIN).predict(images)
  expected = [_softmax([30 * i / 255, 0, 0])[0] for i in range(count)]
  assert [p.faces[0].scores["red"] for p in predictions] == pytest.approx(expected, abs=1e-6)


def test_all_calls_share_one_program():
  classifier = _colours()
  for height, width, count in ((1, 20, 1), (30, 3, 2), (8, 8, 7)):
    classifier.predict([_plain(height, width, (9, 9, 9))] * count)
  assert classifier._classify._cache_size() == 1


def test_crops_are_classified_like_images(side):
  images = [_plain(6, 6, (9 * i, 0, 0)) for i in range(4)]
  images[1][:3] = 255
  expected = [prediction.faces[0] for prediction in side.predict(images)]
  assert list(side.classify_crops(iter(images))) == expected
  assert expected[1].expression == "top"


def test_bad_files(side, tmp_path):
  good, bad = tmp_path / "a.png", tmp_path / "b.png"
  Image.fromarray(_plain(4, 4, (9, 9, 9))).save(good)
  bad.write_bytes(b"no image")
  with pytest.raises(ImageError, match=r"b\.png"):
    side.predict([good, bad])
  reported = []
  on_bad_image = lambda path, _: reported.append(path)  # noqa: E731
  results = list(side.predict_files([bad, good], on_bad_image=on_bad_image))
  assert [prediction.image for prediction, _ in results] == [str(good)]
  assert reported == [str(bad)]
  np.testing.assert_array_equal(results[0][1], _plain(4, 4, (9, 9, 9)))


def test_wrong_settings(classifier_checkpoint):
  with pytest.raises(ValueError, match="batch_size is 0; expected at least 1"):
    ExpressionClassifier.from_model(Colour(), {}, COLOURS, 8, batch_size=0)
  with pytest.raises(ValueError, match="batch_size is -1"):
    ExpressionClassifier(classifier_checkpoint, batch_size=-1)
  with pytest.raises(ValueError, match=r"resize \(7\) must be at least the size of the view \(8\)"):
    _colours(resize=7)


def test_class_names_must_fit_the_model():
  classifier = ExpressionClassifier.from_model(Colour(), {}, ("one", "two"), 8)
  with pytest.raises(ValueError, match=r"shape \(8, 3\)"):
    classifier.predict([_plain(8, 8, (0, 0, 0))])


@pytest.fixture(scope="module")
def real(classifier_checkpoint):
  return ExpressionClassifier(classifier_checkpoint, batch_size=3)


def test_a_checkpoint_describes_itself(real, classifier_checkpoint):
  assert real.class_names == ("happiness", "anger", "surprise")
  assert (real.image_size, real.step) == (32, 5)
  with pytest.raises(FileNotFoundError, match="no checkpoint of step 4"):
    ExpressionClassifier(classifier_checkpoint, step=4)


def test_predictions_match_the_model(real, classifier_checkpoint, photographs, check_same_face):
  """Every step spelled out: short side 40, centre crop 32, the checkpoint's normalisation."""
  image = Image.fromarray(photographs[1]).resize((72, 40), Image.Resampling.BILINEAR)
  pixels = np.asarray(image.crop((20, 4, 52, 36))) / 255
  pixels = (pixels - [[[0.5, 0.4, 0.3]]]) / [[[0.25, 0.3, 0.2]]]
  model = create_model("fermam", num_classes=3, size="nano")
  logits = jax.jit(lambda *inputs: model.apply(*inputs, train=False).logits)(
    load_variables(classifier_checkpoint), jnp.asarray(pixels[None], jnp.float32)
  )
  face = _classified(real, photographs[1])
  scores = dict(zip(real.class_names, _softmax(logits[0]), strict=True))
  best = max(scores, key=scores.__getitem__)
  check_same_face(face, Face(None, scores[best], best, scores))


def test_a_batch_equals_single_images(real, photographs, check_same_face):
  together = real.predict(photographs)
  alone = [real.predict([photograph])[0] for photograph in photographs]
  scores = [list(prediction.faces[0].scores.values()) for prediction in together]
  assert np.std(scores, axis=0).min() > 1e-3
  for a, b in zip(together, alone, strict=True):
    check_same_face(a.faces[0], b.faces[0])


def test_another_task_is_an_error(tiny_checkpoint):
  with pytest.raises(ValueError, match="task 'detection'; expected 'classification'"):
    ExpressionClassifier(tiny_checkpoint)

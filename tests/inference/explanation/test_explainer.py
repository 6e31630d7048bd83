"""With networks whose gradients can be computed by hand, and with real checkpoints."""

import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import ferjax
from ferjax.inference.classification import ExpressionClassifier
from ferjax.inference.detection import Predictor
from ferjax.inference.explanation.explainer import ClassifierExplainer, DetectorExplainer
from ferjax.inference.explanation.saliency import apply_capturing
from ferjax.models import create_model
from ferjax.ops.sampling import affine_grid, grid_sample
from ferjax.typing import ClassifierOutput, DetectorOutput
from ferjax.weights.defaults import DEFAULT_CLASSIFIER

PORTRAITS = pathlib.Path(__file__).parents[2] / "photographs" / "portraits.jpg"
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
NAMES = ("red", "green", "blue")


class Pool(nn.Module):
  """Average pooling, one map per side."""

  sides: tuple[int, ...]

  def __call__(self, image):
    maps = tuple(nn.avg_pool(image, (side, side), (side, side)) for side in self.sides)
    return maps if len(maps) > 1 else maps[0]


class Colour(nn.Module):
  """The logit of a colour is its sum of squares over 4-pixel cells, minus that of the others."""

  @nn.compact
  def __call__(self, image, *, train):
    squares = (Pool((4,), name="map")(image) ** 2).sum((1, 2))
    logits = 2 * squares - squares.sum(-1, keepdims=True)
    return ClassifierOutput(logits, logits)


class Spot(nn.Module):
  """A bright cell of 8 or 16 pixels in a channel is a face of that class."""

  @nn.compact
  def __call__(self, image, *, train):
    levels = []
    for cells in Pool((8, 16), name="neck")(image):
      logits = 20 * (cells - 0.5)
      center = jnp.full_like(cells[..., :2], 0.5)
      objectness = 8 * (cells.max(-1, keepdims=True) - 0.5)
      levels.append(jnp.concatenate([center, 0 * center, objectness, logits], axis=-1))
    return DetectorOutput(tuple(levels))


def _only(explainer, image):
  (explained,) = explainer.explain([image])
  return explained


@pytest.fixture(scope="module")
def colour():
  return ExpressionClassifier.from_model(Colour(), {}, NAMES, 8, batch_size=1, **PLAIN)


@pytest.fixture(scope="module")
def spot():
  return Predictor.from_model(Spot(), {}, NAMES, 32, batch_size=1, max_detections=5, **PLAIN)


@pytest.fixture
def wide():
  """24x8; the model gets the middle: red above, green below on the right."""
  image = np.full((8, 24, 3), 51, np.uint8)
  image[:4, 8:16] = (255, 0, 0)
  image[4:, 12:16] = (0, 102, 0)
  return image


def test_contributions_by_hand(colour, wide):
  explained = _only(ClassifierExplainer(colour, layer="map"), wide)
  assert explained.path is None
  np.testing.assert_array_equal(explained.pixels, wide)
  (explanation,) = explained.explanations
  assert (explanation.target, explanation.layer) == ("red", "map")
  # Feature times gradient: twice the squares, positive for red only.
  corner = 2 * (1 - 1 - 1) * 0.2**2
  np.testing.assert_allclose(explanation.cells, [[2, 2], [corner, -2 * 0.4**2]], atol=1e-6)
  assert explanation.peak == pytest.approx(2)
  np.testing.assert_allclose(explanation.to_image, [[8, 0, 8], [0, 8, 0]], atol=1e-5)
  assert explanation.view == pytest.approx((8, 0, 16, 8))
  assert explanation.theta is None


def test_the_face_is_the_prediction(colour, wide):
  (explanation,) = _only(
    ClassifierExplainer(colour, target="green", layer="map"), wide
  ).explanations
  (prediction,) = colour.predict([wide])
  (face,) = prediction.faces
  assert explanation.face.expression == face.expression == "red"
  assert explanation.face.scores == pytest.approx(face.scores, abs=1e-6)
  assert explanation.target == "green"
  assert explanation.score == explanation.face.scores["green"]


def test_the_face_has_the_settings_of_the_predictor(colour, wide):
  """Which predict another class here than the image alone: that one is explained."""
  predictor = ExpressionClassifier.from_model(
    Colour(),
    {},
    NAMES,
    8,
    batch_size=2,
    flip=True,
    logit_adjustment=2.0,
    temperature=0.5,
    class_prior=(0.98, 0.01, 0.01),
    **PLAIN,
  )
  explanation, alone = (
    _only(ClassifierExplainer(x, layer="map"), wide).explanations[0] for x in (predictor, colour)
  )
  ((face,),) = (found.faces for found in predictor.predict([wide]))
  assert explanation.face == face
  assert explanation.target == face.expression == "green" != alone.target
  green = _only(ClassifierExplainer(colour, target="green", layer="map"), wide).explanations[0]
  np.testing.assert_allclose(explanation.cells, green.cells, atol=1e-6)


def test_another_class_has_another_map(colour, wide):
  (explanation,) = _only(
    ClassifierExplainer(colour, target="green", layer="map"), wide
  ).explanations
  np.testing.assert_allclose(explanation.cells, [[-2, -2], [-0.08, 0.32]], atol=1e-6)


def test_a_class_may_have_no_evidence(colour, wide):
  (explanation,) = _only(ClassifierExplainer(colour, target="blue", layer="map"), wide).explanations
  assert explanation.cells.max() < 0
  assert explanation.peak == 0


def test_one_program_serves_every_image(colour, wide):
  explainer = ClassifierExplainer(colour, layer="map")
  images = [wide, wide[:, 8:16], np.zeros((5, 90, 3), np.uint8)]
  assert len(list(explainer.explain(images))) == 3
  assert explainer._program._cache_size() == 1


def test_wrong_arguments(colour, spot, wide):
  with pytest.raises(ValueError, match="unknown class 'pink'; known: red, green, blue"):
    ClassifierExplainer(colour, target="pink", layer="map")
  with pytest.raises(ValueError, match="unknown class 'pink'"):
    DetectorExplainer(spot, target="pink", layer="neck")
  with pytest.raises(ValueError, match="no feature map is known for Colour"):
    ClassifierExplainer(colour)
  with pytest.raises(ValueError, match="no feature map is known for Spot"):
    DetectorExplainer(spot)
  with pytest.raises(ValueError, match="calls no submodule 'stage3'"):
    _only(ClassifierExplainer(colour, layer="stage3"), wide)
  with pytest.raises(TypeError, match="takes a list of images, not one ndarray"):
    list(ClassifierExplainer(colour, layer="map").explain(wide))


@pytest.fixture
def scene():
  """32x16, moved down by 8 pixels in 32x32, with two faces of one class."""
  image = np.zeros((16, 32, 3), np.uint8)
  image[:8, :8] = (255, 0, 0)
  image[:8, 16:24] = (230, 0, 0)
  return image


def _contribution(brightness):
  """Of a one-channel cell to log(objectness * class): feature times derivative."""
  objectness, logit = 8 * (brightness - 0.5), 20 * (brightness - 0.5)
  return brightness * (8 / (1 + np.exp(objectness)) + 20 / (1 + np.exp(logit)))


def test_each_face_has_its_own_cells(spot, scene):
  explanations = _only(DetectorExplainer(spot, layer="neck"), scene).explanations
  assert [explanation.layer for explanation in explanations] == ["neck/0", "neck/0"]
  for explanation, column, brightness in zip(explanations, (0, 2), (255, 230), strict=True):
    expected = np.zeros((4, 4))
    expected[1, column] = _contribution(brightness / 255)
    np.testing.assert_allclose(explanation.cells, expected, rtol=1e-3, atol=1e-7)
    assert explanation.face.box == pytest.approx((8 * column, 0, 8 * column + 8, 8), abs=1e-3)
    np.testing.assert_allclose(explanation.to_image, [[32, 0, 0], [0, 32, -8]], atol=1e-4)
    assert explanation.view == (0, 0, 32, 16)
    heat, seen = explanation.heat((0.0, 0.0, 32.0, 16.0), 16, 32)
    assert seen.all()
    row, place = np.unravel_index(heat.argmax(), heat.shape)
    assert 0 <= row < 8
    assert 8 * column <= place < 8 * column + 8


def test_faces_are_those_of_the_predictor(spot, scene, check_same_face):
  (prediction,) = spot.predict([scene])
  explanations = _only(DetectorExplainer(spot, layer="neck"), scene).explanations
  for explanation, face in zip(explanations, prediction.faces, strict=True):
    check_same_face(explanation.face, face)


def test_a_large_face_is_explained_by_its_level(spot):
  image = np.zeros((32, 32, 3), np.uint8)
  image[16:, 16:] = (0, 0, 255)
  explanations = _only(DetectorExplainer(spot, layer="neck"), image).explanations
  by_layer = {explanation.layer: explanation.cells for explanation in explanations}
  assert by_layer["neck/1"].shape == (2, 2)
  np.testing.assert_allclose(by_layer["neck/1"], [[0, 0], [0, _contribution(1)]], atol=1e-4)


def test_another_class_of_a_detection(spot, scene):
  explanations = _only(DetectorExplainer(spot, target="blue", layer="neck"), scene).explanations
  assert [explanation.target for explanation in explanations] == ["blue", "blue"]
  # The blue channel is 0 there; only the objectness remains.
  expected = 8 / (1 + np.exp(4))
  assert explanations[0].cells[1, 0] == pytest.approx(expected, rel=1e-3)


def test_an_empty_image_has_no_explanations(spot):
  assert (
    _only(DetectorExplainer(spot, layer="neck"), np.zeros((9, 9, 3), np.uint8)).explanations == ()
  )


@pytest.fixture(scope="module")
def photograph():
  return np.random.default_rng(1).integers(0, 256, (50, 70, 3), np.uint8)


THETA = [[0.6, 0.1, 0.2], [-0.2, 0.7, -0.1]]


@pytest.fixture(scope="module")
def emonext():
  """Takes 64 pixels; its transformer does not depend on the image."""
  model = create_model("emonext", num_classes=3, size="atto")
  rng = np.random.default_rng(0)
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
  variables = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), shapes)
  variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])
  variables["params"]["stn"]["dense1"] = {
    "kernel": np.zeros((32, 6), np.float32),
    "bias": np.array(THETA, np.float32).ravel(),
  }
  return ExpressionClassifier.from_model(model, variables, NAMES, 64, batch_size=1, **PLAIN)


@pytest.fixture(scope="module")
def transformed(emonext, photograph):
  return _only(ClassifierExplainer(emonext, layer="stage3"), photograph).explanations[0]


def test_the_resampled_image(emonext, transformed, photograph):
  np.testing.assert_allclose(transformed.theta, THETA, rtol=1e-6)
  view = jnp.asarray(emonext._inputs(photograph)[None] / 255, jnp.float32)
  grid = affine_grid(jnp.array([THETA]), 64, 64, align_corners=True)
  expected = 255 * grid_sample(view, grid, align_corners=True)[0]
  assert np.abs(transformed.resampled - np.asarray(expected)).max() < 0.51


def test_the_map_is_on_the_sampled_region(transformed):
  """By hand: the corners in -1..1, then in pixels of the view, then of 70x50."""
  edge = 64 / 63  # the outer edge of the border pixels, whose centres are 1
  corners = edge * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
  theta = np.array(THETA)
  pixels = (corners @ theta[:, :2].T + theta[:, 2] + 1) * 63 / 2 + 0.5
  # 70x50 becomes 89x64; the crop drops 12 columns on the left.
  expected = (pixels + np.array([12, 0])) * [70 / 89, 50 / 64]
  np.testing.assert_allclose(transformed.outline, expected, atol=1e-3)
  assert transformed.view == pytest.approx((12 * 70 / 89, 0, 76 * 70 / 89, 50), abs=1e-3)


def test_emonext_is_explained_by_grad_cam(emonext, transformed, photograph):
  """Channel weights of the last map by finite differences of the head in float64."""
  assert (transformed.layer, transformed.cells.shape) == ("stage3", (2, 2))
  view = jnp.asarray(emonext._inputs(photograph)[None] / 255, jnp.float32)
  capture = jax.jit(lambda v, x: apply_capturing(emonext._model, v, x, ["stage3"]))
  output, seen = capture(emonext._variables, view)
  features = np.asarray(seen["stage3"][0], np.float64)
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), emonext._variables["params"])
  label = NAMES.index(transformed.target)

  def logit(means):
    centred = means - means.mean(-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    normal = normal * params["norm"]["scale"] + params["norm"]["bias"]
    return (normal @ params["head"]["kernel"] + params["head"]["bias"])[..., label]

  means = features.mean((0, 1))
  assert logit(means) == pytest.approx(float(output.logits[0, label]), rel=1e-3)
  steps = 1e-5 * np.eye(len(means))
  weights = (logit(means + steps) - logit(means - steps)) / 2e-5
  expected = features @ weights / 4
  scale = np.abs(expected).max()
  np.testing.assert_allclose(transformed.cells / scale, expected / scale, atol=2e-3)


@pytest.mark.slow  # 30 s: compiles EmoNeXt and its gradient
def test_hiding_the_evidence_lowers_the_score():
  """Of the default weights, on the portraits: the hottest eighth against the coldest."""
  predictor = ferjax.load_predictor(DEFAULT_CLASSIFIER, batch_size=3)
  with Image.open(PORTRAITS) as file:
    whole = np.asarray(file.convert("RGB"))
  faces = [whole[65:235, 320 * i + 75 : 320 * i + 245] for i in range(3)]
  maps, hidden = [], {"hottest": [], "coldest": []}
  for explained in ClassifierExplainer(predictor).explain(faces):
    (explanation,) = explained.explanations
    assert explanation.cells.shape == (8, 8)
    maps.append(explanation.heat((0.0, 0.0, 170.0, 170.0), 170, 170)[0])
  for face, heat in zip(faces, maps, strict=True):
    order = heat.ravel().argsort(kind="stable")
    for name, pixels in (
      ("hottest", order[-heat.size // 8 :]),
      ("coldest", order[: heat.size // 8]),
    ):
      image = face.reshape(-1, 3).copy()
      image[pixels] = face.mean((0, 1))
      hidden[name].append(image.reshape(face.shape))
  seen = [prediction.faces[0] for prediction in predictor.predict(faces)]

  def decrease(name):
    after = [prediction.faces[0] for prediction in predictor.predict(hidden[name])]
    return np.mean(
      [np.log(a.score / b.scores[a.expression]) for a, b in zip(seen, after, strict=True)]
    )

  assert decrease("hottest") > 2 * abs(decrease("coldest"))

"""With `Spot`, whose output can be computed by hand, and with a real checkpoint."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from PIL import Image

from ferjax.checkpoint import load_variables, open_checkpoint
from ferjax.data.image import IMAGENET_MEAN, IMAGENET_STD, ImageError, letterbox, luma, normalize
from ferjax.expressions import SEVEN_EXPRESSIONS
from ferjax.inference.detection import Predictor
from ferjax.inference.results import Face
from ferjax.models import create_model
from ferjax.tasks.detection.task import DetectionTask
from ferjax.typing import DetectorOutput

NAMES = ("red", "green", "blue")


class Spot(nn.Module):
  """Cells of 8 pixels; a cell brighter than 0.75 in a channel is a face of that class."""

  @nn.compact
  def __call__(self, image, *, train):
    rgb = (
      image * jnp.array(IMAGENET_STD)[None, None, None] + jnp.array(IMAGENET_MEAN)[None, None, None]
    )
    cells = nn.avg_pool(rgb, (8, 8), (8, 8))
    brightest = cells.max(axis=-1, keepdims=True)
    center = jnp.full_like(cells[..., :2], 0.5)
    level = [center, jnp.zeros_like(center), 40 * (brightest - 0.75), 40 * (cells - 0.75)]
    return DetectorOutput((jnp.concatenate(level, axis=-1),))


@pytest.fixture(scope="module")
def spot():
  return Predictor.from_model(Spot(), {}, NAMES, 64, batch_size=3)


def _scene(height, width, box, color=(255, 0, 0)):
  image = np.full((height, width, 3), 40, np.uint8)
  x1, y1, x2, y2 = box
  image[y1:y2, x1:x2] = color
  return image


def test_a_box_is_in_pixels_of_the_original(spot):
  # 128x64 is halved and moved down by 16: original (32, 16)..(48, 32) is one cell of the input.
  (prediction,) = spot.predict([_scene(64, 128, (32, 16, 48, 32), (0, 255, 0))])
  assert (prediction.image, prediction.width, prediction.height) == (None, 128, 64)
  (face,) = prediction.faces
  assert face.box == pytest.approx((32, 16, 48, 32), abs=1e-3)


def test_a_grey_detector_sees_luma(spot):
  grey = Predictor.from_model(Spot(), {}, NAMES, 64, batch_size=3, grey=True)
  image = _scene(64, 64, (8, 16, 16, 24), (255, 200, 255))  # of luma 223
  (expected,) = spot.predict([np.repeat(luma(image), 3, axis=2)])
  (face,) = grey.predict([image])[0].faces
  assert face.box == pytest.approx(expected.faces[0].box)
  assert face.scores == pytest.approx(expected.faces[0].scores)
  assert len(set(face.scores.values())) == 1
  (coloured,) = spot.predict([image])[0].faces
  assert len(set(coloured.scores.values())) > 1


@pytest.fixture
def compilations(tmp_path):
  """A list that grows with each compiled program that is not cached."""
  settings = {
    "jax_compilation_cache_dir": str(tmp_path / "jax"),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
  }
  before = {name: getattr(jax.config, name) for name in settings}
  seen = []

  def note(event, **_):
    if event == "/jax/compilation_cache/cache_misses":
      seen.append(event)

  def use(values):
    for name, value in values.items():
      jax.config.update(name, value)
    compilation_cache.reset_cache()

  use(settings)
  jax.monitoring.register_event_listener(note)
  yield seen
  jax.monitoring.unregister_event_listener(note)
  use(before)


def test_other_thresholds_do_not_recompile(compilations):
  def count(**thresholds):
    predictor = Predictor.from_model(Spot(), {}, NAMES, 64, batch_size=1, **thresholds)
    # The face's score is 0.37.
    (prediction,) = predictor.predict([_scene(64, 64, (8, 16, 16, 24), (194, 40, 40))])
    return len(prediction.faces)

  assert count(score_threshold=0.9, iou_threshold=0.3) == 0
  compiled = len(compilations)
  assert compiled > 0
  assert count(score_threshold=0.25, iou_threshold=0.75) == 1
  assert count(score_threshold=0.0, iou_threshold=1.0) == 64
  assert len(compilations) == compiled


def test_the_scores_of_a_face(spot):
  (prediction,) = spot.predict([_scene(64, 64, (8, 16, 16, 24), (0, 255, 0))])
  (face,) = prediction.faces
  assert face.expression == "green"
  assert face.score == pytest.approx(0.9999546**2, abs=1e-6)  # sigmoid(40 * 0.25) twice
  assert list(face.scores) == list(NAMES)
  assert face.scores["green"] == face.score
  assert face.scores["red"] < 1e-6


def test_faces_are_sorted_by_decreasing_score(spot):
  image = _scene(64, 64, (0, 0, 8, 8), (215, 0, 0))
  image[16:24, 40:48] = (0, 0, 255)
  image[56:64, 56:64] = (0, 205, 0)
  (prediction,) = spot.predict([image])
  assert [face.expression for face in prediction.faces] == ["blue", "red", "green"]
  assert [face.box[:2] for face in prediction.faces] == [(40, 16), (0, 0), (56, 56)]


def test_a_dark_image_has_no_faces(spot):
  assert spot.predict([_scene(64, 64, (0, 0, 0, 0))])[0].faces == ()


def test_no_images_no_predictions(spot):
  assert spot.predict([]) == []


def test_one_box_a_face_by_default():
  """Cells of 16 pixels at a distance of 8: neighbours have an IoU of 1/3."""

  class Twice(nn.Module):
    @nn.compact
    def __call__(self, image, *, train):
      (level,) = Spot()(image, train=train).levels
      return DetectorOutput((level.at[..., 2:4].set(jnp.log(2.0)),))

  image = _scene(64, 64, (8, 16, 16, 24), (255, 0, 0))
  image[16:24, 16:24] = (0, 240, 0)

  def faces(**settings):
    predictor = Predictor.from_model(Twice(), {}, NAMES, 64, batch_size=1, **settings)
    return predictor.predict([image])[0].faces

  (face,) = faces()
  assert (face.expression, list(face.scores)) == ("red", list(NAMES))
  assert [face.expression for face in faces(per_class_nms=True)] == ["red", "green"]
  assert len(faces(iou_threshold=0.4)) == 2


def test_settings_reach_the_postprocessing():
  image = _scene(64, 64, (0, 0, 16, 16), (200, 0, 0))  # four cells
  score = float(1 / (1 + np.exp(-40 * (200 / 255 - 0.75)))) ** 2

  def count(**settings):
    predictor = Predictor.from_model(Spot(), {}, NAMES, 64, batch_size=1, **settings)
    return len(predictor.predict([image])[0].faces)

  assert count(score_threshold=score - 0.01) == 4
  assert count(score_threshold=score + 0.01) == 0
  assert count(max_detections=3) == 3


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_order_is_kept_and_the_last_batch_is_padded(spot, count):
  images = [_scene(64, 64, (8 * i, 0, 8 * i + 8, 8)) for i in range(count)]
  predictions = spot.predict(images)
  assert [p.faces[0].box[0] for p in predictions] == [8 * i for i in range(count)]
  assert [len(p.faces) for p in predictions] == [1] * count


def test_all_calls_share_one_program():
  predictor = Predictor.from_model(Spot(), {}, NAMES, 64, batch_size=2)
  for height, width, count in ((10, 20, 1), (300, 30, 2), (64, 64, 5)):
    predictor.predict([np.zeros((height, width, 3), np.uint8)] * count)
  assert predictor._detect._cache_size() == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_a_rotated_photograph_are_upright(spot, tmp_path, orientation):
  upright = _scene(32, 64, (48, 8, 56, 16))
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
  (prediction,) = spot.predict([path])
  assert (prediction.width, prediction.height) == (64, 32)
  assert prediction.faces[0].box == pytest.approx((48, 8, 56, 16), abs=1e-3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_mode_gives_the_box(spot, tmp_path, mode):
  rgb = Image.fromarray(_scene(64, 64, (24, 32, 32, 40), (255, 255, 255)))
  if mode == "I;16":
    grey = np.asarray(rgb.convert("L")).astype(np.uint16) * 257
    image = Image.fromarray(grey)
    assert image.mode == mode
  else:
    image = rgb.point(lambda v: 255 * (v > 128)).convert(mode)
  path = tmp_path / ("photo.tif" if mode == "CMYK" else "photo.png")
  image.save(path)
  (prediction,) = spot.predict([path])
  assert prediction.image == str(path)
  assert [face.box for face in prediction.faces] == [pytest.approx((24, 32, 32, 40), abs=1e-3)]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (300, 1), (100, 4000)])
def test_boxes_lie_inside_images_of_any_size(spot, height, width):
  (prediction,) = spot.predict([np.full((height, width, 3), 255, np.uint8)])
  assert (prediction.width, prediction.height) == (width, height)
  for face in prediction.faces:
    x1, y1, x2, y2 = face.box
    assert 0 <= x1 < x2 <= width
    assert 0 <= y1 < y2 <= height


def test_a_white_panorama_has_faces(spot):
  (prediction,) = spot.predict([np.full((100, 400, 3), 255, np.uint8)])
  assert len(prediction.faces) == 16  # two rows of eight cells


def test_files_are_yielded_with_their_pixels(spot, tmp_path):
  images = [_scene(64, 64, (8 * i, 0, 8 * i + 8, 8)) for i in range(8)]
  paths = [tmp_path / f"{i}.png" for i in range(8)]
  for image, path in zip(images, paths, strict=True):
    Image.fromarray(image).save(path)
  results = list(spot.predict_files(path for path in paths))
  assert [prediction.image for prediction, _ in results] == [str(path) for path in paths]
  assert [prediction for prediction, _ in results] == spot.predict(paths)
  for (_, pixels), image in zip(results, images, strict=True):
    np.testing.assert_array_equal(pixels, image)


def test_bad_files_are_skipped_on_request(spot, tmp_path):
  good, bad, missing = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"
  Image.fromarray(_scene(64, 64, (0, 0, 8, 8))).save(good)
  bad.write_bytes(good.read_bytes()[:60])
  reported = []
  results = spot.predict_files(
    [bad, good, missing, good], on_bad_image=lambda path, error: reported.append((path, str(error)))
  )
  assert [prediction.image for prediction, _ in results] == [str(good)] * 2
  assert [path for path, _ in reported] == [str(bad), str(missing)]
  assert all(message.startswith(path) for path, message in reported)


def test_bad_files_are_errors_by_default(spot, tmp_path):
  (tmp_path / "b.png").write_bytes(b"no image")
  with pytest.raises(ImageError, match=r"b\.png"):
    spot.predict([tmp_path / "b.png"])
  results = spot.predict_files([tmp_path / "missing.png"])
  with pytest.raises(ImageError, match=r"missing\.png"):
    next(results)


@pytest.mark.parametrize(
  ("image", "error", "message"),
  [
    (np.zeros((4, 4), np.uint8), ValueError, r"shape \(4, 4\); expected \(height, width, 3\)"),
    (np.zeros((4, 4, 4), np.uint8), ValueError, r"shape \(4, 4, 4\)"),
    (np.zeros((0, 4, 3), np.uint8), ValueError, r"shape \(0, 4, 3\)"),
    (np.zeros((4, 4, 3), np.float32), TypeError, "dtype float32; expected uint8"),
  ],
)
def test_wrong_arrays(spot, image, error, message):
  with pytest.raises(error, match=message):
    spot.predict([image])


@pytest.mark.parametrize("image", ["photo.jpg", np.zeros((4, 4, 3), np.uint8)])
def test_one_image_instead_of_a_list(spot, image):
  with pytest.raises(TypeError, match="takes a list of images"):
    spot.predict(image)


@pytest.mark.parametrize(
  ("setting", "message"),
  [
    ({"batch_size": 0}, "batch_size is 0; expected at least 1"),
    ({"max_detections": -1}, "max_detections is -1"),
    ({"score_threshold": 1.5}, r"score_threshold is 1.5; expected 0\.\.1"),
    ({"iou_threshold": -0.1}, "iou_threshold is -0.1"),
    ({"iou_threshold": float("nan")}, "iou_threshold is nan"),
  ],
)
def test_wrong_settings(tmp_path, setting, message):
  with pytest.raises(ValueError, match=message):
    Predictor.from_model(Spot(), {}, NAMES, 64, **setting)
  with pytest.raises(ValueError, match=message):
    Predictor(tmp_path, **setting)


def test_class_names_must_fit_the_model():
  predictor = Predictor.from_model(Spot(), {}, ("one", "two"), 64)
  with pytest.raises(ValueError, match="2 classes need"):
    predictor.predict([np.zeros((8, 8, 3), np.uint8)])


@pytest.fixture(scope="module")
def real(tiny_checkpoint):
  return Predictor(tiny_checkpoint, batch_size=3, score_threshold=0.5)


def test_a_checkpoint_describes_itself(real, tiny_checkpoint):
  assert real.class_names == SEVEN_EXPRESSIONS
  assert (real.image_size, real.step) == (64, 3)
  with pytest.raises(FileNotFoundError, match="no checkpoint of step 4"):
    Predictor(tiny_checkpoint, step=4)


def test_predictions_match_model_and_postprocessing(
  real, tiny_checkpoint, photographs, check_same_faces
):
  """Without the predictor's own batches and threads."""
  model = create_model("fer_yolo_mamba", num_classes=7, size="nano")
  task = DetectionTask(SEVEN_EXPRESSIONS)
  square, placement = letterbox(photographs[1], 64)

  @jax.jit
  def detect(variables, image, placement):
    return task.postprocess(
      model.apply(variables, image, train=False),
      image_size=64,
      placement=placement,
      score_threshold=0.5,
      iou_threshold=0.3,
      max_detections=100,
      per_class_nms=False,
    )

  expected = detect(load_variables(tiny_checkpoint), normalize(square)[None], placement[None])
  found = [
    Face(
      box=tuple(map(float, expected.boxes[0, row])),
      score=float(expected.scores[0, row]),
      expression=SEVEN_EXPRESSIONS[expected.labels[0, row]],
      scores=dict(zip(SEVEN_EXPRESSIONS, map(float, expected.class_scores[0, row]), strict=True)),
    )
    for row in range(int(expected.mask[0].sum()))
  ]
  (prediction,) = real.predict([photographs[1]])
  assert len(prediction.faces) > 0
  check_same_faces(prediction.faces, found, score_threshold=0.5)
  for face in prediction.faces:
    assert face.score == max(face.scores.values())


def test_images_are_normalised_with_the_checkpoint_statistics(monkeypatch, tiny_checkpoint):
  mean, std = [0.4, 0.4, 0.4], [2 * deviation for deviation in IMAGENET_STD]
  opened = open_checkpoint(tiny_checkpoint)
  meta = opened.meta | {"mean": mean, "std": std, "class_names": NAMES}
  monkeypatch.setattr("ferjax.inference.detection.create_model", lambda **_: Spot())
  predictor = Predictor(dataclasses.replace(opened, meta=meta))
  (prediction,) = predictor.predict([_scene(64, 64, (8, 16, 16, 24))])
  (face,) = prediction.faces
  # Spot undoes the usual normalisation, so red becomes (1 - 0.4) / 2 + 0.485.
  assert face.score == pytest.approx((1 / (1 + np.exp(-40 * (0.785 - 0.75)))) ** 2, abs=1e-4)


def test_a_batch_equals_single_images(real, photographs, check_same_faces):
  together = real.predict(photographs)
  alone = [real.predict([photograph])[0] for photograph in photographs]
  assert sum(len(prediction.faces) for prediction in alone) > 5
  for a, b in zip(together, alone, strict=True):
    assert (a.width, a.height) == (b.width, b.height)
    check_same_faces(a.faces, b.faces, score_threshold=0.5)


def test_another_task_is_an_error(classifier_checkpoint):
  with pytest.raises(ValueError, match="task 'classification'; expected 'detection'"):
    Predictor(classifier_checkpoint)


def test_a_folder_without_checkpoint(tmp_path):
  with pytest.raises(FileNotFoundError, match="no checkpoint in"):
    Predictor(tmp_path)

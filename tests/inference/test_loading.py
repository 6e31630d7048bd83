import dataclasses
import json
import shutil

import numpy as np
import pytest
from etils import epath

import ferjax
from ferjax.checkpoint import open_checkpoint
from ferjax.inference.classification import ExpressionClassifier
from ferjax.inference.detection import Predictor
from ferjax.inference.loading import load_predictor
from ferjax.inference.two_stage import DetectAndClassify
from ferjax.weights import DEFAULT_CLASSIFIER, DEFAULT_DETECTOR, save_weights


def test_it_is_a_public_name():
  assert ferjax.load_predictor is load_predictor


def test_a_detector(tiny_checkpoint):
  predictor = load_predictor(
    tiny_checkpoint, batch_size=2, score_threshold=0.0, iou_threshold=0.25, max_detections=7
  )
  assert isinstance(predictor, Predictor)
  assert (predictor.step, predictor.batch_size) == (3, 2)
  assert predictor.settings == {
    "score_threshold": 0,
    "iou_threshold": 0.25,
    "max_detections": 7,
    "per_class_nms": False,
  }
  assert load_predictor(tiny_checkpoint).settings == Predictor(tiny_checkpoint).settings


def test_a_classifier(classifier_checkpoint):
  predictor = load_predictor(classifier_checkpoint, step=5, batch_size=2)
  assert isinstance(predictor, ExpressionClassifier)
  assert (predictor.step, predictor.batch_size, predictor.settings) == (5, 2, {})


def test_a_classifier_with_a_detector(classifier_checkpoint, tiny_checkpoint):
  predictor = load_predictor(
    classifier_checkpoint, detector=tiny_checkpoint, crop_scale=1.5, score_threshold=0.75
  )
  assert isinstance(predictor, DetectAndClassify)
  assert predictor.step == 5
  settings = predictor.settings
  assert (settings["detector_step"], settings["crop_scale"]) == (3, 1.5)
  assert (settings["score_threshold"], settings["iou_threshold"]) == (0.75, 0.3)


def test_the_step_is_that_of_the_classifier(classifier_checkpoint, tiny_checkpoint):
  assert load_predictor(classifier_checkpoint, step=5, detector=tiny_checkpoint).step == 5
  with pytest.raises(FileNotFoundError, match="no checkpoint of step 3"):
    load_predictor(classifier_checkpoint, step=3, detector=tiny_checkpoint)


def test_a_detector_for_a_detector(tiny_checkpoint):
  with pytest.raises(ValueError, match="is a detector, which classifies expressions itself"):
    load_predictor(tiny_checkpoint, detector=tiny_checkpoint)


def test_a_classifier_as_the_detector(classifier_checkpoint):
  with pytest.raises(
    ValueError, match=r"the detector .* is a classifier, which does not detect faces"
  ):
    load_predictor(classifier_checkpoint, detector=classifier_checkpoint)


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("score_threshold", 0.0),
    ("iou_threshold", 0.5),
    ("max_detections", 3),
    ("crop_scale", 1.2),
    ("crop_margin", 0.1),
    ("per_class_nms", True),
    ("image_size", 64),
  ],
)
def test_settings_of_a_detector_for_a_classifier_alone(classifier_checkpoint, name, value):
  with pytest.raises(ValueError, match=f"{name} is {value}, but does not apply here"):
    load_predictor(classifier_checkpoint, **{name: value})


def test_a_detector_takes_no_crop_scale(tiny_checkpoint):
  with pytest.raises(ValueError, match=r"crop_scale is 1\.2, but does not apply here"):
    load_predictor(tiny_checkpoint, crop_scale=1.2)
  with pytest.raises(ValueError, match=r"flip is True, but does not apply here"):
    load_predictor(tiny_checkpoint, flip=True)


def test_suppression_per_class(tiny_checkpoint, classifier_checkpoint):
  assert load_predictor(tiny_checkpoint, per_class_nms=True).settings["per_class_nms"]
  with pytest.raises(ValueError, match="per_class_nms is True, but does not apply here"):
    load_predictor(classifier_checkpoint, detector=tiny_checkpoint, per_class_nms=True)


def test_another_size_of_the_detectors_input(tiny_checkpoint, classifier_checkpoint):
  alone = load_predictor(tiny_checkpoint, image_size=96)
  assert isinstance(alone, Predictor)
  assert (alone.image_size, alone.settings["image_size"]) == (96, 96)
  (prediction,) = alone.predict([np.zeros((20, 10, 3), np.uint8)])
  assert (prediction.width, prediction.height) == (10, 20)
  both = load_predictor(classifier_checkpoint, detector=tiny_checkpoint, image_size=96)
  assert both.settings["image_size"] == 96
  for size in (0, -32, 72):
    with pytest.raises(ValueError, match=f"image_size is {size}; it must be divisible by 32"):
      load_predictor(tiny_checkpoint, image_size=size)


def test_the_default_weights(tiny_checkpoint, classifier_checkpoint, tmp_path, monkeypatch):
  monkeypatch.setenv("FERJAX_WEIGHTS", str(tmp_path))
  detector, classifier = (
    tmp_path / f"{name}.safetensors" for name in (DEFAULT_DETECTOR, DEFAULT_CLASSIFIER)
  )
  settings = {"score_threshold": 0.6, "iou_threshold": 0.4}
  save_weights(tiny_checkpoint, detector, settings=settings)
  settings = {"crop_margin": (0.1, 0.3, 0.1, 0.0), "flip": True, "temperature": 0.5}
  save_weights(classifier_checkpoint, classifier, settings=settings)
  default = load_predictor()
  assert isinstance(default, DetectAndClassify)
  assert default.class_names == ("happiness", "anger", "surprise")
  assert default.settings == {
    "detector_step": 3,
    "score_threshold": 0.6,
    "iou_threshold": 0.4,
    "max_detections": 100,
    "per_class_nms": False,
    "flip": True,
    "temperature": 0.5,
    "crop_margin": [0.1, 0.3, 0.1, 0.0],
  }
  assert load_predictor(score_threshold=0.2, crop_scale=1.5, flip=False).settings == {
    "detector_step": 3,
    "score_threshold": 0.2,
    "iou_threshold": 0.4,
    "max_detections": 100,
    "per_class_nms": False,
    "temperature": 0.5,
    "crop_scale": 1.5,
  }
  # Another detector, with the default classifier.
  assert load_predictor(detector=tiny_checkpoint).settings["score_threshold"] == 0.3
  alone = load_predictor(DEFAULT_CLASSIFIER)
  assert isinstance(alone, ExpressionClassifier)
  assert alone.crop_margin == (0.1, 0.3, 0.1, 0.0)
  plain = ExpressionClassifier(DEFAULT_CLASSIFIER, flip=False, temperature=1.0)
  assert plain.settings == {}


def test_another_task(tiny_checkpoint):
  opened = open_checkpoint(tiny_checkpoint)
  other = dataclasses.replace(opened, meta=opened.meta | {"task": "regression"})
  with pytest.raises(ValueError, match="'regression'; expected 'detection' or 'classification'"):
    load_predictor(other)


def test_one_step_is_loaded_while_a_run_saves_others(classifier_checkpoint, tmp_path, monkeypatch):
  """After each read of a description, a newer checkpoint with other classes is saved."""
  folder = tmp_path / "checkpoints"
  read_text = type(epath.Path()).read_text

  def save(step, names):
    copy = shutil.copytree(classifier_checkpoint / "checkpoints" / "5", folder / str(step))
    file = copy / "meta" / "metadata"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"step": step, "class_names": names}))

  def read_and_save(path, *rest):
    text = read_text(path, *rest)
    if path.name == "metadata":
      step = 1 + max(int(saved.name) for saved in folder.iterdir())
      save(step, [f"{name} {step}" for name in "abc"])
    return text

  save(5, ["a", "b", "c"])
  monkeypatch.setattr(type(epath.Path()), "read_text", read_and_save)
  predictor = load_predictor(tmp_path)
  assert (predictor.step, predictor.class_names) == (5, ("a", "b", "c"))
  assert len(list(folder.iterdir())) == 2, "a checkpoint is resolved once"
  (prediction,) = predictor.predict([np.zeros((32, 32, 3), np.uint8)])
  assert prediction.faces[0].scores.keys() == {"a", "b", "c"}


def test_a_newer_version_is_named(classifier_checkpoint, tmp_path):
  workdir = shutil.copytree(classifier_checkpoint, tmp_path / "newer")
  file = workdir / "checkpoints" / "5" / "meta" / "metadata"
  meta = json.loads(file.read_text())
  file.write_text(json.dumps(meta | {"config": {"data": {"new_field": 1}}}))
  with pytest.raises(ValueError, match=r"written by ferjax 0\.1\.0.*know: config\.data\.new_field"):
    load_predictor(workdir)


def test_no_checkpoint(classifier_checkpoint, tmp_path):
  with pytest.raises(FileNotFoundError, match="no checkpoint in"):
    load_predictor(tmp_path)
  with pytest.raises(FileNotFoundError, match="no checkpoint in"):
    load_predictor(classifier_checkpoint, detector=tmp_path)

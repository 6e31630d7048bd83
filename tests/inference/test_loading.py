import pytest

import ferjax
from ferjax.checkpoint import load_meta
from ferjax.inference.classification import ExpressionClassifier
from ferjax.inference.detection import Predictor
from ferjax.inference.loading import load_predictor
from ferjax.inference.two_stage import DetectAndClassify


def test_it_is_a_public_name():
  assert ferjax.load_predictor is load_predictor


def test_a_detector(tiny_checkpoint):
  predictor = load_predictor(
    tiny_checkpoint, batch_size=2, score_threshold=0.0, iou_threshold=0.25, max_detections=7
  )
  assert isinstance(predictor, Predictor)
  assert (predictor.step, predictor.batch_size) == (3, 2)
  assert predictor.settings == {"score_threshold": 0, "iou_threshold": 0.25, "max_detections": 7}
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
  with pytest.raises(ValueError, match="holds a detector, which names the expressions by itself"):
    load_predictor(tiny_checkpoint, detector=tiny_checkpoint)


def test_a_classifier_as_the_detector(classifier_checkpoint):
  with pytest.raises(ValueError, match=r"the detector .* holds a classifier, which finds no faces"):
    load_predictor(classifier_checkpoint, detector=classifier_checkpoint)


@pytest.mark.parametrize(
  ("name", "value"),
  [("score_threshold", 0.0), ("iou_threshold", 0.5), ("max_detections", 3), ("crop_scale", 1.2)],
)
def test_settings_of_a_detector_for_a_classifier_alone(classifier_checkpoint, name, value):
  with pytest.raises(ValueError, match=f"{name} is {value}, but has no meaning here"):
    load_predictor(classifier_checkpoint, **{name: value})


def test_a_detector_cuts_nothing_out(tiny_checkpoint):
  with pytest.raises(ValueError, match=r"crop_scale is 1\.2, but has no meaning here"):
    load_predictor(tiny_checkpoint, crop_scale=1.2)


def test_another_task(monkeypatch, tiny_checkpoint):
  meta = load_meta(tiny_checkpoint) | {"task": "regression"}
  monkeypatch.setattr("ferjax.inference.loading.load_meta", lambda *_, **__: meta)
  with pytest.raises(ValueError, match="'regression'; expected 'detection' or 'classification'"):
    load_predictor(tiny_checkpoint)


def test_nothing_there(classifier_checkpoint, tmp_path):
  with pytest.raises(FileNotFoundError, match="no checkpoint in"):
    load_predictor(tmp_path)
  with pytest.raises(FileNotFoundError, match="no checkpoint in"):
    load_predictor(classifier_checkpoint, detector=tmp_path)

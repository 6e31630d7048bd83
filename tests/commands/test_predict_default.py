"""`ferjax predict` without a checkpoint: the default detector and classifier."""

import json

import numpy as np
import pytest
from PIL import Image

from ferjax import __version__
from ferjax.commands.main import main
from ferjax.weights import DEFAULT_CLASSIFIER, DEFAULT_DETECTOR, save_weights

pytestmark = pytest.mark.usefixtures("cached_programs")


@pytest.fixture
def default_weights(classifier_checkpoint, tiny_checkpoint, tmp_path, monkeypatch):
  """The folder of weights that have the names of the default ones."""
  folder = tmp_path / "weights"
  folder.mkdir()
  for checkpoint, name, settings in (
    (tiny_checkpoint, DEFAULT_DETECTOR, {"score_threshold": 0.9}),
    (classifier_checkpoint, DEFAULT_CLASSIFIER, {"crop_margin": (0.1, 0.3, 0.1, 0.0)}),
  ):
    save_weights(checkpoint, folder / f"{name}.safetensors", settings=settings)
  monkeypatch.setenv("FERJAX_WEIGHTS", str(folder))
  return folder


@pytest.fixture
def difficult_images(tmp_path):
  """One of each kind that needs care, and an ordinary one."""
  noise = np.random.default_rng(3).integers(0, 256, (64, 64, 3), np.uint8)
  folder = tmp_path / "difficult"
  folder.mkdir()
  Image.fromarray(noise).save(folder / "a.png")
  Image.fromarray(noise[:1, :1]).save(folder / "dot.png")
  Image.fromarray(np.repeat(noise[:, :4], 200, axis=0)).save(folder / "long.png")
  Image.fromarray(noise[..., 0]).save(folder / "grey.png")
  Image.fromarray(noise).convert("CMYK").save(folder / "cmyk.jpg")
  Image.fromarray(noise[..., 0].astype(np.uint16) << 8).save(folder / "deep.png")
  return folder


def test_the_default_weights(default_weights, difficult_images, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  assert main(["predict", "difficult", "--batch-size", "3"]) == 0
  document = json.loads((tmp_path / "predictions" / "predictions.json").read_text())
  images = document.pop("images")
  assert document == {
    "ferjax": __version__,
    "checkpoint": DEFAULT_CLASSIFIER,
    "step": 5,
    "detector": DEFAULT_DETECTOR,
    "detector_step": 3,
    "score_threshold": 0.9,
    "iou_threshold": 0.3,
    "max_detections": 100,
    "per_class_nms": False,
    "crop_margin": [0.1, 0.3, 0.1, 0.0],
    "class_names": ["happiness", "anger", "surprise"],
    "complete": True,
    "skipped": [],
  }
  assert len(images) == 6
  printed = capsys.readouterr().out
  for image in images:
    for face in image["faces"]:
      assert f"{image['image']}: {face['expression']} {face['score']:.2f} at " in printed
  assert 0 < sum(len(image["faces"]) for image in images) < 100  # of noise, at 0.9

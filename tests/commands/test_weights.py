import json
import shutil

import chex
import numpy as np
import pytest
from PIL import Image

import ferjax
from ferjax.commands.main import main
from ferjax.weights import DEFAULT_CLASSIFIER, DEFAULT_DETECTOR, known_weights, open_weights


@pytest.fixture(scope="module")
def folder(classifier_checkpoint, tiny_checkpoint, tmp_path_factory):
  """The default weights of these tests: small random networks."""
  folder = tmp_path_factory.mktemp("weights") / "new" / "folder"
  metrics = tmp_path_factory.mktemp("results") / "eval.json"
  metrics.write_text(json.dumps({"accuracy": 0.25, "step": 9, "split": "val", "ten_crop": False}))
  options = ["--data", "noise", "--licence", "CC0", "--metrics", f"london={metrics}"]
  detector, classifier = (
    ["weights", "save", str(checkpoint), *options, "--output", str(folder / f"{name}.safetensors")]
    for checkpoint, name in (
      (tiny_checkpoint, DEFAULT_DETECTOR),
      (classifier_checkpoint, DEFAULT_CLASSIFIER),
    )
  )
  assert main([*detector, "--score-threshold", "0.5"]) == 0
  assert main([*classifier, "--crop-margin", "0.1,0.3,0.1,0"]) == 0
  return folder


@pytest.fixture
def known(folder, monkeypatch):
  monkeypatch.setenv("FERJAX_WEIGHTS", str(folder))


def test_the_list(known, capsys):
  assert main(["weights"]) == 0
  header, *rows = capsys.readouterr().out.splitlines()
  assert header.split() == ["name", "network", "pixels", "parameters", "MB", "classes", "measured"]
  assert [row.split()[0] for row in rows] == known_weights()
  (row,) = (row for row in rows if row.startswith(DEFAULT_CLASSIFIER))
  assert row.split()[3] == "32"
  assert row.endswith("  3        london: accuracy 0.250")


def test_without_known_weights(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr("ferjax.weights.known.importlib.resources.files", lambda _: tmp_path)
  monkeypatch.delenv("FERJAX_WEIGHTS", raising=False)
  assert main(["weights"]) == 0
  assert "No weights are known by name" in capsys.readouterr().out


def test_show(known, capsys):
  assert main(["weights", "show", DEFAULT_DETECTOR]) == 0
  meta = json.loads(capsys.readouterr().out)
  assert meta == open_weights(DEFAULT_DETECTOR).meta
  assert meta["settings"] == {"score_threshold": 0.5}
  assert meta["metrics"] == {"london": {"accuracy": 0.25}}


def test_the_saved_network(folder, tiny_checkpoint):
  ours = open_weights(folder / f"{DEFAULT_DETECTOR}.safetensors").variables()
  theirs = ferjax.load_variables(tiny_checkpoint)
  # Half the distance of two float16 numbers: 11 bits, or 2**-24 for the smallest numbers.
  chex.assert_trees_all_close(ours, theirs, rtol=2**-11, atol=2**-25)


def test_another_size_of_the_input(known, tmp_path):
  output = tmp_path / "small.safetensors"
  arguments = ["weights", "save", DEFAULT_DETECTOR, "--image-size", "64"]
  assert main([*arguments, "--output", str(output)]) == 0
  saved = open_weights(output)
  assert saved.meta["image_size"] == 64
  chex.assert_trees_all_equal(saved.variables(), open_weights(DEFAULT_DETECTOR).variables())


def test_settings_of_a_classifier(known, tmp_path):
  output = tmp_path / "set.safetensors"
  settings = ["--flip", "--logit-adjustment", "0.5", "--temperature", "0.7"]
  assert main(["weights", "save", DEFAULT_CLASSIFIER, *settings, "--output", str(output)]) == 0
  assert open_weights(output).settings == {
    "crop_margin": [0.1, 0.3, 0.1, 0.0],
    "flip": True,
    "logit_adjustment": 0.5,
    "temperature": 0.7,
  }


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["predict", "{image}", "--checkpoint", "emonex"], "'emonex' is not the name of known weights"),
    (["predict", "{image}", "--checkpoint", "{broken}"], "broken.safetensors is damaged"),
    (["predict", "{image}", "--detector", "{broken}"], "broken.safetensors is damaged"),
    (["explain", "{image}", "--checkpoint", "{broken}"], "broken.safetensors is damaged"),
    (["weights", "show", "{checkpoint}"], "is a checkpoint of a run"),
    (["weights", "show", "unknown"], "'unknown' is not the name of known weights"),
    (["weights", "save", "{checkpoint}", "--metrics", "a.json"], "--metrics is 'a.json'; expected"),
    (["weights", "save", "{checkpoint}", "--metrics", "x={image}"], "is not JSON"),
    (["weights", "save", "{checkpoint}", "--crop-margin", "9"], "crop_margin is 9.0; expected"),
    (["weights", "save", "{checkpoint}", "--iou-threshold", "1"], "does not apply to a model for"),
    (["weights", "save", "{checkpoint}", "--temperature", "0"], "temperature is 0.0; expected"),
    (["weights", "save", "{checkpoint}", "--image-size", "64"], "image_size is 64, but"),
    (["weights", "save", DEFAULT_DETECTOR, "--image-size", "65"], "must be divisible by 32"),
  ],
)
def test_wrong_input(known, folder, classifier_checkpoint, tmp_path, arguments, message, capsys):
  image, broken = tmp_path / "a.png", tmp_path / "broken.safetensors"
  Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(image)
  shutil.copy(folder / f"{DEFAULT_CLASSIFIER}.safetensors", broken)
  broken.write_bytes(broken.read_bytes()[:-100])
  places = {"image": image, "broken": broken, "checkpoint": classifier_checkpoint}
  output = tmp_path / ("out.safetensors" if arguments[0] == "weights" else "out")
  given = [argument.format(**places) for argument in arguments]
  if "show" not in given:
    given += ["--output", str(output)]
  assert main(given) == 2
  error = capsys.readouterr().err
  assert error.startswith("ferjax: error: ")
  assert message in error
  assert not output.exists()

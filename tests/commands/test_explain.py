import json

import numpy as np
import pytest
from PIL import Image

from ferjax import __version__
from ferjax.commands.main import main
from ferjax.expressions import SEVEN_EXPRESSIONS
from ferjax.inference.explanation.explainer import DetectorExplainer, load_explainer

pytestmark = pytest.mark.usefixtures("cached_programs")


@pytest.fixture
def photographs(tmp_path):
  rng = np.random.default_rng(1)
  folder = tmp_path / "photographs"
  (folder / "more").mkdir(parents=True)
  for name, size in (("a.png", (64, 64)), ("more/a.jpg", (60, 90))):
    Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / name)
  return folder


def _explain(checkpoint, output, *arguments):
  return main(["explain", "--checkpoint", str(checkpoint), "--output", str(output), *arguments])


def _document(output):
  return json.loads((output / "explanations.json").read_text())


@pytest.fixture
def with_broken_image(photographs):
  data = (photographs / "a.png").read_bytes()
  (photographs / "aa.png").write_bytes(data[: len(data) // 2])
  return photographs


def test_a_classifier_with_a_skipped_broken_image(
  with_broken_image, classifier_checkpoint, tmp_path, capsys
):
  photographs, output = with_broken_image, tmp_path / "out"
  options = ["--recursive", "--on-bad-image", "skip"]
  assert _explain(classifier_checkpoint, output, str(photographs), *options) == 0
  document = _document(output)
  images, skipped = document.pop("images"), document.pop("skipped")
  assert document == {
    "ferjax": __version__,
    "checkpoint": str(classifier_checkpoint),
    "step": 5,
    "class_names": ["happiness", "anger", "surprise"],
    "complete": True,
  }
  (skipped,) = skipped
  assert skipped["image"] == str(photographs / "aa.png")
  assert "aa.png" not in skipped["reason"]
  assert [(image["width"], image["height"]) for image in images] == [(64, 64), (90, 60)]
  for image, name in zip(images, ("a.png", "more/a.jpg"), strict=True):
    assert image["image"] == str(photographs / name)
    assert image["picture"] == f"explained/{name}.png"
    with Image.open(output / image["picture"]) as sheet:
      assert sheet.mode == "RGB"
    (face,) = image["faces"]
    assert face["box"] is None
    assert sum(face["scores"].values()) == pytest.approx(1, abs=1e-5)
    assert face["expression"] == face["explained"] == max(face["scores"], key=face["scores"].get)
    assert face["explained_score"] == face["score"]
    assert face["layer"] == "image"
    assert face["cells"] == f"explained/{name}.1.npy"
    cells = np.load(output / face["cells"])
    assert (cells.shape, cells.dtype) == ((2, 2), np.float32)
    assert face["peak"] == max(float(cells.max()), 0)
  # 90x60 becomes 60x40, of which the middle 32x32 is classified.
  assert images[1]["faces"][0]["seen"] == [21, 6, 69, 54]
  map_to_image = images[1]["faces"][0]["map_to_image"]
  np.testing.assert_allclose(map_to_image, [[48, 0, 21], [0, 48, 6]], atol=1e-4)
  captured = capsys.readouterr()
  assert "Explained 2 faces of 2 images, skipped 1\n" in captured.out
  assert f"Results in {output}" in captured.out
  assert f"ferjax: warning: skipped {photographs / 'aa.png'}: " in captured.err


def test_a_very_long_image_and_other_files(classifier_checkpoint, tmp_path, capsys):
  folder, output = tmp_path / "in", tmp_path / "out"
  folder.mkdir()
  pixels = np.random.default_rng(0).integers(256, size=(1, 20000, 3), dtype=np.uint8)
  Image.fromarray(pixels).save(folder / "long.png")
  (folder / "notes.txt").touch()
  assert _explain(classifier_checkpoint, output, str(folder)) == 0
  (image,) = _document(output)["images"]
  # The short side is resized from 1 to 40 pixels; a crop of 32 is less than an original pixel.
  (left, _, right, _) = image["faces"][0]["seen"]
  assert (left + right) / 2 == pytest.approx(10000, abs=0.5)
  assert right - left == pytest.approx(32 / 40, abs=0.1)
  assert "1 file ignored: 1 .txt" in capsys.readouterr().out


def test_a_detector(photographs, tiny_checkpoint, tmp_path):
  output = tmp_path / "out"
  image = str(photographs / "more" / "a.jpg")
  faces = ["--max-detections", "2", "--score-threshold", "0.5"]
  assert _explain(tiny_checkpoint, output, image, *faces, "--class", "fear") == 0
  document = _document(output)
  assert (document["step"], document["max_detections"]) == (3, 2)
  assert document["class_names"] == list(SEVEN_EXPRESSIONS)
  (explained,) = document["images"]
  assert len(explained["faces"]) == 2
  for number, face in enumerate(explained["faces"], 1):
    x1, y1, x2, y2 = face["box"]
    assert 0 <= x1 < x2 <= 90
    assert 0 <= y1 < y2 <= 60
    assert face["scores"][face["expression"]] == face["score"] >= 0.5
    assert face["explained"] == "fear"
    assert face["explained_score"] == face["scores"]["fear"]
    level = int(face["layer"].removeprefix("neck/"))
    assert face["cells"] == f"explained/a.jpg.{number}.npy"
    assert np.load(output / face["cells"]).shape == (8 >> level,) * 2
    assert face["seen"] == [0, 0, 90, 60]
  with Image.open(output / "explained" / "a.jpg.png") as sheet:
    assert sheet.width > sheet.height


def test_a_detector_explains_the_strongest_faces(tiny_checkpoint):
  explainer = load_explainer(tiny_checkpoint, score_threshold=0.5)
  assert isinstance(explainer, DetectorExplainer)
  assert explainer.predictor.settings == {
    "score_threshold": 0.5,
    "iou_threshold": 0.3,
    "max_detections": 6,
    "per_class_nms": False,
  }
  explainer = load_explainer(tiny_checkpoint, per_class_nms=True)
  assert explainer.predictor.settings["per_class_nms"]


def test_a_broken_image_stops_and_keeps_earlier_results(
  classifier_checkpoint, with_broken_image, tmp_path, capsys
):
  assert _explain(classifier_checkpoint, tmp_path / "out", str(with_broken_image)) == 2
  document = _document(tmp_path / "out")
  assert document["complete"] is False
  assert len(document["images"]) == 1
  error = capsys.readouterr().err
  assert error.startswith(f"ferjax: error: {with_broken_image / 'aa.png'}: ")
  assert "1 of 2 images" in error


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--class", "joy"], "unknown class 'joy'; known: happiness, anger, surprise"),
    (["--score-threshold", "0.5"], "score_threshold is 0.5, but does not apply here"),
    (["--max-detections", "3"], "max_detections is 3, but does not apply here"),
    (["--checkpoint", "{detector}", "--max-detections", "0"], "max_detections is 0"),
    (["--checkpoint", "nowhere"], "no such folder"),
    (["--step", "7"], "no checkpoint of step 7"),
    (["--output", "{photographs}/a.png"], "is a file; expected a folder"),
    (
      ["--checkpoint", "nowhere", "--output", "{photographs}/a.png/below"],
      "results cannot be written there (Not a directory)",
    ),
    (["nowhere.jpg"], "nowhere.jpg: no such file or folder"),
  ],
)
def test_wrong_input(
  arguments, message, tiny_checkpoint, classifier_checkpoint, photographs, tmp_path, capsys
):
  folders = {"photographs": photographs, "detector": tiny_checkpoint}
  arguments = [argument.format(**folders) for argument in arguments]
  # The image comes first: the other arguments may add another one.
  image = str(photographs / "a.png")
  assert _explain(classifier_checkpoint, tmp_path / "out", image, *arguments) == 2
  error = capsys.readouterr().err
  assert error.startswith("ferjax: error: ")
  assert message in error
  assert not (tmp_path / "out").exists()

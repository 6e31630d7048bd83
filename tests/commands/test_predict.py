import csv
import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

import ferjax
from ferjax import __version__
from ferjax.commands.main import main
from ferjax.expressions import SEVEN_EXPRESSIONS
from ferjax.inference.detection import Predictor

# Every run uses the same program, so all but the first find it in the cache.
SETTINGS = ["--batch-size", "3", "--score-threshold", "0.5"]


pytestmark = pytest.mark.usefixtures("cached_programs")


@pytest.fixture
def photographs(tmp_path):
  """Two in a folder, one of them rotated, and one in a subfolder."""
  rng = np.random.default_rng(1)
  folder = tmp_path / "photographs"
  (folder / "more").mkdir(parents=True)
  exif = Image.Exif()
  exif[0x0112] = 6
  for name, size in (("a.png", (64, 64)), ("b.png", (40, 90)), ("more/a.png", (128, 96))):
    image = Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8))
    image.save(folder / name, **({"exif": exif} if name == "b.png" else {}))
  return folder


def _results(output):
  with (output / "predictions.csv").open(newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  return json.loads((output / "predictions.json").read_text()), rows


def test_predict(photographs, tiny_checkpoint, tmp_path, capsys):
  output = tmp_path / "out"
  arguments = [str(photographs), "--checkpoint", str(tiny_checkpoint), "--output", str(output)]
  assert main(["predict", *arguments, *SETTINGS, "--recursive"]) == 0
  document, rows = _results(output)

  names = ["a.png", "b.png", "more/a.png"]
  predictor = Predictor(tiny_checkpoint, batch_size=3, score_threshold=0.5)
  expected = predictor.predict([photographs / name for name in names])
  images = document.pop("images")
  assert document == {
    "ferjax": __version__,
    "checkpoint": str(tiny_checkpoint),
    "step": 3,
    "score_threshold": 0.5,
    "iou_threshold": 0.3,
    "max_detections": 100,
    "per_class_nms": False,
    "class_names": list(SEVEN_EXPRESSIONS),
    "complete": True,
    "skipped": [],
  }
  assert [image["image"] for image in images] == [str(photographs / name) for name in names]
  assert (images[1]["width"], images[1]["height"]) == (40, 90)  # stored as 90x40, shown upright
  for image, prediction in zip(images, expected, strict=True):
    assert (image["width"], image["height"]) == (prediction.width, prediction.height)
    assert len(image["faces"]) == len(prediction.faces)
    for fields, face in zip(image["faces"], prediction.faces, strict=True):
      assert fields["expression"] == face.expression
      assert fields["box"] == pytest.approx(face.box, abs=0.006)
      assert fields["score"] == pytest.approx(face.score, abs=1e-6)
      assert fields["scores"] == pytest.approx(face.scores, abs=1e-6)
    with Image.open(output / image["annotated"]) as annotated:
      assert annotated.size == (prediction.width, prediction.height)

  faces = [(image["image"], face) for image in images for face in image["faces"]]
  assert len(faces) > 3
  assert len(rows) == len(faces)
  for row, (path, face) in zip(rows, faces, strict=True):
    assert row["image"] == path
    assert [float(row[edge]) for edge in ("x1", "y1", "x2", "y2")] == face["box"]
    assert (float(row["score"]), row["expression"]) == (face["score"], face["expression"])
    assert {name: float(row[name]) for name in SEVEN_EXPRESSIONS} == face["scores"]

  table = dict(line.rsplit(None, 1) for line in capsys.readouterr().out.splitlines()[:-1])
  assert (table["images"], table["skipped"], table["faces"]) == ("3", "0", str(len(faces)))
  counts = {name: int(n) for name, n in table.items() if name.strip() in SEVEN_EXPRESSIONS}
  assert sum(counts.values()) == len(faces)


def test_classify(photographs, classifier_checkpoint, tmp_path, capsys):
  output = tmp_path / "out"
  arguments = [str(photographs), "--checkpoint", str(classifier_checkpoint)]
  assert main(["predict", *arguments, "--output", str(output), "--batch-size", "3"]) == 0
  document, rows = _results(output)
  names = ("happiness", "anger", "surprise")
  images = document.pop("images")
  assert document == {
    "ferjax": __version__,
    "checkpoint": str(classifier_checkpoint),
    "step": 5,
    "class_names": list(names),
    "complete": True,
    "skipped": [],
  }
  paths = [photographs / name for name in ("a.png", "b.png")]
  expected = ferjax.load_predictor(classifier_checkpoint, batch_size=3).predict(paths)
  assert len(rows) == len(images) == 2
  for image, row, prediction in zip(images, rows, expected, strict=True):
    ((fields,), (face,)) = image["faces"], prediction.faces
    assert (image["image"], row["image"]) == (prediction.image, prediction.image)
    assert (image["width"], image["height"]) == (prediction.width, prediction.height)
    assert fields["box"] is None
    assert [row[edge] for edge in ("x1", "y1", "x2", "y2")] == [""] * 4
    assert fields["expression"] == row["expression"] == face.expression
    assert fields["scores"] == pytest.approx(face.scores, abs=1e-6)
    assert {name: float(row[name]) for name in names} == fields["scores"]
    assert (output / image["annotated"]).is_file()
  printed = capsys.readouterr().out
  assert "faces                     2" in printed
  assert "without a face" not in printed


def test_detect_and_classify(photographs, classifier_checkpoint, tiny_checkpoint, tmp_path):
  output = tmp_path / "out"
  checkpoints = ["--checkpoint", str(classifier_checkpoint), "--detector", str(tiny_checkpoint)]
  arguments = [*checkpoints, *SETTINGS, "--crop-scale", "1.5", "--output", str(output)]
  assert main(["predict", str(photographs), *arguments]) == 0
  document, rows = _results(output)
  predictor = ferjax.load_predictor(
    classifier_checkpoint,
    detector=tiny_checkpoint,
    batch_size=3,
    score_threshold=0.5,
    crop_scale=1.5,
  )
  paths = [photographs / name for name in ("a.png", "b.png")]
  expected = [face for prediction in predictor.predict(paths) for face in prediction.faces]
  images = document.pop("images")
  assert document == {
    "ferjax": __version__,
    "checkpoint": str(classifier_checkpoint),
    "step": 5,
    "detector": str(tiny_checkpoint),
    "detector_step": 3,
    "score_threshold": 0.5,
    "iou_threshold": 0.3,
    "max_detections": 100,
    "per_class_nms": False,
    "crop_scale": 1.5,
    "class_names": ["happiness", "anger", "surprise"],
    "complete": True,
    "skipped": [],
  }
  faces = [face for image in images for face in image["faces"]]
  assert len(faces) == len(rows) == len(expected) > 1
  for fields, row, face in zip(faces, rows, expected, strict=True):
    assert fields["box"] == pytest.approx(face.box, abs=0.006)
    assert fields["scores"] == pytest.approx(face.scores, abs=1e-6)
    assert fields["expression"] == row["expression"] == face.expression
    assert fields["detection"]["scores"] == pytest.approx(face.detection.scores, abs=1e-6)
    assert float(row["detection_score"]) == pytest.approx(face.detection.score, abs=1e-6)
    assert row["detection_expression"] == face.detection.expression
    assert float(row["x1"]) == fields["box"][0]


def _run(tiny_checkpoint, output, *paths):
  arguments = ["--checkpoint", tiny_checkpoint, "--output", output, *paths]
  return main(["predict", *SETTINGS, "--no-annotated", *map(str, arguments)])


def test_images_without_faces_are_listed(tiny_checkpoint, photographs, tmp_path, capsys):
  arguments = ["--score-threshold", "1"]
  assert _run(tiny_checkpoint, tmp_path / "out", *arguments, photographs) == 0
  document, rows = _results(tmp_path / "out")
  assert [image["faces"] for image in document["images"]] == [[], []]
  assert rows == []
  printed = capsys.readouterr().out
  assert "  without a face          2\n" in printed
  for name in ("a.png", "b.png"):
    assert f"{photographs / name}: no face found\n" in printed


@pytest.fixture
def with_broken_image(photographs):
  data = (photographs / "a.png").read_bytes()
  (photographs / "aa.png").write_bytes(data[: len(data) // 2])
  return photographs


def test_a_broken_image_is_skipped_on_request(tiny_checkpoint, with_broken_image, tmp_path, capsys):
  output = tmp_path / "out"
  assert _run(tiny_checkpoint, output, with_broken_image, "--on-bad-image", "skip") == 0
  document, _ = _results(output)
  broken = str(with_broken_image / "aa.png")
  assert document["complete"] is True
  assert len(document["images"]) == 2
  (skipped,) = document["skipped"]
  assert skipped["image"] == broken
  assert "truncated" in skipped["reason"]
  captured = capsys.readouterr()
  assert f"ferjax: warning: skipped {broken}" in captured.err
  assert "skipped                   1" in captured.out


def test_a_broken_image_stops_and_keeps_earlier_results(
  tiny_checkpoint, with_broken_image, tmp_path, capsys
):
  output = tmp_path / "out"
  assert _run(tiny_checkpoint, output, with_broken_image, "--batch-size", "1") == 2
  document, _ = _results(output)
  assert document["complete"] is False
  assert [image["image"] for image in document["images"]] == [str(with_broken_image / "a.png")]
  error = capsys.readouterr().err
  assert error.startswith(f"ferjax: error: {with_broken_image / 'aa.png'}: ")
  assert "1 of 3 images" in error
  assert "--on-bad-image skip" in error


def test_an_interrupted_run_goes_on(classifier_checkpoint, with_broken_image, tmp_path, capsys):
  output, folder = tmp_path / "out", with_broken_image
  good = (folder / "b.png").read_bytes()
  for name in ("a1.png", "a2.png"):
    (folder / name).write_bytes(good)
  arguments = ["--checkpoint", classifier_checkpoint, "--output", output, folder, "--no-annotated"]
  command = ["predict", "--batch-size", "3", *map(str, arguments)]
  assert main(command) == 2
  first = (output / "predictions.jsonl").read_text()
  assert len(first.splitlines()) == 3
  for name in ("a.png", "a1.png", "a2.png"):
    (folder / name).write_text("would be an error if it were read again")
  assert main([*command, "--flip"]) == 2
  assert "its flip was None, and is True now; repeat its command" in capsys.readouterr().err
  (folder / "aa.png").write_bytes(good)
  assert main(command) == 0
  assert "Going on after 3 of 5 images" in capsys.readouterr().out
  assert (output / "predictions.jsonl").read_text().startswith(first)
  document, rows = _results(output)
  names = [str(folder / name) for name in ("a.png", "a1.png", "a2.png", "aa.png", "b.png")]
  assert [image["image"] for image in document["images"]] == [row["image"] for row in rows] == names
  assert document["complete"] is True
  assert main(command) == 2  # the run is complete: a new one begins with the first image


def test_other_files_are_reported(tiny_checkpoint, photographs, tmp_path, capsys):
  for name in ("a.xyz", "list.txt", "b.txt", "._a.png", "Thumbs.db"):
    (photographs / name).touch()
  assert _run(tiny_checkpoint, tmp_path / "out", photographs) == 0
  assert "3 files ignored: 2 .txt, 1 .xyz\n" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux allows any bytes in names")
def test_names_of_any_bytes(tiny_checkpoint, photographs, tmp_path):
  name = os.fsdecode(b"caf\xe9 [1].png")
  (photographs / "a.png").rename(photographs / name)
  output = tmp_path / os.fsdecode(b"out\xe9")
  arguments = ["--checkpoint", str(tiny_checkpoint), "--output", str(output), *SETTINGS]
  assert main(["predict", str(photographs / name), *arguments]) == 0
  document, rows = _results(output)
  (image,) = document["images"]
  assert image["image"] == str(photographs / name)
  assert (output / image["annotated"]).is_file()
  escaped = str(photographs / "caf\\udce9 [1].png")
  assert rows
  assert {row["image"] for row in rows} == {escaped}
  assert escaped.encode() in (output / "predictions.json").read_bytes()


def test_names_of_other_scripts(classifier_checkpoint, photographs, tmp_path, capsys):
  """In file and folder names; class names are tested with drawing."""
  (photographs / "a.png").rename(photographs / "表情.png")
  arguments = ["--checkpoint", str(classifier_checkpoint), "--batch-size", "3"]
  arguments += ["--output", str(tmp_path / "结果")]
  assert main(["predict", str(photographs / "表情.png"), *arguments]) == 0
  document, _ = _results(tmp_path / "结果")
  assert [image["annotated"] for image in document["images"]] == ["annotated/表情.png"]
  assert "warning" not in capsys.readouterr().err  # the class names are ASCII


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["{photographs}", "--score-threshold", "1.5"], "score_threshold is 1.5; expected 0..1"),
    (["{photographs}", "--iou-threshold", "-1"], "iou_threshold is -1.0; expected 0..1"),
    (["{photographs}", "--score-threshold", "nan"], "score_threshold is nan"),
    (["{photographs}", "--batch-size", "0"], "batch_size is 0; expected at least 1"),
    (["{photographs}", "--max-detections", "0"], "max_detections is 0"),
    (["{photographs}", "--step", "7"], "no checkpoint of step 7"),
    (["{photographs}", "--checkpoint", "{photographs}"], "no checkpoint in"),
    (["{photographs}", "--checkpoint", "nowhere"], "no such folder"),
    (["{photographs}", "--output", "{photographs}/a.png"], "is a file; expected a folder"),
    (["{photographs}", "--detector", "{detector}"], "classifies expressions itself"),
    (["{photographs}", "--crop-scale", "1.2"], "crop_scale is 1.2, but does not apply here"),
    (["{photographs}", "--checkpoint", "{classifier}"], "score_threshold is 0.5, but does not"),
    (
      ["{photographs}", "--checkpoint", "{classifier}", "--detector", "{classifier}"],
      "is a classifier, which does not detect faces",
    ),
    (
      ["{photographs}", "--checkpoint", "{classifier}", "--detector", "nowhere"],
      "no such folder",
    ),
    (
      ["{photographs}", "--checkpoint={classifier}", "--detector={detector}", "--crop-scale=0"],
      "crop_scale is 0.0; expected above 0",
    ),
    (
      ["{photographs}", "--checkpoint=nowhere", "--output={photographs}/a.png/below"],
      "results cannot be written there (Not a directory)",
    ),
    (["nowhere.jpg"], "nowhere.jpg: no such file or folder"),
    (["{empty}"], "without images"),
  ],
)
def test_wrong_input(
  arguments, message, tiny_checkpoint, classifier_checkpoint, photographs, tmp_path, capsys
):
  (tmp_path / "empty").mkdir()
  folders = {
    "photographs": photographs,
    "empty": tmp_path / "empty",
    "detector": tiny_checkpoint,
    "classifier": classifier_checkpoint,
  }
  arguments = [argument.format(**folders) for argument in arguments]
  assert _run(tiny_checkpoint, tmp_path / "out", *arguments) == 2
  error = capsys.readouterr().err
  assert error.startswith("ferjax: error: ")
  assert message in error
  assert not (tmp_path / "out").exists()

import contextlib
import csv
import json
import os

import numpy as np
import pytest

from ferjax.data.image import decode
from ferjax.inference.files import PredictionWriter
from ferjax.inference.results import Face, Prediction

NAMES = ("happiness", "anger")
FILES = ["predictions.csv", "predictions.json", "predictions.jsonl"]


def _face(score=0.8765432109):
  return Face((1.23456, 2.0, 30.0, 40.0), score, "anger", {"happiness": 0.125, "anger": score})


def _writer(output, images, **options):
  settings = {"header": {"ferjax": "1.2.3"}, "class_names": NAMES, "annotated": False}
  return PredictionWriter(output, images, **settings | options)


def _write(output, predictions, *, annotated=True, skipped=()):
  images = [*(prediction.image for prediction in predictions), *skipped]
  with _writer(output, images, annotated=annotated) as writer:
    for prediction in predictions:
      image = np.zeros((prediction.height, prediction.width, 3), np.uint8)
      writer.add(prediction, image, prediction.image)
    for path in skipped:
      writer.skip(path, "broken")
  return json.loads((output / "predictions.json").read_text())


def test_the_json_file(tmp_path):
  predictions = [
    Prediction("a.png", 50, 60, (_face(), _face(0.5))),
    Prediction("sub/b.png", 9, 8, ()),
  ]
  assert _write(tmp_path / "new" / "out", predictions, skipped=["c.png"]) == {
    "ferjax": "1.2.3",
    "class_names": ["happiness", "anger"],
    "complete": True,
    "images": [
      {
        "image": "a.png",
        "width": 50,
        "height": 60,
        "annotated": "annotated/a.png",
        "faces": [
          {
            "box": [1.23, 2.0, 30.0, 40.0],
            "score": 0.876543,
            "expression": "anger",
            "scores": {"happiness": 0.125, "anger": 0.876543},
          },
          {
            "box": [1.23, 2.0, 30.0, 40.0],
            "score": 0.5,
            "expression": "anger",
            "scores": {"happiness": 0.125, "anger": 0.5},
          },
        ],
      },
      {
        "image": "sub/b.png",
        "width": 9,
        "height": 8,
        "annotated": "annotated/sub/b.png",
        "faces": [],
      },
    ],
    "skipped": [{"image": "c.png", "reason": "broken"}],
  }


def test_the_csv_file(tmp_path):
  predictions = [Prediction('a,"b".png', 50, 60, (_face(), _face())), Prediction("b", 9, 9, ())]
  _write(tmp_path, predictions, annotated=False)
  with (tmp_path / "predictions.csv").open(newline="") as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 2
  assert rows[0] == {
    "image": 'a,"b".png',
    "x1": "1.23",
    "y1": "2.0",
    "x2": "30.0",
    "y2": "40.0",
    "score": "0.876543",
    "expression": "anger",
    "happiness": "0.125",
    "anger": "0.876543",
  }


def _classified(box=None, detection=None):
  scores = {"happiness": 0.25, "anger": 0.75}
  return Face(box, 0.75, "anger", scores, detection)


def test_a_classified_image_has_no_box(tmp_path):
  document = _write(tmp_path, [Prediction("a.png", 50, 60, (_classified(),))])
  (image,) = document["images"]
  assert image["faces"] == [
    {
      "box": None,
      "score": 0.75,
      "expression": "anger",
      "scores": {"happiness": 0.25, "anger": 0.75},
    }
  ]
  assert (tmp_path / "predictions.csv").read_text().splitlines() == [
    "image,x1,y1,x2,y2,score,expression,happiness,anger",
    "a.png,,,,,0.75,anger,0.25,0.75",
  ]
  assert decode(tmp_path / "annotated" / "a.png").any()


def test_a_detected_and_classified_face(tmp_path):
  found = Face((1.0, 2.0, 30.5, 40.0), 0.5, "fear", {"fear": 0.5, "anger": 0.1234567})
  prediction = Prediction("a.png", 50, 60, (_classified(found.box, found),))
  with _writer(tmp_path, ["a.png", "b.png"], with_detections=True) as writer:
    writer.add(prediction, np.zeros((60, 50, 3), np.uint8), "a.png")
    writer.add(Prediction("b.png", 5, 5, ()), np.zeros((5, 5, 3), np.uint8), "b.png")
  document = json.loads((tmp_path / "predictions.json").read_text())
  assert document["images"][0]["faces"] == [
    {
      "box": [1.0, 2.0, 30.5, 40.0],
      "score": 0.75,
      "expression": "anger",
      "scores": {"happiness": 0.25, "anger": 0.75},
      "detection": {
        "score": 0.5,
        "expression": "fear",
        "scores": {"fear": 0.5, "anger": 0.123457},
      },
    }
  ]
  assert (tmp_path / "predictions.csv").read_text().splitlines() == [
    "image,x1,y1,x2,y2,score,expression,detection_score,detection_expression,happiness,anger",
    "a.png,1.0,2.0,30.5,40.0,0.75,anger,0.5,fear,0.25,0.75",
  ]


def test_annotated_copies_show_the_faces(tmp_path):
  _write(tmp_path, [Prediction("sub/b.png", 50, 60, (_face(),)), Prediction("c.png", 5, 4, ())])
  with_face = decode(tmp_path / "annotated" / "sub" / "b.png")
  without = decode(tmp_path / "annotated" / "c.png")
  assert (with_face.shape, without.shape) == ((60, 50, 3), (4, 5, 3))
  assert with_face.any()
  assert not without.any()


def test_a_copy_too_large_for_its_format_is_named(tmp_path):
  wide = np.zeros((1, 16384, 3), np.uint8)
  prediction = Prediction("wide.webp", 16384, 1, ())
  with (
    pytest.raises(OSError, match=r"wide.webp: the annotated copy of 16384x1 pixels cannot be"),
    _writer(tmp_path, ["wide.webp"], annotated=True) as writer,
  ):
    writer.add(prediction, wide, "wide.webp")
  assert writer.written == 0
  assert os.listdir(tmp_path / "annotated") == []


def test_without_copies_no_folder_is_created(tmp_path):
  document = _write(tmp_path, [Prediction("a.png", 50, 60, (_face(),))], annotated=False)
  assert document["images"][0]["annotated"] is None
  assert sorted(os.listdir(tmp_path)) == FILES


def test_an_error_keeps_earlier_results(tmp_path):
  def fail_after_one():
    with _writer(tmp_path, ["a"]) as writer:
      writer.add(Prediction("a", 5, 5, ()), np.zeros((5, 5, 3), np.uint8), "a.png")
      raise RuntimeError("stopped")

  with pytest.raises(RuntimeError, match="stopped"):
    fail_after_one()
  document = json.loads((tmp_path / "predictions.json").read_text())
  assert document["complete"] is False
  assert [image["image"] for image in document["images"]] == ["a"]


def test_earlier_results_are_replaced_atomically(tmp_path, monkeypatch):
  _write(tmp_path, [Prediction("a", 5, 5, ())], annotated=False)
  before = (tmp_path / "predictions.csv").read_text()

  def no_space(*_, **__):
    raise OSError("no space left")

  monkeypatch.setattr(csv, "writer", no_space)
  with pytest.raises(OSError, match="no space left"):
    _write(tmp_path, [Prediction("b", 5, 5, ())], annotated=False)
  assert (tmp_path / "predictions.csv").read_text() == before
  # The run is not finished: the same one goes on.
  assert sorted(os.listdir(tmp_path)) == [*FILES, "predictions.unfinished.json"]


def test_the_json_file_is_that_of_the_library(tmp_path):
  """It is written in parts, because the results of a large run do not fit into memory."""
  for predictions, skipped in (
    ([Prediction("a\nb\u2028.png", 50, 60, (_face(),)), Prediction("b", 5, 5, ())], ["c", "d"]),
    ([], ["c"]),
    ([], []),
  ):
    document = _write(tmp_path, predictions, annotated=False, skipped=skipped)
    assert [image["image"] for image in document["skipped"]] == skipped
    text = (tmp_path / "predictions.json").read_text()
    assert text == json.dumps(document, indent=2) + "\n"


def test_skipped_images_keep_their_place(tmp_path):
  """Images are skipped when they are read, before the earlier ones of their batch are predicted."""
  image = np.zeros((5, 5, 3), np.uint8)
  with _writer(tmp_path, ["a", "b", "c", "d", "e"]) as writer:
    writer.skip("a", "broken")
    assert writer.written == 1
    writer.skip("c", "broken")
    writer.skip("d", "broken")
    assert writer.written == 1
    writer.add(Prediction("b", 5, 5, ()), image, "b")
    assert writer.written == 4
    writer.add(Prediction("e", 5, 5, ()), image, "e")
  lines = (tmp_path / "predictions.jsonl").read_text().splitlines()
  assert [json.loads(line)["image"] for line in lines] == ["a", "b", "c", "d", "e"]


def test_a_run_goes_on(tmp_path):
  image = np.zeros((5, 5, 3), np.uint8)
  images = ["a", "b", "c"]
  with contextlib.suppress(KeyboardInterrupt), _writer(tmp_path, images, weights="x") as writer:
    writer.add(Prediction("a", 5, 5, (_face(),)), image, "a")
    raise KeyboardInterrupt
  with pytest.raises(
    ValueError, match=r"jsonl has results of .* its weights was x, and is y now; "
  ):
    _writer(tmp_path, images, weights="y")
  with _writer(tmp_path, images, weights="x") as writer:
    assert writer.written == 1
    writer.skip("b", "broken")
    writer.add(Prediction("c", 5, 5, ()), image, "c")
  document = json.loads((tmp_path / "predictions.json").read_text())
  assert document["complete"] is True
  assert [record["image"] for record in document["images"]] == ["a", "c"]
  assert document["skipped"] == [{"image": "b", "reason": "broken"}]
  assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 2
  assert sorted(os.listdir(tmp_path)) == FILES


def test_file_names_that_are_not_utf8(tmp_path):
  name = os.fsdecode(b"caf\xe9.png")
  document = _write(tmp_path, [Prediction(name, 50, 60, (_face(),))], annotated=False)
  assert document["images"][0]["image"] == name
  assert b"caf\\udce9.png" in (tmp_path / "predictions.csv").read_bytes()


def test_the_output_is_a_file(tmp_path):
  (tmp_path / "out").touch()
  with pytest.raises(NotADirectoryError, match="out: is a file; expected a folder"):
    _write(tmp_path / "out", [])


def test_parts_of_several_hosts_are_one_run(tmp_path):
  """Each host has a file of its own; merged, the files are those of a single run."""
  predictions = [Prediction(f"{i}.png", 4, 3, (_face(i / 8),) * (i % 3)) for i in range(5)]
  images = [*(x.image for x in predictions), "broken.png"]
  blank = np.zeros((3, 4, 3), np.uint8)

  def write(writer, some):
    with writer:
      for prediction in some:
        writer.add(prediction, blank, prediction.image)
      if "broken.png" in writer_images:
        writer.skip("broken.png", "no image")

  for name, parts in (("whole", [images]), ("parts", [images[:2], images[2:]])):
    for number, writer_images in enumerate(parts):
      part = f"{number + 1}-of-2" if len(parts) > 1 else ""
      some = [x for x in predictions if x.image in writer_images]
      write(_writer(tmp_path / name, writer_images, annotated=True, part=part), some)
  parts = ["1-of-2", "2-of-2"]
  assert not (tmp_path / "parts" / "predictions.json").exists()
  with _writer(tmp_path / "parts", images, annotated=True) as writer:
    writer.take_parts(parts)
  writer.remove_parts()
  for name in FILES:
    found, expected = ((tmp_path / run / name).read_text() for run in ("parts", "whole"))
    assert found == expected, name
  left = sorted(path.name for path in (tmp_path / "parts").iterdir())
  assert left == sorted(["annotated", *FILES])


def test_parts_of_other_images_are_refused(tmp_path):
  def take(images, message):
    with (
      pytest.raises(OSError, match=message),
      _writer(tmp_path, images, restart=True) as writer,
    ):
      writer.take_parts(["1-of-1"])

  with _writer(tmp_path, ["a.png"], part="1-of-1") as writer:
    writer.skip("a.png", "broken")
  take(["b.png"], "part 1-of-1 has the result of a.png, which is not the next image")
  take(["a.png", "b.png"], "the parts have no result of b.png")
  # An interrupted part goes on, as an interrupted run does.
  with _writer(tmp_path, ["a.png", "b.png"], part="1-of-1") as writer:
    assert writer.written == 1
    writer.skip("b.png", "broken")
  with _writer(tmp_path, ["a.png", "b.png"], restart=True) as writer:
    writer.take_parts(["1-of-1"])

"""`ferjax data label` on the command line: what it writes, keeps and refuses."""

import csv

import numpy as np
import pytest
from PIL import Image

from ferjax.commands.data import add_data
from ferjax.commands.errors import CommandError
from ferjax.commands.parser import CommandParser
from ferjax.data.datasets.base import Options
from ferjax.data.datasets.catalog import find_data_set
from ferjax.data.loading import open_released
from ferjax.expressions import UNLABELLED
from ferjax.inference.classification import ExpressionClassifier

NAMES = ("surprise", "happiness", "fear")  # anger is a class of the weights only
TABLE = """\
person,image,label,split,x1,y1,x2,y2,note
ann,b.png,unknown,train,10,20,40,50,"left, back"
bob,a.png,Happy,val,10.5,12,30,31,
ann,b.png,fear,train,60,20,90,50,
,empty.png,,train,,,,,nobody
ann,b.png,Unknown,train,40,35,80,75,
bob,a.png,unknown,val,5,5,45,45,
cy,c.png,unknown,train,8,8,48,48,
"""
# Squares of the unlabelled boxes without margins: file -> rows and columns.
CROPS = {0: ("b", 20, 50, 10, 40), 4: ("b", 35, 75, 40, 80), 5: ("a", 5, 45, 5, 45)}
CROPS[6] = ("c", 8, 48, 8, 48)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Four images, in a table and as YOLO text files, with and without labels."""
  folder = tmp_path_factory.mktemp("photographs")
  for number, name in enumerate(("a", "b", "c", "empty")):
    pixels = np.random.default_rng(number).integers(0, 256, (8, 10, 3), np.uint8)
    image = Image.fromarray(pixels).resize((100, 80), Image.Resampling.BICUBIC)
    for place in ("", "images/train/"):
      (folder / place).mkdir(parents=True, exist_ok=True)
      image.save(folder / place / f"{name}.png")
  (folder / "labels.csv").write_text(TABLE)
  (folder / "labels/train").mkdir(parents=True)
  texts = {"a": "-1 0.25 0.3125 0.4 0.5", "b": "-1 0.25 0.4375 0.3 0.375\n2 0.75 0.4375 0.3 0.375"}
  for name in ("a", "b", "c", "empty"):
    (folder / f"labels/train/{name}.txt").write_text(texts.get(name, ""))
  return folder


@pytest.fixture(scope="module")
def faces(folder, classifier_checkpoint):
  """Row of the table -> prediction for the crop of its box, cut out by hand."""
  images = {name: np.asarray(Image.open(folder / f"{name}.png")) for name in "abc"}
  crops = (images[name][y1:y2, x1:x2] for name, y1, y2, x1, x2 in CROPS.values())
  found = ExpressionClassifier(classifier_checkpoint).classify_crops(crops)
  return dict(zip(CROPS, found, strict=True))


@pytest.fixture(scope="module")
def threshold(faces):
  """Between the two middle confidences."""
  scores = sorted(face.score for face in faces.values())
  assert scores[2] - scores[1] > 1e-3
  return (scores[1] + scores[2]) / 2


@pytest.fixture(scope="module")
def label(classifier_checkpoint):
  """Arguments -> the rows of the table that `ferjax data label` writes."""

  def call(name, source, out, *arguments, classes=NAMES, weights=classifier_checkpoint):
    parser = CommandParser()
    add_data(parser.add_subparsers(required=True))
    command = ["data", "label", name, "--source", source, "--out", out, "--weights", weights]
    command += ["--class-names", ",".join(classes), "--crop-margin", 0, *arguments]
    parsed = parser.parse_args(list(map(str, command)))
    assert parsed.run(parsed) == 0
    return _rows(out)

  return call


def _rows(path):
  with open(path, newline="", encoding="utf-8") as file:
    return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def labelled(label, folder, threshold):
  return label("csv", folder, folder / "out.csv", "--threshold", threshold)


def test_boxes_get_the_labels_of_sure_predictions(
  labelled, faces, threshold, classifier_checkpoint
):
  labels = []
  for i, face in faces.items():
    sure = face.score >= threshold and face.expression in NAMES
    labels.append(face.expression if sure else TABLE.splitlines()[i + 1].split(",")[2])
    assert labelled[i]["label"] in (face.expression, "unknown", "Unknown")
    assert float(labelled[i]["confidence"]) == pytest.approx(face.score, abs=1e-4)
    assert labelled[i]["weights"].startswith(str(classifier_checkpoint))
    for name, score in face.scores.items():
      assert float(labelled[i][f"p_{name}"]) == pytest.approx(score, abs=1e-4)
  assert [labelled[i]["label"] for i in faces] == labels
  assert "unknown" in {name.lower() for name in labels}


def test_all_other_cells_stay_as_they_are(labelled, faces):
  before = list(csv.DictReader(TABLE.splitlines()))
  assert len(labelled) == len(before)
  for i, (new, old) in enumerate(zip(labelled, before, strict=True)):
    assert {k: new[k] for k in old if k != "label"} == {
      k: v for k, v in old.items() if k != "label"
    }
    if i not in faces:
      assert new["label"] == old["label"]
      assert not any(new[k] for k in new.keys() - old.keys())


def test_detectors_train_on_the_table(labelled, folder):
  options = Options(task="detection", class_names=NAMES, table="out.csv")
  source = open_released(find_data_set("csv"), folder, "train", options)
  expected = [NAMES.index(n) if n in NAMES else UNLABELLED for n in _labels(labelled, "b.png")]
  assert source[0]["label"].tolist() == expected
  np.testing.assert_array_equal(source[0]["boxes"][1], [60, 20, 90, 50])
  assert len(source[1]["boxes"]) == 0
  assert len(source) == 3


def _labels(rows, image):
  return [row["label"] for row in rows if row["image"] == image]


def test_second_run_labels_the_rest_and_keeps_the_first(label, labelled, folder, faces, capsys):
  rows = label("csv", folder, folder / "second.csv", "--table", "out.csv", "--threshold", 0)
  assert rows[0].keys() == labelled[0].keys()
  for i, (new, old) in enumerate(zip(rows, labelled, strict=True)):
    if old["label"].lower() != "unknown":
      assert new == old
    elif faces[i].expression in NAMES:
      assert new["label"] == faces[i].expression
  outside = sum(face.expression == "anger" for face in faces.values())
  text = capsys.readouterr().out
  assert text.count(f"{outside:,} boxes, probably anger, which is not a class here") == bool(
    outside
  )
  assert "still without a label: 0 boxes, less probable than 0\n" in text
  flags = f"--config.data.source=csv --config.data.dir={folder} --config.data.csv=second.csv"
  names = '--config.data.class_names=["surprise", "happiness", "fear"]'
  assert text.endswith(f"Train with {flags} '{names}'\n")


def test_other_sets_become_the_same_table(label, folder, faces, tmp_path):
  """The boxes of YOLO text files are relative to the image."""
  rows = label("yolo_txt", folder, tmp_path / "new" / "boxes.csv", "--threshold", 0)
  assert [row["image"] for row in rows] == [
    f"images/train/{n}.png" for n in ("a", "b", "b", "c", "empty")
  ]
  boxes = [[row[c] for c in ("x1", "y1", "x2", "y2")] for row in rows]
  assert boxes[:3] == [["5", "5", "45", "45"], ["10", "20", "40", "50"], ["60", "20", "90", "50"]]
  assert boxes[3:] == [[""] * 4] * 2
  assert rows[2]["label"] == "fear"
  assert rows[2]["confidence"] == ""
  for row, i in ((rows[0], 5), (rows[1], 0)):
    assert float(row["confidence"]) == pytest.approx(faces[i].score, abs=1e-4)


def test_bad_images_stop_or_are_left_out(label, folder, tmp_path, capsys):
  for name in ("a", "b", "empty"):
    (tmp_path / f"{name}.png").write_bytes((folder / f"{name}.png").read_bytes())
  (tmp_path / "labels.csv").write_text(TABLE)
  arguments = ("csv", tmp_path, tmp_path / "out.csv", "--on-bad-record")
  with pytest.raises(CommandError, match=r"c\.png\n.*--on-bad-record skip"):
    label(*arguments, "error")
  (tmp_path / "c.png").write_bytes(b"no image")
  with pytest.raises(CommandError, match=r"c\.png.*--on-bad-record skip leaves such records out"):
    label(*arguments, "error")
  assert not (tmp_path / "out.csv").exists()
  rows = label(*arguments, "skip")
  assert [row["image"] for row in rows] == [
    "b.png",
    "a.png",
    "b.png",
    "empty.png",
    "b.png",
    "a.png",
  ]
  assert "1 bad records were left out:\n  labels.csv:8 (c.png)" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("arguments", "options", "message"),
  [
    (("--threshold", 1.5), {}, r"--threshold is 1\.5; expected 0\.\.1"),
    (("--threshold", "nan"), {}, r"--threshold is nan; expected 0\.\.1"),
    ((), {"weights": "no-weights"}, "'no-weights' is not the name of known weights"),
    (("--crop-margin", "1,2"), {}, "crop_margin is"),
    ((), {"classes": ("neutral", "contempt")}, "none is one of the set's: neutral, contempt"),
    ((), {"classes": (*NAMES, "Unknown")}, "'unknown', which in a table is the label of a box"),
    (
      ("--table", "all.csv"),
      {},
      "all 2 boxes of CSV table have a label, so there is nothing to do",
    ),
    (("--table", "faces.csv"), {}, "no column 'x1', 'y1', 'x2', 'y2'"),
    (("--margin", "0.1"), {}, "unrecognized arguments"),
  ],
)
def test_bad_input(label, folder, tmp_path, capsys, arguments, options, message):
  (folder / "all.csv").write_text("".join(TABLE.splitlines(keepends=True)[i] for i in (0, 2, 3)))
  (folder / "faces.csv").write_text("image,label,split\na.png,fear,train\n")
  if options.get("classes", NAMES) == ("neutral", "contempt"):
    arguments = ("--table", "bare.csv")
    (folder / "bare.csv").write_text("image,label,split,x1,y1,x2,y2\na.png,unknown,train,1,1,9,9\n")
  with pytest.raises((CommandError, SystemExit)) as caught:
    label("csv", folder, tmp_path / "out.csv", *arguments, **options)
  assert (
    caught.match(message) if caught.type is CommandError else message in capsys.readouterr().err
  )
  assert not (tmp_path / "out.csv").exists()


def test_needs_a_set_for_detection(label, folder, tmp_path):
  with pytest.raises(CommandError, match="FER2013 has no task 'detection'"):
    label("fer2013", folder, tmp_path / "out.csv")


def test_never_replaces_a_table(label, folder):
  with pytest.raises(CommandError, match=r"labels\.csv exists, and its labels may have been corr"):
    label("csv", folder, folder / "labels.csv")
  assert (folder / "labels.csv").read_text() == TABLE

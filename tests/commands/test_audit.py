"""`ferjax data audit`: what it finds, and how corrections come back."""

import csv

import numpy as np
import pytest
from PIL import Image

from ferjax.commands.data import add_data
from ferjax.commands.errors import CommandError
from ferjax.commands.parser import CommandParser
from ferjax.data.prepared import open_prepared

NAMES = ("neutral", "anger")
COUNT = 40
WRONG = (3, 8, 21)  # records with the other label


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Dark and bright images, labelled by brightness except for three; one is damaged."""
  folder = tmp_path_factory.mktemp("faces")
  rows = ["image,label,split"]
  for i in range(COUNT):
    pixels = np.random.default_rng(i).integers(0, 90, (40, 40, 3)) + 150 * (i % 2)
    Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    rows.append(f"{i}.png,{NAMES[(i + (i in WRONG)) % 2]},{'test' if i >= 30 else 'train'}")
  (folder / "labels.csv").write_text("\n".join(rows) + "\n")
  (folder / "damaged.png").write_bytes(b"no image")
  text = "\n".join([*rows, "damaged.png,anger,train"]) + "\n"
  (folder / "damaged.csv").write_text(text)
  return folder


@pytest.fixture
def run(folder, capsys):
  """Action, output and further arguments -> the printed text."""

  def call(action, out, *arguments):
    parser = CommandParser()
    add_data(parser.add_subparsers(required=True))
    words = ["data", action, "csv", "--source", folder, "--class-names", ",".join(NAMES)]
    parsed = parser.parse_args(list(map(str, [*words, "--output", out, *arguments])))
    assert parsed.run(parsed) == 0
    return capsys.readouterr().out

  return call


@pytest.fixture
def predictions(folder, tmp_path):
  """Of brightness, unsure about the record 5."""
  lines = ["record,p_neutral,p_anger"]
  for i in range(COUNT):
    p = 0.45 if i == 5 else 0.02 + 0.001 * i
    lines.append(f"{i}.png,{1 - p if i % 2 == 0 else p},{p if i % 2 == 0 else 1 - p}")
  (tmp_path / "own.csv").write_text("\n".join(lines) + "\n")
  return tmp_path / "own.csv"


def _rows(path):
  with open(path, newline="") as file:
    return list(csv.DictReader(file))


def test_wrong_labels_are_found_and_come_back_corrected(run, predictions, tmp_path):
  text = run("audit", tmp_path / "audit", "--predictions", predictions, "--count", 2)
  rows = _rows(tmp_path / "audit/labels.csv")
  assert {row["record"] for row in rows} == {f"{i}.png" for i in WRONG}
  assert all(row["label"] == row["given"] != row["suggested"] for row in rows)
  assert "the predictions agree with 92.5% of the labels" in text
  assert "total               40         3" in text
  assert (tmp_path / "audit/labels.png").read_bytes().startswith(b"\x89PNG")

  # A person accepts one suggestion, leaves one face out, and keeps one label.
  new = {"3.png": "suggested", "8.png": "unknown", "21.png": "given"}
  for row in rows:
    row["label"] = row.get(new[row["record"]], "unknown")
  with open(tmp_path / "audit/labels.csv", "w", newline="") as file:
    table = csv.DictWriter(file, rows[0])
    table.writeheader()
    table.writerows(rows)
  options = ("--validation", 0, "--labels", tmp_path / "audit/labels.csv")
  text = run("prepare", tmp_path / "prepared", *options)
  assert "labels.csv: 1 labels corrected, 1 records left out" in text
  source = open_prepared(tmp_path / "prepared", "train", NAMES)
  found = {source.origin(i).split("(")[1]: source[i]["label"].argmax() for i in range(29)}
  assert len(source) == 29
  assert "8.png)" not in found
  assert found["3.png)"] == 1
  assert found["21.png)"] == 0  # the wrong label, which was kept
  assert "classification_2_corrected" in text


def test_labels_are_predicted_from_features(run, classifier_checkpoint, tmp_path):
  """Brightness shows in the features even of random weights."""
  options = ("--weights", classifier_checkpoint, "--folds", 4, "--count", 1)
  damaged = ("--table", "damaged.csv", "--on-bad-record", "skip")
  text = run("audit", tmp_path / "audit", *options, *damaged)
  rows = _rows(tmp_path / "audit/labels.csv")
  # Confident learning estimates how many labels are wrong, and need not suspect all of these.
  found = {row["record"] for row in rows}
  assert found <= {f"{i}.png" for i in WRONG}
  assert len(found) >= 2
  assert all(row["weights"].startswith(str(classifier_checkpoint)) for row in rows)
  assert "1 bad records were left out" in text
  with pytest.raises(CommandError, match=r"damaged.png.*\(--on-bad-record skip leaves such"):
    run("audit", tmp_path / "other", *options, "--table", "damaged.csv")


def test_corrected_tables_are_not_overwritten(run, predictions, tmp_path):
  (tmp_path / "labels.csv").touch()
  with pytest.raises(CommandError, match=r"labels.csv exists, and may have been corrected: choose"):
    run("audit", tmp_path, "--predictions", predictions)
  with pytest.raises(CommandError, match="--count is 0; expected at least 1 face"):
    run("audit", tmp_path / "audit", "--predictions", predictions, "--count", 0)

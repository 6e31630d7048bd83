"""A miniature RAF-DB of the released layout."""

import collections

import numpy as np
import pytest
from PIL import Image

from ferjax.data.datasets import raf_db
from ferjax.data.datasets.base import Options
from ferjax.data.datasets.entries import RecordError
from ferjax.data.datasets.raf_db import RAF_DB
from ferjax.data.loading import open_released
from ferjax.expressions import RAF_DB_CODES, SEVEN_EXPRESSIONS

LIST = "basic/EmoLabel/list_patition_label.txt"


def _open(folder, split, on_bad_record="error", class_names=SEVEN_EXPRESSIONS):
  options = Options(task="detection", class_names=class_names)
  return open_released(RAF_DB, folder, split, options, on_bad_record=on_bad_record)


def _folder(root, lines):
  for part in ("EmoLabel", "Image/original", "Annotation/boundingbox"):
    (root / "basic" / part).mkdir(parents=True, exist_ok=True)
  (root / LIST).write_text("".join(f"{name} {code}\n" for name, code in lines))
  for i, (name, _) in enumerate(lines):
    Image.new("RGB", (50, 40), (i % 256,) * 3).save(root / "basic/Image/original" / name)
    stem = name.removesuffix(".jpg")
    (root / f"basic/Annotation/boundingbox/{stem}_boundingbox.txt").write_text(
      "5.5 -4.25 30.75 39\n"
    )
  return root


@pytest.fixture
def lines():
  train = [(f"train_{i:05d}.jpg", code) for i, code in enumerate([4] * 30 + [7] * 20 + [2] * 10)]
  return train + [(f"test_{code:04d}.jpg", code) for code in RAF_DB_CODES]


@pytest.fixture
def folder(tmp_path, lines):
  return _folder(tmp_path, lines)


def _names(source):
  return {source.origin(i).split("(")[1].rstrip(")") for i in range(len(source))}


def _counts(source):
  labels = [int(source[i]["label"][0]) for i in range(len(source))]
  return collections.Counter(SEVEN_EXPRESSIONS[label] for label in labels)


def test_codes_become_canonical_expressions(folder):
  source = _open(folder, "test")
  names = [SEVEN_EXPRESSIONS[int(source[i]["label"][0])] for i in range(7)]
  # The table of the released readme: code 1 first.
  assert names == ["surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"]
  assert source.class_names == SEVEN_EXPRESSIONS
  reordered = _open(folder, "test", class_names=SEVEN_EXPRESSIONS[::-1])
  assert reordered[0]["label"][0] == 6 - SEVEN_EXPRESSIONS.index("surprise")


def test_boxes_are_clipped_to_the_photograph(folder):
  example = _open(folder, "test")[0]
  np.testing.assert_array_equal(example["boxes"], [[5.5, 0, 30.75, 39]])
  assert example["image"].shape == (40, 50, 3)


def test_validation_is_a_stratified_tenth_of_train(folder, lines):
  train, val = _open(folder, "train"), _open(folder, "val")
  assert _counts(val) == {"happiness": 3, "neutral": 2, "fear": 1}
  assert _counts(train) == {"happiness": 27, "neutral": 18, "fear": 9}
  listed = {name for name, _ in lines if name.startswith("train")}
  assert _names(train) | _names(val) == listed
  assert not _names(train) & _names(val)


def test_split_does_not_depend_on_the_order_of_the_list(folder, lines, tmp_path):
  other = _folder(tmp_path / "other", lines[::-1])
  assert _names(_open(folder, "val")) == _names(_open(other, "val"))


def test_counts_are_compared_with_the_official_ones(folder, caplog, monkeypatch):
  with caplog.at_level("INFO"):
    _open(folder, "val")
    _open(folder, "test")
    monkeypatch.setattr(raf_db, "OFFICIAL_COUNTS", {"train": 60, "test": 7})
    _open(folder, "train")
  assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
    ("WARNING", f"RAF-DB: found 60 train records in {folder}, officially 12271"),
    ("WARNING", f"RAF-DB: found 7 test records in {folder}, officially 3068"),
    ("INFO", f"RAF-DB: found 60 train records in {folder}, officially 60"),
  ]


def test_missing_files_are_named(folder, tmp_path):
  with pytest.raises(ValueError, match=r"folder not found: .*nowhere. Request it from its authors"):
    _open(tmp_path / "nowhere", "train")
  (tmp_path / "empty").mkdir()
  with pytest.raises(
    ValueError, match=r"missing  .*list_patition_label.txt (.*\n)*Request it from its authors"
  ):
    _open(tmp_path / "empty", "train")
  (folder / "basic/Annotation/boundingbox/test_0001_boundingbox.txt").unlink()
  with pytest.raises(
    ValueError, match=rf"{LIST}:61 \(test_0001.jpg\): file not found: .*test_0001_boundingbox.txt"
  ):
    _open(folder, "test")
  source = _open(folder, "test", "skip")
  assert len(source) == 6
  assert "test_0001" in source.skipped[0]
  (folder / "basic/Image/original/test_0002.jpg").unlink()
  assert len(_open(folder, "test", "skip")) == 5


@pytest.mark.parametrize(
  ("line", "message"),
  [
    ("test_0001.jpg 8", "'test_0001.jpg 8'; expected a file name and a code: 1 surprise, 2 fear"),
    ("test_0001.jpg", "expected a file name and a code"),
    ("test_0001.jpg x", "expected a file name and a code"),
    ("photo.jpg 1", "starts with train or test"),
  ],
)
def test_malformed_line_is_named(folder, line, message):
  with open(folder / LIST, "a") as lines:
    lines.write(f"{line}\n")
  with pytest.raises(ValueError, match=rf"{LIST}:68 .*{message}"):
    _open(folder, "test")


@pytest.mark.parametrize(
  ("text", "message"),
  [("1 2 3", "expected four numbers"), ("a b c d", "expected four"), ("9 9 3 3", "has no area")],
)
def test_malformed_box_is_named(folder, text, message):
  (folder / "basic/Annotation/boundingbox/test_0001_boundingbox.txt").write_text(text)
  with pytest.raises(ValueError, match=rf"test_0001_boundingbox.txt: .*{message}"):
    _open(folder, "test")


def test_class_names_must_contain_the_expressions(folder):
  with pytest.raises(ValueError, match=r"RAF-DB has 7 classes: .*; got neutral, happiness"):
    _open(folder, "test", class_names=("neutral", "happiness"))


def test_a_bad_record_moves_no_other_to_another_split(folder):
  train, val = (_names(_open(folder, split)) for split in ("train", "val"))
  bad = [sorted(val)[0], *sorted(train)[:2]]
  (folder / "basic/Image/original" / bad[0]).unlink()
  (folder / f"basic/Annotation/boundingbox/{bad[1][:-4]}_boundingbox.txt").write_text("1 2")
  (folder / LIST).write_text((folder / LIST).read_text().replace(f"{bad[2]} 4", f"{bad[2]} 9"))
  sources = [_open(folder, split, "skip") for split in ("train", "val")]
  assert [_names(source) for source in sources] == [train - set(bad), val - set(bad)]
  assert [len(source.skipped) for source in sources] == [2, 1]
  assert bad[0] in sources[1].skipped[0]


def test_the_split_of_earlier_runs_is_kept(folder):
  """The records of earlier releases, which resumed runs depend on."""
  expected = {f"train_{i:05d}.jpg" for i in (16, 20, 27, 34, 42, 51)}
  assert _names(_open(folder, "val")) == expected


LANDMARKS = "30.5\t40.2\n" * 5


def _attributes(folder, codes):
  (folder / "basic/Annotation/manual").mkdir(parents=True)
  for name, text in codes.items():
    (folder / f"basic/Annotation/manual/{name}_manu_attri.txt").write_text(f"{LANDMARKS}{text}")


def test_manual_annotation_becomes_attributes(folder):
  """The codes of the released readme; a face without the file is unknown."""
  assert _open(folder, "test").attributes == {}
  _attributes(folder, {"test_0001": "0\n1\n2\n", "test_0002": "2\n0\n4", "test_0004": "1\n2\n0"})
  attributes = _open(folder, "test").attributes
  assert attributes["gender"] == ["male", "unsure", "", "female", "", "", ""]
  assert attributes["race"] == ["African-American", "Caucasian", "", "Asian", "", "", ""]
  assert attributes["age"] == ["20-39", "70+", "", "0-3", "", "", ""]


@pytest.mark.parametrize(
  ("codes", "message"),
  [
    ("0\n3\n1\n", r"test_0001_manu_attri.txt: line 7 is '3'; expected the code of race: 0 Cauca"),
    ("0\n1\n", r"test_0001_manu_attri.txt: line 8 is ''; expected the code of age: 0 0-3, 1 4-19"),
  ],
)
def test_bad_attributes_are_refused(folder, codes, message):
  _attributes(folder, {"test_0001": codes})
  with pytest.raises(RecordError, match=message):
    _open(folder, "test")

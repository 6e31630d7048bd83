"""The whole way of a film, with faces that are found without a network."""

import csv
import json
from fractions import Fraction

import av
import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from ferjax.video.analysis import analyse
from ferjax.video.reading import VideoReader
from ferjax.video.results import VideoResults
from ferjax.video.source import video_source


def _analyse(film, predictor, output, *, smoothing=0.2, annotated=True, stride=1, **options):
  with VideoReader(video_source([film]), stride=stride) as reader:
    results = VideoResults(
      output,
      reader,
      predictor,
      header={"video": str(film)},
      smoothing=smoothing,
      annotated=annotated,
      with_detections=False,
    )
    with results:
      analyse(reader, predictor, results, **options)
  return results


def _decoded(path, kind):
  with av.open(str(path)) as container:
    return list(container.decode(**{kind: 0}))


def _samples(path):
  return np.concatenate([frame.to_ndarray() for frame in _decoded(path, "audio")], axis=-1)


@pytest.fixture(scope="module")
def scenes(portraits, place):
  """Two faces that move towards each other, one that disappears, and frames without any."""
  first = [place((portraits[0], (4 + i, 20)), (portraits[1], (108 - i, 30))) for i in range(10)]
  return [*first, *[place((portraits[0], (14 + i, 20))) for i in range(5)], *[place()] * 3]


@pytest.fixture(scope="module")
def film(make_film, scenes, tmp_path_factory):
  times = np.cumsum([0.0, *[0.04, 0.1] * 8, 0.04])
  path = tmp_path_factory.mktemp("films") / "film.mp4"
  return make_film(path, scenes, times=times, sound="aac")


@pytest.fixture(scope="module")
def output(film, finder, tmp_path_factory):
  """The folder with all results of the film."""
  folder = tmp_path_factory.mktemp("output")
  _analyse(film, finder, folder)
  return folder


def _rows(output):
  with (output / "faces.csv").open(newline="") as file:
    return list(csv.DictReader(file))


def test_the_tables(film, finder, output):
  """Rows against the frames, predicted one by one, and smoothing against the sum over all."""
  rows = _rows(output)
  frames = [f.to_ndarray(format="rgb24") for f in _decoded(film, "video")]
  expected = [face for p in finder.predict(frames) for face in p.faces]
  assert len(rows) == len(expected) == 25
  for row, face in zip(rows, expected, strict=True):
    assert [float(row[edge]) for edge in ("x1", "y1", "x2", "y2")] == list(face.box)
    assert (float(row["score"]), row["expression"]) == (round(face.score, 6), face.expression)
    for name, score in face.scores.items():
      assert float(row[f"raw_{name}"]) == pytest.approx(score, abs=1e-6)
  times = np.cumsum([0.0, *[0.04, 0.1] * 8, 0.04])
  assert [float(row["time"]) for row in rows] == pytest.approx(
    times[[int(row["frame"]) for row in rows]], abs=1e-3
  )
  assert [row["track"] for row in rows] == ["1", "2"] * 10 + ["1"] * 5
  mine = [row for row in rows if row["track"] == "1"]
  scores = np.array([float(row["raw_bright"]) for row in mine])
  ages = np.array([float(row["time"]) for row in mine]) - float(mine[-1]["time"])
  weights = np.exp(ages / 0.2)
  smoothed = weights @ scores / weights.sum()
  assert float(mine[-1]["smoothed_bright"]) == pytest.approx(smoothed, abs=1e-5)

  table = pyarrow.parquet.read_table(output / "faces.parquet").to_pylist()
  for row, stored in zip(rows, table, strict=True):
    assert row.keys() == stored.keys()
    assert all(type(value)(row[name]) == value for name, value in stored.items())


def test_the_summary(film, output):
  document = json.loads((output / "video.json").read_text())
  tracks = document.pop("tracks")
  assert document.pop("duration") == pytest.approx(1.25, abs=0.1)
  assert document.pop("frames_per_second") > 10
  assert document == {
    "video": str(film),
    "class_names": ["dark", "bright"],
    "complete": True,
    "damage": [],
    "width": 160,
    "height": 96,
    "frames": 18,
    "analysed": 18,
    "without_a_face": 3,
    "faces": 25,
    "annotated": "annotated.mp4",
    "timelines": ["timelines/track-1.png", "timelines/track-2.png"],
  }
  rows = _rows(output)
  with (output / "tracks.csv").open(newline="") as file:
    table = list(csv.DictReader(file))
  for track, row in zip(tracks, table, strict=True):
    assert {name: str(value) for name, value in track.items()} == row
    mine = [face for face in rows if face["track"] == row["track"]]
    assert track["frames"] == len(mine)
    assert (track["first"], track["last"]) == pytest.approx(
      (float(mine[0]["time"]), float(mine[-1]["time"])), abs=1e-3
    )
    mean = np.mean([float(face["raw_bright"]) for face in mine])
    assert track["mean_bright"] == pytest.approx(mean, abs=1e-5)
    named = [face["smoothed_expression"] for face in mine]
    assert track["share"] == named.count(track["expression"]) / len(named)
  for name in document["timelines"]:
    with Image.open(output / name) as image:
      assert image.width > 500
  assert not list(output.glob(".partial*"))


def test_the_annotated_film(film, output):
  """The same times and sound; boxes where the faces are, and nothing elsewhere."""
  copy = output / "annotated.mp4"
  before, after = _decoded(film, "video"), _decoded(copy, "video")
  assert [f.time for f in after] == pytest.approx([f.time for f in before], abs=1e-3)
  np.testing.assert_array_equal(_samples(copy), _samples(film))
  frame = after[3].to_ndarray(format="rgb24").astype(int)
  original = before[3].to_ndarray(format="rgb24").astype(int)
  changed = np.abs(frame - original).max(axis=-1) > 60
  assert changed[20:68, 7:55].any()
  assert not changed[90:].any()
  plain = np.abs(after[17].to_ndarray(format="rgb24").astype(int)).mean()
  assert plain < 2


def test_stride_and_seconds(film, finder, tmp_path):
  results = _analyse(film, finder, tmp_path, stride=5, annotated=False, seconds=0.7)
  assert [row["frame"] for row in _rows(tmp_path)] == ["0", "0", "5", "5", "10"]
  assert (results.analysed, results.annotated, results.complete) == (3, None, True)
  assert not (tmp_path / "annotated.mp4").exists()


def test_odd_sizes_and_other_sound(make_film, finder, place, portraits, tmp_path):
  """Wide pixels make 95 columns, which H.264 does not have; and MP4 does not hold this sound."""
  images = [place((portraits[0], (20, 20)), size=(96, 76))] * 3
  path = make_film(tmp_path / "film.mkv", images, aspect=Fraction(5, 4), sound="wavpack")
  (tmp_path / "annotated.mp4").touch()  # of an earlier run
  results = _analyse(path, finder, tmp_path)
  assert results.annotated == "annotated.mkv"
  assert not (tmp_path / "annotated.mp4").exists()
  np.testing.assert_array_equal(_samples(tmp_path / "annotated.mkv"), _samples(path))
  assert _decoded(tmp_path / "annotated.mkv", "video")[0].width == 94
  assert results.persons.all()[0].frames == 3


def test_stopping_keeps_what_was_computed(film, finder, tmp_path):
  done = []
  results = _analyse(film, finder, tmp_path, advance=done.append, stopped=lambda: len(done) == 2)
  assert (results.analysed, results.complete, sum(done)) == (8, False, 8)
  assert len(_rows(tmp_path)) == 16
  assert len(_decoded(tmp_path / "annotated.mp4", "video")) == 8
  assert json.loads((tmp_path / "video.json").read_text())["complete"] is False


def test_an_error_keeps_what_was_computed(film, finder, tmp_path):
  def fail(frames):
    raise OSError("no space left")

  with pytest.raises(OSError, match="no space left"):
    _analyse(film, finder, tmp_path, advance=fail)
  assert len(_rows(tmp_path)) == 8
  assert json.loads((tmp_path / "video.json").read_text())["complete"] is False


def test_a_truncated_film(make_film, finder, scenes, tmp_path):
  path = make_film(tmp_path / "film.mkv", scenes * 3, times=np.arange(54) / 10)
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) * 3 // 4])
  results = _analyse(path, finder, tmp_path)
  assert 10 < results.analysed < 54
  assert not results.complete
  assert "says that it has 5.3" in results.damage[-1]


def test_a_bad_setting_leaves_no_file(film, finder, tmp_path):
  with pytest.raises(ValueError, match="the smoothing is -1"):
    _analyse(film, finder, tmp_path / "out", smoothing=-1.0)
  assert not (tmp_path / "out").exists()

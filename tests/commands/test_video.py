"""`ferjax predict` of films; test_predict.py has the test with a detector."""

import csv
import importlib.util
import json
import pathlib
import signal
from fractions import Fraction

import av
import numpy as np
import pytest

from ferjax.commands.main import main
from ferjax.inference.base import ImagePredictor
from ferjax.inference.results import Face


class WholeImage(ImagePredictor[float]):
  """A classifier of images: the score is the brightness. Presses Ctrl-C at the given batch."""

  def __init__(self, interrupt_at=0):
    self.class_names, self.step, self.batch_size, self.settings = ("dark", "bright"), 7, 2, {}
    self._batches, self._interrupt_at = 0, interrupt_at

  def _inputs(self, image):
    return float(image.mean()) / 255

  def _faces(self, batch):
    self._batches += 1
    if self._batches == self._interrupt_at:
      signal.raise_signal(signal.SIGINT)
    return [
      (Face(None, max(x, 1 - x), "bright" if x > 0.5 else "dark", {"dark": 1 - x, "bright": x}),)
      for x in (prepared.inputs for prepared in batch)
    ]


@pytest.fixture(scope="module")
def film(tmp_path_factory):
  """Seven frames of noise in large squares, 64x64, one a second."""
  rng = np.random.default_rng(1)
  path = tmp_path_factory.mktemp("films") / "film.mkv"
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=1, options={"crf": "1"})
    stream.width = stream.height = 64
    for index in range(7):
      image = rng.integers(0, 256, (8, 8, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
      frame = av.VideoFrame.from_ndarray(image, format="rgb24")
      frame.pts, frame.time_base = index, Fraction(1)
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  return path


@pytest.fixture
def frames(film):
  with av.open(str(film)) as container:
    return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def _results(output):
  with (output / "faces.csv").open(newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  return json.loads((output / "video.json").read_text()), rows


def test_a_classifier_alone(film, frames, tmp_path, monkeypatch, capsys):
  """The film shows one face: one track, without boxes."""
  monkeypatch.setattr("ferjax.commands.video.load", lambda *_, **__: WholeImage())
  output = tmp_path / "out"
  assert main(["predict", str(film), "--checkpoint", "x", "--output", str(output)]) == 0
  document, rows = _results(output)
  printed = capsys.readouterr().out.splitlines()
  assert printed[0].split() == ["track", "first", "last", "frames", "expression"]
  assert printed[1].split()[:4] == ["1", "0.00s", "6.00s", "7"]
  assert "faces                     7" in printed
  assert printed[-1] == f"Results in {output}"
  assert [row["track"] for row in rows] == ["1"] * 7
  assert {row["x1"] for row in rows} == {""}
  bright = [image.mean() / 255 for image in frames]
  assert [float(row["raw_bright"]) for row in rows] == pytest.approx(bright, abs=1e-6)
  assert document["tracks"][0]["mean_bright"] == pytest.approx(np.mean(bright), abs=1e-5)


def test_interrupted(film, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr("ferjax.commands.video.load", lambda *_, **__: WholeImage(interrupt_at=2))
  before = signal.getsignal(signal.SIGINT)
  output = tmp_path / "out"
  assert main(["predict", str(film), "--checkpoint", "x", "--output", str(output)]) == 130
  document, rows = _results(output)
  assert (document["complete"], document["analysed"], len(rows)) == (False, 4, 4)
  assert f"Results in {output}" in capsys.readouterr().out
  assert signal.getsignal(signal.SIGINT) is before


def test_a_truncated_film(film, tmp_path, monkeypatch, capsys):
  """What is there is kept, and said."""
  monkeypatch.setattr("ferjax.commands.video.load", lambda *_, **__: WholeImage())
  with av.open(str(film)) as container:
    packets = [packet for packet in container.demux(video=0) if packet.size]
    place = film.read_bytes().index(bytes(packets[4]))
  part = tmp_path / "part.mkv"
  part.write_bytes(film.read_bytes()[:place])
  output = tmp_path / "out"
  code = main(["predict", str(part), "--checkpoint", "x", "--output", str(output)])
  captured = capsys.readouterr()
  assert code == 0, captured.err
  document, rows = _results(output)
  assert 0 < len(rows) < 7
  assert (document["complete"], len(document["damage"])) == (False, 1)
  assert f"ferjax: warning: {part}: {document['damage'][0]}" in captured.err


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["FILM", "--seconds", "-1"], "--seconds is -1; expected a positive number of seconds"),
    (["FILM", "--frame-stride", "0"], "the frame stride is 0; expected at least 1"),
    (["FILM", "--timeout", "0"], "the time-out is 0.0 s; expected a positive"),
    (["FILM", "--batch-size", "0"], "batch_size is 0; expected at least 1"),
    (["FILM", "--recursive"], "--recursive is for images, and FILM is a video"),
    (["FILM", "FILM"], "FILM is a video, and 2 paths were given"),
    (["FILM", "--output", "FILM"], "FILM: is a file; expected a folder"),
    (["FILM", "--checkpoint", "no-such"], "no-such"),
    (["TEXT"], "TEXT: not a video, or damaged at its start or its index"),
    (["no-such.mp4"], "no-such.mp4: no such file"),
    (["/dev/video7531"], "/dev/video7531: no such camera"),
    (["a.jpg", "--frame-stride", "2"], "--frame-stride 2 is for a video, and a.jpg is none"),
  ],
)
def test_errors(film, arguments, message, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  pathlib.Path("text.mp4").write_text("words " * 500)
  names = {"FILM": str(film), "TEXT": "text.mp4"}
  assert main(["predict", *(names.get(argument, argument) for argument in arguments)]) == 2
  for name, path in names.items():
    message = message.replace(name, path)
  error = capsys.readouterr().err
  assert error.startswith("ferjax: error: ")
  assert error.count("\n") == 1
  assert message in error
  assert not pathlib.Path("predictions").exists()


def test_the_extra_is_missing(film, monkeypatch, capsys):
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util, "find_spec", lambda name: None if name == "av" else find(name)
  )
  assert main(["predict", str(film)]) == 2
  assert "is a video, which needs av; install the extra: pip install 'ferjax[video]'" in (
    capsys.readouterr().err
  )

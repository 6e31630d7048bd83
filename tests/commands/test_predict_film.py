"""`ferjax predict` of a film with a network; test_video.py has the tests without one."""

import csv
import json

import av
import numpy as np
import pytest

from ferjax.commands.main import main
from ferjax.inference.detection import Predictor

# As in test_predict.py, so that a program in the cache is found.
SETTINGS = ["--batch-size", "3", "--score-threshold", "0.5"]

pytestmark = pytest.mark.usefixtures("cached_programs")


def test_film(tiny_checkpoint, tmp_path):
  rng = np.random.default_rng(1)
  film = tmp_path / "film.mkv"
  with av.open(str(film), "w") as container:
    stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
    stream.width = stream.height = 64
    for _ in range(7):
      image = rng.integers(0, 256, (8, 8, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
      container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
    container.mux(stream.encode(None))
  with av.open(str(film)) as container:
    frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
  output = tmp_path / "out"
  arguments = ["--checkpoint", str(tiny_checkpoint), "--output", str(output), *SETTINGS]
  assert main(["predict", str(film), *arguments, "--frame-stride", "2", "--smoothing", "0"]) == 0
  with (output / "faces.csv").open(newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  document = json.loads((output / "video.json").read_text())
  predictor = Predictor(tiny_checkpoint, batch_size=3, score_threshold=0.5)
  expected = [
    (2 * index, face)
    for index, prediction in enumerate(predictor.predict(frames[::2]))
    for face in prediction.faces
  ]
  assert len(rows) == len(expected) > 3
  for row, (index, face) in zip(rows, expected, strict=True):
    assert int(row["frame"]) == index
    assert float(row["time"]) == pytest.approx(index / 10, abs=1e-3)
    assert [float(row[edge]) for edge in ("x1", "y1", "x2", "y2")] == pytest.approx(
      face.box, abs=0.02
    )
    for name, score in face.scores.items():
      assert float(row[f"raw_{name}"]) == pytest.approx(score, abs=1e-5)
      assert row[f"smoothed_{name}"] == row[f"raw_{name}"]
  for index in range(0, 7, 2):
    tracks = [row["track"] for row in rows if int(row["frame"]) == index]
    assert len(set(tracks)) == len(tracks)
  assert (document["checkpoint"], document["step"]) == (str(tiny_checkpoint), 3)
  assert (document["video"], document["frame_stride"], document["smoothing"]) == (str(film), 2, 0)
  assert (document["frames"], document["analysed"], document["complete"]) == (7, 4, True)
  assert (output / "annotated.mp4").is_file()

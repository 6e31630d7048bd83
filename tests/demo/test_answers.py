import base64
import io
import pathlib
import re
import tempfile

import av
import numpy as np
import pytest
from PIL import Image

from ferjax.inference.draw import draw_faces


def write_film(path, images, rate=8):
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=rate, options={"crf": "1"})
    stream.height, stream.width = images[0].shape[:2]
    stream.pix_fmt = "yuv444p"
    for image in images:
      container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
    container.mux(stream.encode(None))
  return path


@pytest.fixture(scope="module")
def film(tmp_path_factory, make_picture):
  """3 s: a red patch in all frames."""
  return write_film(tmp_path_factory.mktemp("film") / "a.mp4", [make_picture((1, 1, 0))] * 24)


@pytest.fixture
def own_folder(monkeypatch, tmp_path):
  """Where temporary files lie during a test."""
  monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
  return tmp_path


def values(text):
  """The scores of each face: class -> value."""
  sections = text.split("<section>")[1:]
  pattern = r'aria-label="(.*?)" .*?aria-valuenow="(.*?)"'
  return [{name: float(x) for name, x in re.findall(pattern, part)} for part in sections]


def status(text):
  return re.search(r'role="status">(.*?)</p>', text)[1]


def problem(text):
  assert "<img" not in text
  assert "<section" not in text
  return re.search(r'role="alert">(.*?)</p>', text)[1]


def first_picture(text):
  encoded = re.search(r'<img src="data:image/jpeg;base64,(.*?)"', text)[1]
  return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))


def distance(image, other):
  return np.abs(image.astype(float) - other).mean()


def test_an_image(make_answers, make_picture, encode, predictor):
  image = make_picture((0, 1, 0), (2, 2, 2), (3, 0, 0))
  text = make_answers().image(encode(image), "a<b>.png")
  assert status(text) == "a&lt;b&gt;.png: 3 faces found: 2 red, 1 blue"
  (prediction,) = predictor.predict([image])
  for shown, face in zip(values(text), prediction.faces, strict=True):
    expected = {name.replace("<b>", "&lt;b&gt;"): score for name, score in face.scores.items()}
    assert shown == pytest.approx(expected, abs=1e-3)
  assert text.count("<img") == 2  # annotated, evidence
  assert [f"Face {n}: " in text for n in (1, 2, 3, 4)] == [True, True, True, False]
  shown = first_picture(text)
  numbered = draw_faces(image, prediction.faces, numbers=(1, 2, 3))
  assert distance(shown, numbered) < 0.5 * distance(shown, draw_faces(image, prediction.faces))


def test_an_image_without_a_face(make_answers, make_picture, encode):
  text = make_answers().image(encode(make_picture()), "dark.png")
  assert status(text).startswith("dark.png: no face was found. Faces that are small")
  assert values(text) == []
  assert text.count("<img") == 1


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_a_broken_image(make_answers, content):
  message = problem(make_answers().image(content, "a.png"))
  assert message.startswith("a.png: ")
  assert message.endswith("Choose a JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF file.")


def test_a_large_image(make_answers, make_picture, encode):
  message = problem(make_answers(max_pixels=1000).image(encode(make_picture()), "a.png"))
  assert "32x32 pixels are more than the limit of 1000" in message


def test_a_frame(make_answers, make_picture, encode):
  text = make_answers().frame(encode(make_picture((1, 1, 2))))
  assert "1 face found: 1 blue" in text
  assert max(values(text)[0].items(), key=lambda x: x[1])[0] == "blue"
  assert text.count("<img") == 1
  assert problem(make_answers().frame(b"")).startswith("the frame: not an image")


def test_a_film(make_answers, film, own_folder):
  text = make_answers().film(film, "a.mp4")
  assert status(text) == "a.mp4: 1 person found, a face in 24 of 24 analysed frames"
  assert "Person 1: red in 100% of 24 frames" in text
  (scores,) = values(text)
  assert max(scores, key=scores.get) == "red"
  (content,) = re.findall(r'<video controls src="data:video/mp4;base64,(.*?)"', text)
  path = own_folder / "annotated.mp4"
  path.write_bytes(base64.b64decode(content))
  with av.open(str(path)) as annotated:
    assert len(list(annotated.decode(video=0))) == 24
  assert list(own_folder.iterdir()) == [path]  # the folder of the results is gone


def test_limits_of_a_film(make_answers, film):
  text = make_answers(film_seconds=1.0, frame_rate=4.0).film(film, "a.mp4")
  assert status(text).endswith("a face in 5 of 5 analysed frames")
  assert "Only the first 1 s of 3.0 s were analysed." in text
  assert "1000" in problem(make_answers(max_pixels=1000).film(film, "a.mp4"))


def test_work_on_a_film_ends(make_answers, film):
  message = problem(make_answers(timeout=1e-9).film(film, "a.mp4"))
  assert message == "a.mp4: no frame was analysed within 1e-09 s; try again later"


def test_a_film_without_a_face(make_answers, make_picture, tmp_path):
  path = write_film(tmp_path / "a.mov", [make_picture()] * 3)
  text = make_answers().film(path, "a.mov")
  assert status(text) == "a.mov: no persons found, a face in 0 of 3 analysed frames"


def test_a_truncated_film(make_answers, make_picture, tmp_path):
  noise = np.random.default_rng(0).integers(0, 60, (24, 32, 32, 3), np.uint8)
  frames = [np.maximum(make_picture((1, 1, 0)), x) for x in noise]
  path = write_film(tmp_path / "a.mkv", frames)
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  text = make_answers().film(path, "a.mkv")
  found, frames = map(int, re.search(r"a face in (\d+) of (\d+)", status(text)).groups())
  assert 0 < found == frames < 24
  assert "Damaged: " in text


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("a.txt", b"text", "a.txt: not a film; expected a name that ends in .mp4"),
    ("a.mp4", b"", "a.mp4: not a video, or damaged"),
    ("a.mp4", b"no film" * 100, "a.mp4: not a video, or damaged"),
    # Playlists would make FFmpeg open other files.
    ("a.mp4", b"ffconcat version 1.0\nfile b.mp4\n", "a.mp4: not a video, or damaged"),
    ("a.mkv", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nb.ts\n", "a.mkv: not a video"),
  ],
)
def test_a_broken_film(make_answers, tmp_path, name, content, message):
  path: pathlib.Path = tmp_path / name
  path.write_bytes(content)
  assert problem(make_answers().film(path, name)).startswith(message)

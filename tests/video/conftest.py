"""Small films with faces that move, and a predictor that finds them without a network."""

import pathlib
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from ferjax.inference.base import ImagePredictor
from ferjax.inference.results import Face
from ferjax.video.reading import VideoReader
from ferjax.video.source import video_source

PORTRAITS = pathlib.Path(__file__).parents[1] / "photographs" / "portraits.jpg"


@pytest.fixture(scope="session")
def portraits():
  """Three faces of credited persons, u8[48 48 3] each."""
  with Image.open(PORTRAITS) as image:
    width, height = image.width // 3, image.height
    return [
      np.array(image.crop((i * width, 0, (i + 1) * width, height)).resize((48, 48)))
      for i in range(3)
    ]


def write_film(path, images, *, times=None, rate=25, codec="libx264", sound=None, aspect=None):
  """Writes RGB images at `times` in seconds, with a tone as long as the film if `sound` is a codec.

  The pictures are encoded without visible loss.
  """
  height, width = images[0].shape[:2]
  options = {"libx264": {"crf": "1", "preset": "ultrafast"}}.get(codec, {})
  with av.open(str(path), "w") as container:
    stream = container.add_stream(codec, rate=rate, options=options)
    stream.width, stream.height = width, height
    stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    # MPEG-4 has at most 16 bits for it.
    stream.codec_context.time_base = Fraction(1, 1000)
    if aspect is not None:
      stream.codec_context.sample_aspect_ratio = aspect
    tone = None if sound is None else container.add_stream(sound, rate=48000)
    for index, image in enumerate(images):
      frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
      time = index / rate if times is None else times[index]
      frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
    if tone is not None:
      for number in range(round(len(images) / rate * 48000 / 1024)):
        wave = np.sin(np.arange(1024) * 0.1 + number).astype(np.float32)
        block = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
        block.sample_rate, block.pts = 48000, 1024 * number
        block.time_base = Fraction(1, 48000)
        container.mux(tone.encode(block))
      container.mux(tone.encode(None))
  return path


@pytest.fixture(scope="session")
def make_film():
  return write_film


@pytest.fixture
def read_all():
  """The frames of a file, and what is said about its damage."""

  def read(path, **options):
    with VideoReader(video_source([path]), **options) as reader:
      items = list(reader.items())
      return [item for item in items if not isinstance(item, av.Packet)], reader.damage(), reader

  return read


class FindsBright(ImagePredictor[np.ndarray]):
  """Finds squares of 48 pixels on a black frame: the columns and rows that are not dark."""

  def __init__(self, batch_size=4):
    self.class_names = ("dark", "bright")
    self.step = None
    self.batch_size = batch_size
    self.settings = {"threshold": 40}

  def _inputs(self, image):
    return image

  def _faces(self, batch):
    return [tuple(self._found(prepared.inputs)) for prepared in batch]

  def _found(self, image):
    columns = np.flatnonzero(image.max(axis=(0, 2)) > 40)
    for group in np.split(columns, np.flatnonzero(np.diff(columns) > 4) + 1):
      if len(group) > 20:
        rows = np.flatnonzero(image[:, group].max(axis=(1, 2)) > 40)
        left, right = int(group[0]), int(group[-1]) + 1
        top, bottom = int(rows[0]), int(rows[-1]) + 1
        bright = float(image[top:bottom, left:right].mean()) / 255
        scores = {"dark": 1 - bright, "bright": bright}
        name = max(scores, key=scores.get)
        box = (float(left), float(top), float(right), float(bottom))
        yield Face(box, scores[name], name, scores)


@pytest.fixture(scope="session")
def finder():
  return FindsBright()


@pytest.fixture(scope="session")
def place():
  """A black frame of 160x96 with faces at (left, top)."""

  def compose(*faces, size=(96, 160)):
    image = np.zeros((*size, 3), np.uint8)
    for face, (left, top) in faces:
      image[top : top + face.shape[0], left : left + face.shape[1]] = face
    return image

  return compose

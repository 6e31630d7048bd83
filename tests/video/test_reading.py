import socket
import struct
import threading

import av
import numpy as np
import pytest

from ferjax.video.reading import VideoReader, oriented
from ferjax.video.source import VideoSource, video_source


@pytest.fixture(scope="module")
def images():
  """Eight frames of 64x48: a gradient, with a bright square that moves along the top."""
  frames = []
  for index in range(8):
    image = np.zeros((48, 64, 3), np.uint8)
    image[..., 2] = np.linspace(0, 120, 48)[:, None]
    image[4:12, 4 + 6 * index : 12 + 6 * index] = (250, 200, 60)
    frames.append(image)
  return frames


@pytest.fixture(scope="module")
def film(make_film, images, tmp_path_factory):
  return make_film(tmp_path_factory.mktemp("films") / "film.mp4", images, sound="aac")


def _close(image, expected):
  """Whether two images are equal but for the loss by encoding; colours are stored in quarters."""
  return np.abs(image.astype(float) - expected).mean() < 4


def test_frames_and_times(film, images, read_all):
  frames, damage, reader = read_all(film)
  assert [frame.index for frame in frames] == list(range(8))
  assert [frame.time for frame in frames] == pytest.approx(np.arange(8) / 25)
  assert all(_close(f.image, image) for f, image in zip(frames, images, strict=True))
  assert (damage, reader.missing(), reader.count, reader.rate) == ([], None, 8, 25)


def test_stride(film, read_all):
  frames, _, reader = read_all(film, stride=3)
  assert [(f.index, round(f.time, 6)) for f in frames] == [(0, 0), (3, 0.12), (6, 0.24)]
  assert reader.frames == 8


def test_until(film):
  with VideoReader(video_source([film])) as reader:
    frames = [item for item in reader.items(until=0.1) if not isinstance(item, av.Packet)]
  assert [frame.index for frame in frames] == [0, 1, 2]


def test_varying_times(make_film, images, tmp_path, read_all):
  times = [0.0, 0.04, 0.05, 0.3, 0.31, 0.9, 1.0, 1.5]
  path = make_film(tmp_path / "film.mkv", images, times=times)
  assert [frame.time for frame in read_all(path)[0]] == pytest.approx(times, abs=0.002)


def test_a_clock_that_does_not_start_at_0(make_film, images, tmp_path, read_all):
  path = make_film(tmp_path / "film.mkv", images, times=10 + np.arange(8) / 25)
  with av.open(str(path)) as container:
    assert container.start_time == 10_000_000
  assert [frame.time for frame in read_all(path)[0]] == pytest.approx(np.arange(8) / 25, abs=1e-3)


def test_a_film_without_times(make_film, images, tmp_path, read_all):
  path = make_film(tmp_path / "film.h264", images)
  times = [frame.time for frame in read_all(path)[0]]
  assert len(times) == 8
  assert np.diff(times).min() > 0


def _with_matrix(path, matrix, out):
  """A copy of an MP4 file with another display matrix in the header of its first track."""
  data = bytearray(path.read_bytes())
  place = data.index(b"tkhd") + 4 + 40
  data[place : place + 36] = struct.pack(">9i", *(int(x * 65536) for x in matrix[:8]), 1 << 30)
  out.write_bytes(data)
  return out


# Named by what a player does with the stored picture.
@pytest.mark.parametrize(
  ("matrix", "shown"),
  [
    ((1, 0, 0, 0, 1, 0, 0, 0), lambda image: image),
    ((0, 1, 0, -1, 0, 0, 48, 0), lambda image: np.rot90(image, -1)),  # a quarter turn clockwise
    ((-1, 0, 0, 0, -1, 0, 64, 48), lambda image: np.rot90(image, 2)),
    ((0, -1, 0, 1, 0, 0, 0, 64), lambda image: np.rot90(image)),
    ((-1, 0, 0, 0, 1, 0, 64, 0), np.fliplr),
  ],
)
def test_rotation(film, images, matrix, shown, tmp_path, read_all):
  frames = read_all(_with_matrix(film, matrix, tmp_path / "turned.mp4"))[0]
  expected = shown(images[2])
  assert frames[2].image.shape == expected.shape
  assert _close(frames[2].image, expected)


def test_orientation_is_a_permutation_of_pixels():
  """Each pixel goes where the matrix sends its position, against a loop."""
  image = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
  for a, b, c, d in ((1, 0, 0, 1), (0, 1, -1, 0), (0, 1, 1, 0), (0, -1, -1, 0), (1, 0, 0, -1)):
    places = {(a * x + c * y, b * x + d * y): image[y, x] for y in range(3) for x in range(5)}
    left, top = min(x for x, _ in places), min(y for _, y in places)
    shown = oriented(image, (a, b, 0, c, d, 0, 0, 0, 1))
    for (x, y), pixel in places.items():
      np.testing.assert_array_equal(shown[y - top, x - left], pixel)


def test_wide_pixels(make_film, images, tmp_path, read_all):
  path = make_film(tmp_path / "film.mp4", images, aspect=2)
  frames = read_all(path)[0]
  assert frames[0].image.shape == (48, 128, 3)
  assert _close(frames[0].image, np.repeat(images[0], 2, axis=1))


def test_a_truncated_film(make_film, images, tmp_path, read_all):
  """What can be read is kept, and the end is missed."""
  times = np.arange(40) / 10
  path = make_film(tmp_path / "film.mkv", images * 5, times=times)
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) * 7 // 10])
  frames, damage, reader = read_all(path)
  assert 5 < len(frames) < 35
  assert [frame.time for frame in frames] == pytest.approx(times[: len(frames)], abs=0.002)
  assert damage or "but says that it has" in reader.missing()


def test_a_damaged_film(make_film, tmp_path, read_all):
  """Noise, so that the data of pictures fill the file; a part of them is overwritten."""
  rng = np.random.default_rng(0)
  images = [rng.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(12)]
  path = make_film(tmp_path / "film.mp4", images)
  data = bytearray(path.read_bytes())
  middle = len(data) // 2
  data[middle : middle + 2000] = rng.bytes(2000)
  path.write_bytes(data)
  frames, damage, _ = read_all(path)
  assert 6 <= len(frames) <= 12
  assert any("could not be decoded" in line or "damaged in part" in line for line in damage)


def test_sound_without_pictures(make_film, images, tmp_path):
  with av.open(str(tmp_path / "song.m4a"), "w", format="mp4") as container:
    stream = container.add_stream("aac", rate=48000)
    block = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
    block.sample_rate = 48000
    container.mux(stream.encode(block))
    container.mux(stream.encode(None))
  with pytest.raises(ValueError, match=r"song.m4a: no video stream \(only audio\)"):
    VideoReader(video_source([tmp_path / "song.m4a"]))


def test_other_files(tmp_path, film):
  path = tmp_path / "text.mp4"
  path.write_text("These are words, not pictures.\n" * 100)
  with pytest.raises(OSError, match=r"text.mp4: not a video, or damaged at its start"):
    VideoReader(video_source([path]))
  path.write_bytes(b"")
  with pytest.raises((OSError, ValueError), match=r"text.mp4: not a video"):
    VideoReader(video_source([path]))
  # The index of an MP4 file is at its end.
  data = film.read_bytes()
  path.write_bytes(data[: data.index(b"moov")])
  with pytest.raises(OSError, match="or damaged at its start or its index"):
    VideoReader(video_source([path]))


def test_no_answer():
  """A server that takes the connection and says nothing."""
  with socket.create_server(("127.0.0.1", 0)) as server:
    address = f"http://127.0.0.1:{server.getsockname()[1]}/film.mp4"
    with pytest.raises(OSError, match=r"no answer within 0.3 s; check the address, or --timeout"):
      VideoReader(video_source([address]), timeout=0.3)
  with pytest.raises(OSError, match="cannot be opened"):
    VideoReader(video_source([address]), timeout=5.0)


def test_a_stream_that_stops(make_film, images, tmp_path):
  """A server sends the first part of a film, and then nothing."""
  film = make_film(tmp_path / "film.ts", images * 8).read_bytes()
  done = threading.Event()

  def serve(server):
    connection, _ = server.accept()
    with connection:
      connection.recv(4096)
      connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n")
      connection.sendall(film[: len(film) * 3 // 4])
      done.wait(20)

  with socket.create_server(("127.0.0.1", 0)) as server:
    thread = threading.Thread(target=serve, args=(server,))
    thread.start()
    try:
      address = f"http://127.0.0.1:{server.getsockname()[1]}/film.ts"
      # Without the limit, FFmpeg looks for more streams until the time-out.
      source = VideoSource(address, address, None, live=True)
      with VideoReader(source, timeout=1.0) as reader:
        frames = list(reader.items())
        damage = reader.damage()
    finally:
      done.set()
      thread.join()
  assert len(frames) > 20
  assert "no data for 1 s" in damage[-1]


@pytest.mark.parametrize(
  ("options", "message"),
  [({"stride": 0}, "the frame stride is 0"), ({"timeout": -1.0}, "the time-out is -1.0 s")],
)
def test_errors(film, options, message):
  with pytest.raises(ValueError, match=message):
    VideoReader(video_source([film]), **options)

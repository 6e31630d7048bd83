import pytest

from ferjax.video.source import video_source


@pytest.mark.parametrize("name", ["a.mp4", "b.MOV", "c.mkv", "song.mp3"])
def test_files(tmp_path, name):
  path = tmp_path / name
  path.touch()
  source = video_source([path])
  assert source == (str(path), str(path), None, False)


@pytest.mark.parametrize("name", ["a.jpg", "a.gif", "folder.mp4", "no-such.png", "readme"])
def test_images_and_folders_are_no_films(tmp_path, name):
  if name == "folder.mp4":
    (tmp_path / name).mkdir()
  assert video_source([tmp_path / name]) is None


def test_addresses():
  source = video_source(["rtsp://127.0.0.1/door"])
  assert (source.address, source.live) == ("rtsp://127.0.0.1/door", True)
  assert video_source(["https://example.org/a.jpg?x=1"]).live


def test_cameras(monkeypatch):
  monkeypatch.setattr("sys.platform", "linux")
  with pytest.raises(FileNotFoundError, match=r"camera:7531: no such camera \(cameras: "):
    video_source(["camera:7531"])
  with pytest.raises(FileNotFoundError, match="/dev/video7531: no such camera"):
    video_source(["/dev/video7531"])
  monkeypatch.setattr("sys.platform", "darwin")
  assert video_source(["camera:1"]) == ("camera:1", "1", "avfoundation", True)
  monkeypatch.setattr("sys.platform", "win32")
  with pytest.raises(ValueError, match="cameras are read on Linux and macOS only"):
    video_source(["camera:0"])


def test_errors(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"no-such.mp4: no such file"):
    video_source([tmp_path / "no-such.mp4"])
  film = tmp_path / "a.mp4"
  film.touch()
  with pytest.raises(ValueError, match="is a video, and 2 paths were given; expected one video"):
    video_source([film, "a.jpg"])

import os
import pathlib
import sys

import pytest
from PIL import Image

from ferjax.data.image_files import (
  describe_ignored,
  image_suffixes,
  list_images,
)


def _make(folder, *names):
  for name in names:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def _names(folder, **options):
  return [path.relative_to(folder).as_posix() for path in list_images(folder, **options).files]


def test_every_image_format_in_any_case(tmp_path):
  _make(tmp_path, "a.JPG", "b.jfif", "c.jpe", "d.jp2", "e.webp", "f.TiF", "g.bmp", "h.ppm", "i.mpo")
  assert len(_names(tmp_path)) == 9
  assert {".jpg", ".jpeg", ".png", ".gif", ".tif", ".tiff", ".pgm"} <= image_suffixes()
  assert not {".h5", ".hdf", ".mpg", ".pdf", ".eps", ".txt", ""} & image_suffixes()


def test_suffixes_are_those_of_the_installed_pillow():
  Image.init()
  assert image_suffixes() <= set(Image.registered_extensions())


def test_hidden_and_system_files_are_neither_listed_nor_counted(tmp_path):
  hidden = ("._x.jpg", ".y.png", "Thumbs.db", "desktop.ini", ".DS_Store")
  _make(tmp_path, "x.jpg", *hidden, ".cache/z.jpg", "__MACOSX/q.jpg", "sub/@eaDir/x.jpg")
  listing = list_images(tmp_path)
  assert listing.files == [tmp_path / "x.jpg"]
  assert listing.ignored == {}
  assert listing.describe() == ""


def test_ignored_files_are_counted_by_suffix(tmp_path):
  _make(tmp_path, "a.jpg", "b.xyz", "c.XYZ", "sub/d.txt", "README")
  listing = list_images(tmp_path)
  assert listing.ignored == {".xyz": 2, ".txt": 1, "": 1}
  assert listing.describe() == "4 files ignored: 2 .xyz, 1 without a suffix, 1 .txt"
  assert describe_ignored({".txt": 1}) == "1 file ignored: 1 .txt"


def test_subfolders_on_request_sorted_by_folder_and_name(tmp_path):
  _make(tmp_path, "b.jpg", "a/2.jpg", "a/10.jpg", "c/d/e.png")
  assert _names(tmp_path) == ["a/10.jpg", "a/2.jpg", "b.jpg", "c/d/e.png"]
  assert _names(tmp_path, recursive=False) == ["b.jpg"]


def test_a_folder_is_listed_once_by_its_own_path(tmp_path):
  _make(tmp_path, "in/z/1.jpg", "out/2.jpg")
  root = tmp_path / "in"
  (root / "a").symlink_to(root / "z", target_is_directory=True)
  (root / "z" / "loop").symlink_to(root, target_is_directory=True)
  (root / "far").symlink_to(tmp_path / "out", target_is_directory=True)
  (root / "far2").symlink_to(tmp_path / "out", target_is_directory=True)
  assert _names(root) == ["far/2.jpg", "z/1.jpg"]


def test_a_broken_link_is_listed(tmp_path):
  (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
  (tmp_path / "loop").symlink_to(tmp_path / "loop")
  listing = list_images(tmp_path)
  assert listing.files == [tmp_path / "gone.jpg"]
  assert listing.ignored == {"": 1}


def test_excluded_folders_are_not_listed_through_links(tmp_path):
  _make(tmp_path, "in/1.jpg", "in/own/2.jpg")
  (tmp_path / "in" / "link").symlink_to(tmp_path / "in" / "own", target_is_directory=True)
  (tmp_path / "alias").symlink_to(tmp_path / "in", target_is_directory=True)
  own = tmp_path / "alias" / "own"
  assert _names(tmp_path / "in", exclude=[own]) == ["1.jpg"]
  assert _names(tmp_path / "alias", exclude=[tmp_path / "in" / "own"]) == ["1.jpg"]
  assert _names(own, exclude=[own]) == ["2.jpg"]  # asked for by name
  _make(tmp_path, "in/own/deep/3.jpg")
  assert _names(own / "deep", exclude=[own]) == ["3.jpg"]
  (tmp_path / "in" / "deeper").symlink_to(own / "deep", target_is_directory=True)
  (tmp_path / "in" / "4.jpg").symlink_to(own / "2.jpg")
  (tmp_path / "in" / "5.jpg").symlink_to(tmp_path / "in" / "1.jpg")
  assert _names(tmp_path / "in", exclude=[own]) == ["1.jpg", "5.jpg"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_are_not_listed(tmp_path):
  """Reading one waits for ever."""
  os.mkfifo(tmp_path / "pipe.jpg")
  _make(tmp_path, "a.jpg")
  (tmp_path / "link.jpg").symlink_to("pipe.jpg")
  assert _names(tmp_path) == ["a.jpg"]


@pytest.mark.parametrize("folder", ["w [1]", "a*b?", "with space", "字"])
def test_any_folder_name(tmp_path, folder):
  _make(tmp_path / folder, "[x].jpg")
  assert _names(tmp_path / folder) == ["[x].jpg"]


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes are Linux's")
def test_names_that_are_not_utf8(tmp_path):
  name = b"caf\xe9.jpg"
  pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).touch()
  (file,) = list_images(tmp_path).files
  assert os.fsencode(file.name) == name
  assert file.exists()


def test_a_missing_folder(tmp_path):
  with pytest.raises(FileNotFoundError, match="nothing"):
    list_images(tmp_path / "nothing")

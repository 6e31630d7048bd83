"""`find_images`; test_files.py has the tests of the results."""

import os
import pathlib

import pytest

from ferjax.inference.files import find_images


def _touch(root, *names):
  for name in names:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def _found(*paths, recursive=False, output="out"):
  return [
    (pathlib.Path(file.path).name, file.name.as_posix())
    for file in find_images(paths, recursive=recursive, output=output).files
  ]


def test_images_of_a_folder_are_sorted(tmp_path):
  _touch(tmp_path, "b.JPG", "a.png", "c.gif", "notes.txt", ".hidden.jpg", "sub/d.jpg")
  assert _found(tmp_path) == [("a.png", "a.png"), ("b.JPG", "b.JPG"), ("c.gif", "c.gif.png")]


def test_recursive_keeps_the_folders(tmp_path):
  _touch(tmp_path, "x.jpg", "two/x.jpg", "one/deep/x.jpg", ".cache/x.jpg")
  names = [name for _, name in _found(tmp_path, recursive=True)]
  assert names == ["x.jpg", "one/deep/x.jpg", "two/x.jpg"]


def test_names_are_unique(tmp_path):
  _touch(tmp_path, "a/x.jpg", "b/x.jpg", "b/X.jpg", "c/x-2.jpg", "c/s.tif", "d/s.tif.png")
  paths = [tmp_path / "a", tmp_path / "b", tmp_path / "c", tmp_path / "d" / "s.tif.png"]
  names = [name.lower() for _, name in _found(*paths)]
  assert names == ["x.jpg", "x-2.jpg", "x-3.jpg", "s.tif.png", "x-2-2.jpg", "s.tif-2.png"]


def test_copies_of_long_names(tmp_path):
  _touch(tmp_path, "a" * 250 + ".gif", "a" * 250 + ".tif", "é" * 125 + ".tif")
  names = [name for _, name in _found(tmp_path)]
  assert names == ["a" * 250 + "..png", "a" * 249 + "-2.png", "é" * 125 + "..png"]
  assert all(len(os.fsencode(name)) <= 255 for name in names)


def test_a_copy_is_not_named_like_a_folder_of_copies(tmp_path):
  _touch(tmp_path, "a/x.jpg", "b/x.jpg/y.png", "b/z.jpg", "c/z.jpg/y.png")
  found = _found(tmp_path / "a", tmp_path / "b", tmp_path / "c", recursive=True)
  assert [name for _, name in found] == ["x.jpg", "z.jpg", "x.jpg-y.png", "z.jpg-y.png"]
  reverse = _found(tmp_path / "b", tmp_path / "a", recursive=True)
  assert [name for _, name in reverse] == ["z.jpg", "x.jpg/y.png", "x-2.jpg"]


def test_a_file_is_listed_once(tmp_path, monkeypatch):
  _touch(tmp_path, "x.jpg")
  monkeypatch.chdir(tmp_path)
  assert _found("x.jpg", tmp_path, tmp_path / "x.jpg", "./x.jpg") == [("x.jpg", "x.jpg")]


def test_a_named_file_needs_no_suffix(tmp_path):
  _touch(tmp_path, "scan")
  assert _found(tmp_path / "scan") == [("scan", "scan.png")]


def test_images_of_an_earlier_run_are_skipped(tmp_path):
  _touch(tmp_path, "x.jpg", "out/annotated/x.jpg", "out/explained/x.jpg.png", "out/other.jpg")
  names = [name for _, name in _found(tmp_path, recursive=True, output=tmp_path / "out")]
  assert names == ["x.jpg", "out/other.jpg"]


def test_results_are_recognised_through_links(tmp_path):
  _touch(tmp_path, "x.jpg", "out/annotated/x.jpg", "out/explained/x.jpg.png")
  (tmp_path / "linked").symlink_to(tmp_path / "out", target_is_directory=True)
  (tmp_path / "copies").symlink_to(tmp_path / "out" / "annotated", target_is_directory=True)
  for output in (tmp_path / "out", tmp_path / "linked"):
    assert _found(tmp_path, recursive=True, output=output) == [("x.jpg", "x.jpg")]


def test_a_folder_and_a_link_to_it_give_the_same_images(tmp_path):
  _touch(tmp_path, "a/x.jpg")
  (tmp_path / "b").symlink_to(tmp_path / "a", target_is_directory=True)
  assert _found(tmp_path / "a", tmp_path / "b") == [("x.jpg", "x.jpg")]
  assert _found(tmp_path / "b", tmp_path / "a" / "x.jpg") == [("x.jpg", "x.jpg")]


def test_other_files_are_counted(tmp_path):
  _touch(tmp_path, "x.jpg", "a.xyz", "Thumbs.db", "._x.jpg", "more/y.jpg", "more/b.XYZ", "more/c")
  found = find_images([tmp_path], recursive=True, output=tmp_path / "out")
  assert [file.name.as_posix() for file in found.files] == ["x.jpg", "more/y.jpg"]
  assert found.ignored == {".xyz": 2, "": 1}


def test_rare_image_suffixes(tmp_path):
  _touch(tmp_path, "a.jfif", "b.JPE", "c.jp2", "d.webp")
  names = [name for _, name in _found(tmp_path)]
  assert names == ["a.jfif.png", "b.JPE.png", "c.jp2.png", "d.webp"]


def test_paths_without_images(tmp_path):
  _touch(tmp_path, "sub/x.jpg")
  with pytest.raises(FileNotFoundError, match=r"nowhere: no such file or folder"):
    _found(tmp_path / "nowhere")
  with pytest.raises(FileNotFoundError, match=r"without images .*--recursive"):
    _found(tmp_path)
  _touch(tmp_path, "list.txt")
  with pytest.raises(FileNotFoundError, match=r"images \(1 file ignored: 1 \.txt; images end in"):
    _found(tmp_path)

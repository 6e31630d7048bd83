import os
import pathlib
import stat

import pytest

from ferjax.output import (
  atomic_binary_writer,
  atomic_writer,
  check_writable,
  escaped,
  one_line,
  results_folder,
)


def test_escaped_names_are_valid_unicode():
  assert escaped("caf\xe9 结果") == "caf\xe9 结果"
  assert escaped(os.fsdecode(b"caf\xe9.jpg")) == "caf\\udce9.jpg"


def test_a_check_leaves_nothing_behind(tmp_path):
  check_writable(tmp_path / "a" / "b", ["x.json"])
  check_writable(tmp_path)
  assert list(tmp_path.iterdir()) == []
  assert results_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
  (tmp_path / "a" / "b" / "x.json").touch()
  check_writable(tmp_path / "a" / "b", ["x.json"])
  assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["x.json"]


def test_a_folder_without_a_name():
  with pytest.raises(ValueError, match=r"is ''; expected a name, or \. for this folder"):
    check_writable("")


def test_folders_that_cannot_be_written(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(NotADirectoryError, match="file: is a file; expected a folder"):
    check_writable(tmp_path / "file")
  with pytest.raises(OSError, match=r"file/below: results cannot be written there \(Not a dir"):
    check_writable(tmp_path / "file" / "below")
  with pytest.raises(OSError, match="results cannot be written there"):
    check_writable(tmp_path / ("x" * 300))
  (tmp_path / "out" / "x.json").mkdir(parents=True)
  with pytest.raises(IsADirectoryError, match=r"x\.json: is a folder"):
    check_writable(tmp_path / "out", ["x.json"])


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
  tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
  try:
    with pytest.raises(OSError, match=r"results cannot be written there \(Permission denied\)"):
      check_writable(tmp_path / "out")
  finally:
    tmp_path.chmod(stat.S_IRWXU)


def test_a_file_is_replaced_only_when_complete(tmp_path):
  path = tmp_path / "a.txt"
  path.write_text("before")

  def stop_half_way():
    with atomic_writer(path) as file:
      file.write("half")
      raise RuntimeError("stop")

  with pytest.raises(RuntimeError, match="stop"):
    stop_half_way()
  assert path.read_text() == "before"
  with atomic_writer(path) as file:
    file.write("结果 caf\xe9 " + os.fsdecode(b"\xe9"))
  assert path.read_text(encoding="utf-8") == "结果 caf\xe9 \\udce9"
  assert list(tmp_path.iterdir()) == [pathlib.Path(path)]


def test_names_take_one_line():
  name = "a\nb\x1b[31m\u2028\udce9 é字\u200d"
  assert one_line(name) == "a\\nb\\x1b[31m\\u2028\udce9 é字\u200d"


def test_a_file_of_bytes_is_replaced_only_when_complete(tmp_path):
  path = tmp_path / "a.bin"
  path.write_bytes(b"before")

  def stop_half_way():
    with atomic_binary_writer(path) as file:
      file.write(b"half")
      raise RuntimeError("stop")

  with pytest.raises(RuntimeError, match="stop"):
    stop_half_way()
  assert path.read_bytes() == b"before"
  with atomic_binary_writer(path) as file:
    file.write(b"\x00after")
  assert path.read_bytes() == b"\x00after"
  assert list(tmp_path.iterdir()) == [path]

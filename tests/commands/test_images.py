"""Shared code of the commands that process images; the commands have their own tests."""

import argparse
import pathlib
import types

import pytest

from ferjax.commands.errors import CommandError
from ferjax.commands.images import print_ignored, progress_bar, resolve_paths, writing
from ferjax.data.image import ImageError


class Writer:
  def __init__(self):
    self.output, self.written, self.skipped = pathlib.Path("out"), 2, []

  def skip(self, path, reason):
    self.skipped.append({"image": path, "reason": reason})


def _arguments(folder, output):
  return argparse.Namespace(paths=[str(folder)], recursive=False, output=str(output))


def test_images_are_found_and_nothing_is_created(tmp_path, capsys):
  for name in ("b.jpg", "a.png", "list.txt"):
    (tmp_path / name).touch()
  found = resolve_paths(
    _arguments(tmp_path, tmp_path / "out"), files=["x.json"], folders=["sheets"]
  )
  assert [file.name.as_posix() for file in found.files] == ["a.png", "b.jpg"]
  assert not (tmp_path / "out").exists()
  print_ignored(found)
  assert capsys.readouterr().out == "1 file ignored: 1 .txt\n"
  print_ignored(types.SimpleNamespace(ignored={}))
  assert capsys.readouterr().out == ""


def test_outputs_that_cannot_be_written(tmp_path):
  (tmp_path / "a.png").touch()
  output = tmp_path / "out"
  (output / "x.json").mkdir(parents=True)
  (output / "sheets").touch()
  with pytest.raises(IsADirectoryError, match=r"x\.json"):
    resolve_paths(_arguments(tmp_path, output), files=["x.json"], folders=[])
  with pytest.raises(NotADirectoryError, match="sheets: is a file"):
    resolve_paths(_arguments(tmp_path, output), files=[], folders=["sheets"])


@pytest.mark.parametrize(
  ("error", "message"),
  [
    (ImageError("a.png: bad"), r"^a\.png: bad\n  2 of 5 images are in out; --on-bad-image skip"),
    (OSError("disk full"), "^cannot write the results: disk full$"),
  ],
)
def test_errors_become_command_errors(error, message):
  with pytest.raises(CommandError, match=message), writing(Writer(), 5):
    raise error


def test_bad_images_are_reported_or_are_errors(capsys):
  writer = Writer()
  with progress_bar(writer, 2, skip=False) as (_, skip_image):
    assert skip_image is None
  with progress_bar(writer, 2, skip=True) as (advance, skip_image):
    advance()
    skip_image("a.png", ImageError("a.png: bad"))
  assert writer.skipped == [{"image": "a.png", "reason": "bad"}]
  assert "ferjax: warning: skipped a.png: bad\n" in capsys.readouterr().err

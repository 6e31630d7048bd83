"""Parsing, exit codes and code shared by all subcommands."""

import io
import os
import subprocess
import sys

import pytest

from ferjax import __version__
from ferjax.commands.main import main


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ([], "required"),
    (["unknown"], "invalid choice: 'unknown'"),
    (["explain", "a.jpg", "--output", "o"], "--checkpoint"),
    (["predict", "a.jpg", "--crop-margin", "wide"], "the margin is 'wide'; expected one number"),
    (
      ["weights", "save", "c"],
      "ferjax weights save: error: the following arguments are required: ",
    ),
    (["export", "c", "--format", "tflite", "--out", "a"], "'tflite' (choose from"),
    (["predict", "a.jpg", "--checkpoint", "c", "--output", "o", "--step", "x"], "--step"),
  ],
)
def test_wrong_usage(arguments, message, capsys):
  with pytest.raises(SystemExit, match="2"):
    main(arguments)
  error = capsys.readouterr().err
  assert message in error
  (line,) = error.splitlines()
  assert line.startswith("ferjax")
  assert line.endswith(" --help`")


def test_version(capsys):
  with pytest.raises(SystemExit, match="0"):
    main(["--version"])
  assert capsys.readouterr().out == f"ferjax {__version__}\n"


def test_the_installed_command_runs_from_anywhere(tmp_path):
  code = "import sys; from ferjax.commands.main import main; sys.exit(main(['--help']))"
  result = subprocess.run(
    [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
  )
  assert result.returncode == 0, result.stderr
  assert "predict" in result.stdout


def test_a_reader_that_stops_early():
  code = "import sys; from ferjax.commands.main import main; sys.exit(main(['weights', '--help']))"
  read, write = os.pipe()
  os.close(read)
  command = [sys.executable, "-c", code]
  result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
  os.close(write)
  assert (result.returncode, result.stderr) == (0, "")


class _Terminal(io.TextIOWrapper):
  """A terminal with a limited encoding."""

  def __init__(self):
    super().__init__(io.BytesIO(), encoding="cp1252", newline="")

  def text(self):
    self.flush()
    return self.buffer.getvalue().decode("cp1252")


def test_unencodable_characters_are_escaped(monkeypatch):
  out, err = _Terminal(), _Terminal()
  monkeypatch.setattr(sys, "stdout", out)
  monkeypatch.setattr(sys, "stderr", err)
  arguments = ["--checkpoint", "c", "--output", "o"]
  assert main(["predict", "caf\xe9/结果\udce9.jpg", *arguments]) == 2
  assert err.text() == (
    "ferjax: error: caf\xe9/\\u7ed3\\u679c\\udce9.jpg: no such file or folder\n"
  )
  print("结果\udce9")
  assert out.text() == "\\u7ed3\\u679c\\udce9\n"

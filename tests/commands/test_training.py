"""`ferjax train` and `ferjax evaluate`: which program runs, with which config."""

import pathlib
import subprocess
import sys

import pytest

from ferjax.commands.errors import CommandError
from ferjax.commands.main import main
from ferjax.commands.training import PROGRAMS, configs_folder, program_of, with_config_files

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
  ("words", "name"),
  [
    (["train", "--config", "emonext:demo"], "train"),
    (["--debug", "evaluate"], "evaluate"),
    (["train", "--help"], ""),
    (["predict", "train"], ""),
    ([], ""),
  ],
)
def test_which_program_runs(words, name):
  assert program_of(words) == name


def test_configs_by_name():
  demo = f"{configs_folder() / 'emonext.py'}:demo"
  assert with_config_files(["--config", "emonext:demo"]) == ["--config", demo]
  assert with_config_files(["--config=emonext:demo"]) == [f"--config={demo}"]
  others = ["--config=mine.py:large", "--config.data.dir=emonext", "--workdir", "emonext"]
  assert with_config_files(others) == others
  with pytest.raises(
    CommandError, match=r"no config 'resnet'; .*: emonext, fer_yolo_mamba, fermam"
  ):
    with_config_files(["--config", "resnet:demo"])


def test_the_configs_are_those_of_the_checkout():
  names = {path.name for path in (ROOT / "configs").glob("*.py")}
  assert {path.name for path in configs_folder().glob("*.py")} == names


def test_unknown_config(capsys):
  assert main(["train", "--config=resnet", "--workdir=x"]) == 2
  assert capsys.readouterr().err.startswith("ferjax: error: no config 'resnet'")


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_help_has_all_flags(name, capsys):
  with pytest.raises(SystemExit, match="0"):
    main([name, "--help"])
  text = capsys.readouterr().out
  code = (
    "import importlib, absl.flags as f; from ferjax.training import command_line as c; "
    f"m = importlib.import_module({PROGRAMS[name]!r}); "
    "print(*(x.name for p in (m, c) for x in f.FLAGS.flags_by_module_dict()[p.__name__]))"
  )
  found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  names = found.stdout.split()
  assert len(names) >= 7
  for flag in names:
    assert f"--{flag.replace('_', '-')}" in text


def test_errors_with_debug(tmp_path):
  """tests/training/test_command_line.py has those without."""
  command = [sys.executable, "-m", "ferjax.commands.main", "evaluate", f"--workdir={tmp_path}"]
  found = subprocess.run([*command, "--debug"], capture_output=True, text=True, cwd=tmp_path)
  assert found.returncode == 1
  assert "Traceback" in found.stderr
  assert f"no checkpoint in {tmp_path}" in found.stderr

"""The scripts for shells."""

import subprocess

import pytest

from ferjax.commands.completion import SHELLS
from ferjax.commands.main import main


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_know_commands_and_options(shell, capsys):
  assert main(["completion", shell]) == 0
  script = capsys.readouterr().out
  for word in ("predict", "prepare", "--score-threshold", "--drop-duplicates"):
    assert word.removeprefix("--") in script


def test_bash_completes(capsys, tmp_path):
  assert main(["completion", "bash"]) == 0
  (tmp_path / "script").write_text(capsys.readouterr().out)
  (tmp_path / "photo.jpg").touch()
  ask = """source ./script
    complete_words() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _shtab_ferjax; }
    complete_words ferjax pre; echo "${COMPREPLY[@]}"
    complete_words ferjax predict --score-t; echo "${COMPREPLY[@]}"
    complete_words ferjax predict ph; echo "${COMPREPLY[@]}"
  """
  found = subprocess.run(["bash", "-c", ask], cwd=tmp_path, capture_output=True, text=True)
  assert found.stdout.split() == ["predict", "--score-threshold", "photo.jpg"], found.stderr

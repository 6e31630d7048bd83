"""Checks commands: the real parsers take them, and configs with their overrides are valid."""

import ast
import importlib.util
import json
import pathlib
import re
import tomllib

import doc_pages
from absl import flags
from ml_collections import config_flags

from ferjax.commands.main import create_parser
from ferjax.commands.training import PROGRAMS, with_config_files
from ferjax.training.command_line import check_overrides
from ferjax.training.config_checks import validate

ROOT = doc_pages.ROOT


def config_of(words):
  """The config of `ferjax train` or `ferjax evaluate`, or None if the command names none."""
  # "..." stands for further options.
  words = with_config_files(word for word in words if word != "...")
  arguments, overrides = create_parser().parse_known_args(words)
  assert all(word.startswith("--config.") for word in overrides), overrides
  if words[0] == "evaluate":
    assert (arguments.workdir is None) != (arguments.checkpoint is None)
  else:
    given = (arguments.config is not None, arguments.workdir is not None)
    assert given == ((True, True) if arguments.replay is None else (False, False))
  if arguments.config is None:
    assert not overrides
    return None
  argv = [words[0], f"--config={arguments.config}", *overrides]
  check_overrides(argv)
  values = flags.FlagValues()
  config = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
  assert len(values(argv)) == 1
  validate(config.value)
  return config.value


def check_ferjax(words):
  if next((word for word in words if not word.startswith("-")), "") in PROGRAMS:
    config_of(words)
  elif not {"--help", "--version"} & set(words):
    create_parser().parse_args(words)


def check_script(path, words):
  """The script exists and defines all options that the command names."""
  assert path.is_file(), path
  known = options_in(path)
  for word in words:
    if word.startswith("--"):
      assert word.partition("=")[0] in known, f"{word} is no option of {path.name}"


def options_in(path):
  """The options that a script, and the modules next to it that it imports, define."""
  tree = ast.parse(path.read_text())
  found = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
      found |= {node.value} if node.value.startswith("--") else set()
    elif isinstance(node, ast.Import):
      for name in node.names:
        neighbour = path.parent / f"{name.name}.py"
        found |= options_in(neighbour) if neighbour.is_file() else set()
  return found


def check_python(words):
  if words[:1] == ["-m"]:
    if words[1] != "venv":
      spec = importlib.util.find_spec(words[1]) if words[1].startswith("ferjax.") else None
      path = pathlib.Path(spec.origin) if spec else ROOT / f"{words[1].replace('.', '/')}.py"
      check_script(path, words[2:])
  elif words[0] in ("train.py", "eval.py"):
    config_of(["train" if words[0] == "train.py" else "evaluate", *words[1:]])
  elif words[0] != "-":  # a program in the block
    check_script(ROOT / words[0], words[1:])


def check_pip(words):
  """Our extras exist."""
  extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
  for word in words:
    if named := re.match(r"(?:\.|ferjax)\[([\w,-]+)\]", word):
      assert set(named[1].split(",")) <= extras.keys(), word


def check_npm(words):
  scripts = json.loads((ROOT / "examples" / "web" / "package.json").read_text())["scripts"]
  name = words[1] if words[0] == "run" else words[0]
  assert name == "ci" or name in scripts


CHECKS = {
  "ferjax": check_ferjax,
  "python": check_python,
  ".venv/bin/python": check_python,
  "pip": check_pip,
  "npm": check_npm,
  "exec": lambda words: check(words),
}


def check(words):
  """Checks one command, and those within its arguments."""
  assert words[0] in doc_pages.PROGRAMS, f"no test knows the program {words[0]!r}"
  if words[0] in CHECKS:
    CHECKS[words[0]](words[1:])
  for inner in doc_pages.inner_commands(words):
    check(inner)

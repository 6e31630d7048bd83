"""Help, examples, and the options that all subcommands have."""

import argparse
import json
import os
import shlex

import pytest

from ferjax.commands.errors import CommandError
from ferjax.commands.main import create_parser, main
from ferjax.commands.parser import CommandParser


def _parsers(parser):
  """The parser, and those of its subcommands and their actions."""
  yield parser
  for action in parser._actions:
    if isinstance(action, argparse._SubParsersAction):
      for subparser in action.choices.values():
        yield from _parsers(subparser)


PARSERS = {parser.prog: parser for parser in _parsers(create_parser())}


@pytest.mark.parametrize("name", [name for name in PARSERS if len(name.split()) <= 2])
def test_the_examples_of_every_subcommand_can_be_parsed(name):
  _, _, examples = PARSERS[name].format_help().partition("\nexamples:\n")
  lines = [line.strip() for line in examples.splitlines()]
  assert lines
  for line in lines:
    if line.startswith("ferjax "):
      words = shlex.split(line.partition(" | ")[0].partition(" > ")[0], comments=True)[1:]
      if "--help" not in words:
        _, unknown = create_parser().parse_known_args(words)
        # Fields of a config are flags of absl.
        assert all(word.startswith("--config.") for word in unknown)


@pytest.mark.parametrize("words", [["-q", "weights", "show", "x"], ["weights", "show", "x", "-q"]])
def test_common_options_stand_anywhere(words):
  arguments = create_parser().parse_args(words)
  assert arguments.quiet
  assert not hasattr(arguments, "debug")


def test_quiet_output(capsys):
  assert main(["weights"]) == 0
  assert "fermam" in capsys.readouterr().out
  before = dict(os.environ)
  assert main(["weights", "--quiet"]) == 0
  assert capsys.readouterr().out == ""
  assert dict(os.environ) == before
  assert main(["weights", "--quiet", "--json"]) == 0
  assert "fermam-nano-ferplus" in [one["name"] for one in json.loads(capsys.readouterr().out)]


def test_errors_with_their_traceback(capsys, monkeypatch):
  wrong = ["weights", "show", "unknown"]
  assert main(wrong) == 2
  assert capsys.readouterr().err.startswith("ferjax: error: ")
  with pytest.raises(CommandError, match="unknown"):
    main([*wrong, "--debug"])
  monkeypatch.setenv("FERJAX_TRACEBACK", "1")
  with pytest.raises(CommandError, match="unknown"):
    main(wrong)


def test_help_without_examples():
  assert "examples" not in CommandParser(prog="a").format_help()

"""docs/interfaces.md names what exists, and all that is public."""

import argparse
import importlib
import pathlib
import re

import pytest

import ferjax
import ferjax.export
import ferjax.weights
from ferjax.commands.main import create_parser

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "interfaces.md").read_text(encoding="utf-8")
NAMES = re.findall(r"`(ferjax(?:\.\w+)+)`", PAGE)


@pytest.mark.parametrize("name", NAMES)
def test_documented_names_exist(name):
  module, _, attribute = name.rpartition(".")
  assert hasattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("module", [ferjax, ferjax.export, ferjax.weights])
def test_public_names_are_documented(module):
  assert {f"{module.__name__}.{name}" for name in module.__all__} <= set(NAMES)


def subcommands(parser):
  """Names and parsers of a parser's subcommands."""
  groups = [x.choices for x in parser._actions if isinstance(x, argparse._SubParsersAction)]
  return groups[0] if groups else {}


def test_commands_are_documented():
  assert set(re.findall(r"`ferjax (\w+)`", PAGE)) == set(subcommands(create_parser()))


def test_commands_with_json_are_documented():
  def found(name, parser):
    if "--json" in parser._option_string_actions:
      yield f"{name} --json"
    for word, command in subcommands(parser).items():
      yield from found(f"{name} {word}", command)

  documented = re.findall(r"^\| `(ferjax [\w ]+ --json)` \|", PAGE, re.MULTILINE)
  assert sorted(documented) == sorted(found("ferjax", create_parser()))

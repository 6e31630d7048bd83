"""Runs the blocks of docs/reuse.md, in their order, as one program."""

import pathlib
import re

import jax
import pytest

from ferjax.models import emonext

pytestmark = pytest.mark.usefixtures("cached_programs")

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "reuse.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _program():
  """The blocks, on the lines that they have in the page: errors name these."""
  text = PAGE.read_text(encoding="utf-8")
  lines = [""] * text.count("\n")
  for block in BLOCK.finditer(text):
    first = text.count("\n", 0, block.start(1))
    for number, line in enumerate(block[1].splitlines(), first):
      lines[number] = line
  return "\n".join(lines)


def test_all_blocks_run(jit_quickly, monkeypatch, capsys):
  assert len(jax.devices()) == 2
  # Compiling takes most of the time: one block per stage, few channels, and few optimisations.
  monkeypatch.setitem(emonext.SIZES, "atto", emonext.Size((1, 1, 1, 1), (4, 4, 8, 8), 0.1))
  program = _program()
  assert program.count("assert") > 10  # the blocks check their results
  quick = re.sub(r"\bjax\.jit\b", "jit_quickly", program)
  exec(compile(quick, str(PAGE), "exec"), {"__name__": "reuse", "jit_quickly": jit_quickly})
  assert "accuracy on drawings that were not used" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["ferjax.training", "ferjax.tasks", "orbax", "grain"])
def test_no_block_needs(name):
  imports = re.findall(r"^(?:from|import) ([\w.]+)", _program(), re.MULTILINE)
  assert "jax" in imports
  assert [module for module in imports if f"{module}.".startswith(f"{name}.")] == []

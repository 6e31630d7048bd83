"""The Markdown pages of the repository: their blocks, commands, links and anchors."""

import pathlib
import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
# First words of commands: a block whose first line begins with one of them is a block of commands.
PROGRAMS = {
  *("ferjax", "python", ".venv/bin/python", "pip", "pytest", "ruff", "pyright", "sphinx-build"),
  *("git", "cd", "mkdir", "cp", "source", "exec", "sh", "curl", "npm", "node", "gcloud", "mpirun"),
  *("pre-commit", "jupyter"),
}
_BLOCK = re.compile(r"^(?P<indent> *)```(?P<language>[\w{}]*)\n(?P<text>.*?)^ *```$", re.M | re.S)
_HEREDOC = re.compile(r" <<'EOF'\n.*?^EOF$", re.M | re.S)
_LINK = re.compile(r"(?<!`)\]\((?P<target>[^()\s]+)\)")
_ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")


class Block(NamedTuple):
  """A fenced block."""

  page: pathlib.Path
  line: int  # of its first line of text, from 1
  language: str
  text: str


class Command(NamedTuple):
  """A command of a block, without assignments to the environment."""

  place: str  # page:line of the block
  words: list[str]


def pages() -> list[pathlib.Path]:
  """All pages; those in folders of dependencies and of builds are not ours."""
  found = [*ROOT.glob("*.md")]
  for folder in ("docs", "benchmarks", "examples", "fuzz", "tests"):
    found += (ROOT / folder).rglob("*.md")
  return sorted(page for page in found if not {"node_modules", "_build"} & set(page.parts))


def name_of(page: pathlib.Path) -> str:
  return page.relative_to(ROOT).as_posix()


def blocks(page: pathlib.Path) -> list[Block]:
  text = page.read_text(encoding="utf-8")
  return [
    Block(page, text.count("\n", 0, match.start("text")) + 1, match["language"], match["text"])
    for match in _BLOCK.finditer(text)
  ]


def program(page: pathlib.Path) -> str:
  """The Python blocks, on the lines that they have in the page: errors name these."""
  lines = [""] * page.read_text(encoding="utf-8").count("\n")
  for block in blocks(page):
    if block.language == "python":
      for number, line in enumerate(block.text.splitlines(), block.line - 1):
        lines[number] = line
  return "\n".join(lines)


def run(page: pathlib.Path, namespace: dict[str, object]) -> dict[str, object]:
  """Runs the Python blocks of a page in their order; returns the names that they define."""
  namespace = {"__name__": page.stem, **namespace}
  exec(compile(program(page), str(page), "exec"), namespace)
  return namespace


def commands(page: pathlib.Path) -> Iterator[Command]:
  """The commands of the blocks without a language; what programs print is left out."""
  for block in blocks(page):
    if block.language:
      continue
    lines = _HEREDOC.sub("", block.text).replace("\\\n", " ").splitlines()
    if lines and lines[0].startswith("$ "):
      lines = [line[2:] for line in lines if line.startswith("$ ")]
    if lines and (first := _split(lines[0])) and first[0][0] in PROGRAMS:
      for line in lines:
        for words in _split(line):
          yield Command(f"{name_of(page)}:{block.line}", words)


def _split(line: str) -> list[list[str]]:
  """The words of each command of a line; none for a line that is not the shell's."""
  try:
    words = shlex.split(line, comments=True)
  except ValueError:
    return []
  found: list[list[str]] = [[]]
  for word in words:
    if word == "&&":
      found.append([])
    elif found[-1] or not _ASSIGNMENT.fullmatch(word):
      found[-1].append(word)
  return [words for words in found if words]


def inner_commands(words: list[str]) -> list[list[str]]:
  """Commands in arguments of a command: `--command="cd a && b"`, and `sh -c 'exec b "$@"' - c`."""
  found = []
  for place, word in enumerate(words):
    if word.startswith("--command="):
      found += _split(word.partition("=")[2])
    elif word == "-c" and words[place - 1] == "sh":
      found += _split(words[place + 1].replace('"$@"', shlex.join(words[place + 3 :])))
  return found


def _prose(page: pathlib.Path) -> str:
  return _BLOCK.sub("", page.read_text(encoding="utf-8"))


def spans(page: pathlib.Path) -> list[str]:
  """The pieces of code within sentences."""
  return re.findall(r"`([^`]+)`", _prose(page))


def links(page: pathlib.Path) -> list[str]:
  """The targets of all links and pictures."""
  return [match["target"] for match in _LINK.finditer(_prose(page))]


def anchors(page: pathlib.Path) -> set[str]:
  """The anchors of the headings, as GitHub and MyST form them."""
  found: dict[str, int] = {}
  for heading in re.findall(r"^#+ (.+)$", _prose(page), re.M):
    heading = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
    anchor = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
    found[anchor] = found.get(anchor, -1) + 1
  return {
    f"{anchor}-{n}" if n else anchor for anchor, last in found.items() for n in range(last + 1)
  }

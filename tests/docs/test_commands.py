"""The commands in the pages are right."""

import contextlib
import functools
import io
import json
import re

import doc_pages
import pytest
from absl import flags
from doc_commands import check

from ferjax.commands.main import create_parser

# How ml_collections imports a config file.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
# Reports of measurements keep the commands of their day.
PAGES = [
  p for p in doc_pages.pages() if not doc_pages.name_of(p).startswith("benchmarks/results/2")
]


def check_all(page):
  for command in doc_pages.commands(page):
    try:
      check(command.words)
    except (Exception, SystemExit) as error:
      error.add_note(f"in {command.place}: {' '.join(command.words)}")
      raise


@pytest.mark.parametrize("page", PAGES, ids=doc_pages.name_of)
def test_commands_of_blocks(page, monkeypatch):
  monkeypatch.chdir(doc_pages.ROOT)
  check_all(page)


@functools.cache
def help_of(*words):
  """What a subcommand prints for `--help`."""
  out = io.StringIO()
  with contextlib.redirect_stdout(out), pytest.raises(SystemExit, match="0"):
    create_parser().parse_args([*words, "--help"])
  return out.getvalue()


@pytest.mark.parametrize("page", PAGES, ids=doc_pages.name_of)
def test_commands_in_sentences(page):
  """The subcommand exists and has the options; required ones may be missing there."""
  for span in doc_pages.spans(page):
    words = span.split()
    # Not a placeholder such as COMMAND, or a path such as ferjax/config.py.
    if words[:1] == ["ferjax"] and len(words) > 1 and re.fullmatch("[a-z]+", words[1]):
      has_action = words[1] in ("data", "weights") and len(words) > 2 and words[2].islower()
      text = help_of(*words[1:3] if has_action else words[1:2])
      for word in words:
        if word.startswith("--") and not word.startswith("--config."):
          assert word.partition("=")[0] in text, span


def test_json_blocks():
  found = [b for page in doc_pages.pages() for b in doc_pages.blocks(page) if b.language == "json"]
  assert len(found) > 3
  for block in found:
    json.loads(block.text)


@pytest.mark.parametrize(
  ("line", "error"),
  [
    ("ferjax predict a.jpg --speed 3", SystemExit),
    ("ferjax train --config fermam:folder", AssertionError),
    ("ferjax train --config fermam:nope --workdir a", flags.Error),
    ("python train.py --config configs/fermam.py --workdir a --config.data.size=3", ValueError),
    ("ferjax train --config fermam --workdir a --config.train.epochs=0", ValueError),
    ("python benchmarks/model_card.py a --speed 3", AssertionError),
    ("python benchmarks/nothing.py", AssertionError),
    ('pip install -e ".[nothing]"', AssertionError),
    ("gcloud ssh --command='cd a && ferjax predict --nothing'", SystemExit),
    ("python train.py --config configs/fermam.py --workdir a && nothing", AssertionError),
  ],
)
def test_wrong_commands_are_found(line, error, tmp_path, monkeypatch):
  monkeypatch.chdir(doc_pages.ROOT)
  page = tmp_path / "a.md"
  page.write_text(f"```\n{line}\n```\n")
  monkeypatch.setattr(doc_pages, "name_of", str)
  with pytest.raises(error):
    check_all(page)

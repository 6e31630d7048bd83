"""docs/quickstart.md from its own blocks, with the shipped weights."""

import re
import shutil

import doc_pages
import pytest

from ferjax.commands.main import main

PAGE = doc_pages.ROOT / "docs" / "quickstart.md"
PORTRAITS = doc_pages.ROOT / "tests" / "photographs" / "portraits.jpg"
_FACE = re.compile(r"^portraits.jpg: (\w+) ([\d.]+) at (\d+), (\d+), (\d+), (\d+)$", re.M)


def faces_in(text):
  return [(name, *map(float, numbers)) for name, *numbers in _FACE.findall(text)]


@pytest.fixture
def place(tmp_path, monkeypatch):
  shutil.copy(PORTRAITS, tmp_path)
  monkeypatch.chdir(tmp_path)
  return tmp_path


def test_the_page_links_the_photograph():
  assert "../tests/photographs/portraits.jpg" in doc_pages.links(PAGE)
  assert len(faces_in(PAGE.read_text(encoding="utf-8"))) == 3


@pytest.mark.slow  # two minutes, most of it compiling the shipped networks
@pytest.mark.usefixtures("cached_programs")
def test_the_page_prints_what_it_says(place, capsys):
  first = True
  for command in doc_pages.commands(PAGE):
    program, *words = command.words
    if program == "mkdir":
      (place / words[0]).mkdir()
    elif program == "cp":
      shutil.copy(*words)
    elif program == "ferjax" and words != ["--help"]:
      assert main(words) == 0
      printed = capsys.readouterr().out
      if first:
        check_same(faces_in(printed), faces_in(PAGE.read_text(encoding="utf-8")))
        first = False
  for name in ("predictions", "results", "results/one", "results/faces"):
    assert (place / name / "predictions.csv").is_file()
  assert (place / "predictions" / "annotated" / "portraits.jpg").is_file()
  names = doc_pages.run(PAGE, {})
  assert [face.expression for face in names["prediction"].faces] == [
    name for name, *_ in faces_in(PAGE.read_text(encoding="utf-8"))
  ]


def check_same(faces, expected):
  """Other processors round differently, so a score may change in its last digit, and a pixel."""
  assert [face[0] for face in faces] == [face[0] for face in expected]
  for face, other in zip(faces, expected, strict=True):
    assert face[1] == pytest.approx(other[1], abs=0.011)
    assert face[2:] == pytest.approx(other[2:], abs=1)

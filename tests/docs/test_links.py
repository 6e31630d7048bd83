"""Links between the plain files: they lead somewhere without the site, too."""

import os.path
import re

import doc_pages
import pytest

EXTERNAL = re.compile(r"[a-z]+:")


@pytest.mark.parametrize("page", doc_pages.pages(), ids=doc_pages.name_of)
def test_links_lead_to_files_and_headings(page):
  for target in doc_pages.links(page):
    if EXTERNAL.match(target):
      assert target.startswith("https://"), target
      continue
    path, _, anchor = target.partition("#")
    file = (page.parent / path) if path else page
    assert os.path.realpath(file).startswith(str(doc_pages.ROOT)), target
    # A folder has no page on the site: link its README.md.
    assert file.is_file(), f"{target} is not a file"
    if anchor:
      assert anchor in doc_pages.anchors(file), f"{target}: no such heading"


def test_links_and_anchors_are_found(tmp_path):
  page = tmp_path / "a.md"
  page.write_text(
    "# One `two`: three\n[x](b.md#c) ![y](z.png)\n```\n# no\n[n](o.md)\n```\n"
    "## A [l](m) b\n## D\n## D\n"
  )
  assert doc_pages.links(page) == ["b.md#c", "z.png", "m"]
  assert doc_pages.anchors(page) == {"one-two-three", "a-l-b", "d", "d-1"}


def test_each_picture_has_a_description():
  for page in doc_pages.pages():
    assert "![](" not in page.read_text(encoding="utf-8"), page

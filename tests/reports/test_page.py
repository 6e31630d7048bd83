import base64
import io
import os

import numpy as np
from PIL import Image

from ferjax.reports.page import element, note, plot, section, table, thumbnail, write_page


def test_everything_is_escaped(tmp_path, read_page):
  """Class names and file names are texts, whatever they contain."""
  names = ["<script>alert(1)</script>", "\"&<>'", "&amp;", "中性", "a\nb\x1b", os.fsdecode(b"\xe9")]
  rows = [[name, element("b", name, title=name)] for name in names]
  content = [section(names[0], note(names[1], warning=True), table(names[:2], rows))]
  write_page(tmp_path / "a" / "page.html", names[0], names[1], content)
  text = (tmp_path / "a" / "page.html").read_text(encoding="utf-8")
  page = read_page(text)
  assert "script" not in page.tags
  shown = [*names[:4], "a\\nb\\x1b", "\\udce9"]
  assert [row[0] for row in page.tables[names[0]][0][1:]] == shown
  assert page.headings == [names[0], names[0]]
  assert page.with_class("warning") == [names[1]]
  assert text.startswith("<!DOCTYPE html>\n<html lang=")
  assert list((tmp_path / "a").iterdir()) == [tmp_path / "a" / "page.html"]


def test_texts_and_elements_keep_their_order(read_page):
  node = element("p", "a", "b", element("i", "c"), "d", "e", element("i"), "f", class_="x")
  assert [node.text, node[0].text, node[0].tail, node[1].tail] == ["ab", "c", "de", "f"]
  assert node.get("class") == "x"


def test_numbers_are_right_aligned():
  body = table(("a", "b", "c"), [("1", "2", "3")], numbers=2)[1]
  assert [cell.get("class") for cell in body[0]] == [None, "number", "number"]


def test_images_are_inside(tmp_path):
  png = io.BytesIO()
  Image.new("RGB", (3, 2)).save(png, "PNG")
  source = plot(png.getvalue(), "a plot").get("src")
  kind, content = source.split(",")
  assert (kind, base64.b64decode(content)) == ("data:image/png;base64", png.getvalue())
  kind, content = thumbnail(np.zeros((400, 200, 3), np.uint8), 100).get("src").split(",")
  assert kind == "data:image/jpeg;base64"
  assert Image.open(io.BytesIO(base64.b64decode(content))).size == (50, 100)

"""HTML pages without any external resource; every text in them is escaped."""

import base64
import io
import os
import pathlib
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ferjax.output import atomic_writer, escaped, one_line

Node: TypeAlias = "ET.Element | str"
_THUMBNAIL = 160  # pixels, longer side
_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 72rem; margin: 0 auto; padding: 1rem 1.5rem 4rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; border-bottom: 1px solid #ddd; }
p { margin: .4rem 0; } .note { color: #555; } .warning { color: #a03000; }
table { border-collapse: collapse; margin: .5rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top; }
th { font-weight: 600; border-bottom: 1px solid #bbb; }
td { border-bottom: 1px solid #eee; overflow-wrap: anywhere; }
td:first-child { white-space: nowrap; }
.number { text-align: right; }
img.plot { max-width: 100%; height: auto; display: block; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
.plots img.plot { max-width: min(34rem, 100%); }
.faces { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
.scenes { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); }
figure { margin: 0; font-size: .82rem; line-height: 1.3; overflow-wrap: anywhere; }
figure img { max-width: 100%; height: auto; display: block; margin-bottom: .2rem; }
.faces img { width: 100%; max-height: 10rem; object-fit: contain; object-position: left; }
.wrong { color: #a03000; } .origin { color: #777; }
summary { cursor: pointer; } details { margin: .4rem 0; }
@media print { details > * { display: block; } h2 { break-after: avoid; } }
"""


def element(tag: str, *children: Node, class_: str = "", **attributes: str) -> ET.Element:
  """An element; texts among its children and attributes are shown as they are, on one line."""
  names = {"class": class_} if class_ else {}
  node = ET.Element(tag, {**names, **{name: _text(x) for name, x in attributes.items()}})
  for child in children:
    if isinstance(child, ET.Element):
      node.append(child)
    elif len(node):
      node[-1].tail = (node[-1].tail or "") + _text(child)
    else:
      node.text = (node.text or "") + _text(child)
  return node


def section(title: str, *children: Node) -> ET.Element:
  """A section with a heading."""
  return element("section", element("h2", title), *children)


def note(text: str, *, warning: bool = False) -> ET.Element:
  """A paragraph of explanation."""
  return element("p", text, class_="warning" if warning else "note")


def table(header: Sequence[str], rows: Iterable[Sequence[Node]], *, numbers: int = 0) -> ET.Element:
  """A table; `numbers` columns from the right are right-aligned."""
  first = len(header) - numbers

  def row(cells: Sequence[Node], tag: str) -> ET.Element:
    kinds = ["number" if place >= first else "" for place in range(len(cells))]
    return element(
      "tr", *(element(tag, x, class_=kind) for x, kind in zip(cells, kinds, strict=True))
    )

  head = element("thead", row(header, "th"))
  return element("table", head, element("tbody", *(row(cells, "td") for cells in rows)))


def plot(png: bytes, description: str) -> ET.Element:
  """A PNG image; the description is for those who cannot see it."""
  return element("img", src=_data_uri(png, "image/png"), alt=description, class_="plot")


def thumbnail(image: UInt8[np.ndarray, "h w 3"] | Image.Image, side: int = _THUMBNAIL) -> Node:
  """A small copy of an image, at most `side` pixels wide and high."""
  small = Image.fromarray(image) if isinstance(image, np.ndarray) else image.copy()
  small.thumbnail((side, side))
  file = io.BytesIO()
  small.save(file, "JPEG", quality=85)
  return element("img", src=_data_uri(file.getvalue(), "image/jpeg"), alt="")


def write_page(
  path: str | os.PathLike, title: str, subtitle: str, content: Iterable[ET.Element]
) -> None:
  """Writes a page, which replaces the file when it is complete."""
  head = element(
    "head",
    element("meta", charset="utf-8"),
    element("meta", name="viewport", content="width=device-width, initial-scale=1"),
    element("title", title),
  )
  style = element("style")
  style.text = _STYLE
  head.append(style)
  body = element("body", element("h1", title), note(subtitle), *content)
  page = ET.tostring(element("html", head, body, lang="en"), encoding="unicode", method="html")
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with atomic_writer(path) as file:
    file.write(f"<!DOCTYPE html>\n{page}\n")


def _text(text: str) -> str:
  """Without control characters, and as valid Unicode, whatever a file is called."""
  return one_line(escaped(text))


def _data_uri(content: bytes, kind: str) -> str:
  return f"data:{kind};base64,{base64.b64encode(content).decode()}"

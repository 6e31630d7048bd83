"""HTML of the results: pictures, bars of scores, and messages.

Pictures and films are inside the HTML as data, so that no file of a visitor is left to be fetched.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ferjax.inference.draw import class_colours
from ferjax.inference.results import Face

_LONGEST_SIDE = 1024  # pixels of a picture on the page
_QUALITY = 90

STYLE = """
.ferjax img, .ferjax video { max-width: 100%; border-radius: 6px; }
.ferjax .faces { display: grid; gap: 1rem; }
.ferjax .faces { grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); }
.ferjax h3 { margin: 0.6rem 0 0.3rem; }
.ferjax .bar { display: grid; grid-template-columns: 6.5rem 1fr 2.6rem; gap: 0.5rem; }
.ferjax .bar { align-items: center; }
.ferjax .track { height: 0.8rem; border: 1px solid #767676; border-radius: 3px; overflow: hidden; }
.ferjax .track > div { height: 100%; }
.ferjax .number { text-align: right; font-variant-numeric: tabular-nums; }
.ferjax .problem { padding: 0.8rem; border: 2px solid #b3261e; border-radius: 6px; }
"""


def block(*parts: str) -> str:
  """The parts of one result, which the page's style applies to."""
  return f'<div class="ferjax">{"".join(parts)}</div>'


def problem(text: str) -> str:
  """A message about a file that gives no result."""
  return block(f'<p class="problem" role="alert">{html.escape(text)}</p>')


def summary(text: str) -> str:
  """A sentence about a result, which screen readers announce."""
  return f'<p role="status">{html.escape(text)}</p>'


def note(text: str) -> str:
  """A sentence below a result."""
  return f"<p>{html.escape(text)}</p>"


def picture(image: UInt8[np.ndarray, "h w 3"], description: str) -> str:
  """An RGB image, reduced to at most 1024 pixels."""
  height, width = image.shape[:2]
  scale = _LONGEST_SIDE / max(height, width)
  if scale < 1:
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
  file = io.BytesIO()
  Image.fromarray(image).save(file, "JPEG", quality=_QUALITY)
  return encoded_picture(file.getvalue(), "image/jpeg", description)


def encoded_picture(content: bytes, kind: str, description: str) -> str:
  """An image file; `kind` is its media type."""
  return f'<img src="{_data(content, kind)}" alt="{html.escape(description)}">'


def film(content: bytes, description: str) -> str:
  """An MP4 file with controls."""
  source = _data(content, "video/mp4")
  return f'<video controls src="{source}" aria-label="{html.escape(description)}"></video>'


def _data(content: bytes, kind: str) -> str:
  return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def scores(title: str, values: Mapping[str, float]) -> str:
  """A heading and a bar for each class, in the colours of the drawn boxes; values are 0..1."""
  names = list(values)
  bars = (
    f'<div class="bar"><span>{html.escape(name)}</span>'
    f'<div class="track" role="meter" aria-label="{html.escape(name)}" aria-valuemin="0" '
    f'aria-valuemax="1" aria-valuenow="{values[name]:.3f}"><div style="width: '
    f'{100 * values[name]:.1f}%; background: rgb{colour}"></div></div>'
    f'<span class="number">{values[name]:.2f}</span></div>'
    for name, colour in zip(names, class_colours(names), strict=True)
  )
  return f"<section><h3>{html.escape(title)}</h3>{''.join(bars)}</section>"


def faces(found: Sequence[Face]) -> str:
  """The scores of faces, in their order, with numbers if there are several."""
  sections = []
  for number, face in enumerate(found, 1):
    prefix = f"Face {number}: " if len(found) > 1 else ""
    sections.append(scores(f"{prefix}{face.expression} {face.score:.2f}", face.scores))
  return f'<div class="faces">{"".join(sections)}</div>'

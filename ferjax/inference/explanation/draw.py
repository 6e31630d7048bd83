"""Draws explanations: the evidence for a class, overlaid on the original image.

Drawn with Matplotlib's objects on an Agg canvas, not with `pyplot`: no display is needed.
"""

import dataclasses
import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from PIL import Image

from ferjax.fonts import Lettering, apply_lettering, lettering
from ferjax.inference.explanation.maps import Explanation
from ferjax.inference.results import Box

_COLOURS = matplotlib.colormaps["inferno"]  # dark to bright, also in grey print
_LINE = "#56B4E9"  # Okabe and Ito's sky blue, which is not in that map
_OPACITY = 0.5
_PIXELS = 480  # of the longer side of a panel
_DPI = 150
_LEAST = (2.4, 1.1)  # inches; a narrower panel cannot fit its title
_COLUMNS = 4
_REST = 0.25  # of the peak: a face's panel shows the cells above it


def draw_explanations(
  image: UInt8[np.ndarray, "h w 3"],
  explanations: Sequence[Explanation],
  letters: Lettering | None = None,
) -> UInt8[np.ndarray, "_ _ 3"]:
  """A sheet of the image (RGB) and its explanations.

  A face without a box has the image and the heat map side by side and, with a spatial transformer,
  its output and the heat map on it. Each face with a box has a panel of its surroundings.

  `letters` are those of the class names; None chooses among the installed fonts.
  """
  if letters is None:
    letters = lettering(tuple(explanations[0].face.scores) if explanations else ())
  explanations = [_lettered(explanation, letters) for explanation in explanations]
  if explanations and explanations[0].face.box is None:
    figure = _face_sheet(image, explanations[0])
  else:
    figure = _photograph_sheet(image, explanations)
  apply_lettering(figure, letters)
  canvas = FigureCanvasAgg(figure)
  canvas.draw()
  return np.array(canvas.buffer_rgba())[..., :3]


def _lettered(explanation: Explanation, letters: Lettering) -> Explanation:
  """With the names of classes as they are drawn."""
  names, face = letters.names, explanation.face
  face = dataclasses.replace(
    face,
    expression=names[face.expression],
    scores={names[name]: score for name, score in face.scores.items()},
  )
  return dataclasses.replace(explanation, face=face, target=names[explanation.target])


def _face_sheet(image: UInt8[np.ndarray, "h w 3"], explanation: Explanation) -> Figure:
  whole, resampled = _extent(image), explanation.resampled
  figure, panels = _panels(2 if resampled is None else 4, whole)
  figure.suptitle(_says(explanation), fontsize=11, parse_math=False)
  _show(panels[0], _cut(image, whole), whole)
  _frame_view(panels[0], explanation, whole)
  _show(panels[1], _heated(image, explanation, whole), whole)
  _title(panels[1], _evidence(explanation))
  # The outline may extend beyond the image: both panels show it at one scale.
  panels[1].set(xlim=panels[0].get_xlim(), ylim=panels[0].get_ylim())
  if resampled is not None:
    # This panel also shows heat where the transformer sampled outside the image.
    side = _extent(resampled)
    heated = _heated(resampled, _on_resampled(explanation, side), side)
    _show(panels[2], resampled, side)
    _title(panels[2], "output of the spatial transformer")
    _show(panels[3], heated, side)
    _title(panels[3], f"{_evidence(explanation)}, on that")
  _add_scale(figure, panels)
  return figure


def _photograph_sheet(
  image: UInt8[np.ndarray, "h w 3"], explanations: Sequence[Explanation]
) -> Figure:
  whole = _extent(image)
  figure, panels = _panels(1 + len(explanations), whole)
  _show(panels[0], _cut(image, whole), whole)
  _title(panels[0], "image" if explanations else "no face found")
  for i, (panel, explanation) in enumerate(zip(panels[1:], explanations, strict=True)):
    region = _surroundings(explanation, whole)
    _show(panel, _heated(image, explanation, region), region)
    box = explanation.face.box
    if box is not None:
      for axes in (panels[0], panel):
        _outline(axes, _corners(box))
      # Boxes may overlap: their numbers are drawn side by side.
      place = (box[0] + i % 6 / 6 * (box[2] - box[0]), box[1])
      panels[0].annotate(str(i + 1), place, fontsize=7, bbox=_TAG)
    text = f"{i + 1}: {_says(explanation)}"
    _title(panel, text if explanation.peak else f"{text}\n{_evidence(explanation)}")
  if explanations:
    _add_scale(figure, panels)
  return figure


_TAG = {"boxstyle": "square,pad=0.15", "facecolor": _LINE, "edgecolor": "none"}


def _panels(count: int, whole: Box) -> tuple[Figure, list[Axes]]:
  columns = min(count, _COLUMNS)
  rows = math.ceil(count / columns)
  width, height = whole[2], whole[3]
  longest = _PIXELS / _DPI / max(width, height)
  shape = [max(side * longest, least) for side, least in zip((width, height), _LEAST, strict=True)]
  figure = Figure(
    figsize=(columns * (shape[0] + 0.15), rows * (shape[1] + 0.35) + 0.9),
    dpi=_DPI,
    layout="constrained",
  )
  cells = figure.subplots(rows, columns, squeeze=False).ravel()
  for axes in cells:
    axes.set_axis_off()
  return figure, list(cells[:count])


def _title(axes: Axes, text: str) -> None:
  axes.set_title(text, fontsize=8, parse_math=False)


def _says(explanation: Explanation) -> str:
  """The explained class and its score, and the predicted class if it differs."""
  face = explanation.face
  text = f"{explanation.target} {explanation.score:.2f}"
  if explanation.target == face.expression:
    return text
  return f"{text} (predicted: {face.expression} {face.score:.2f})"


def _evidence(explanation: Explanation) -> str:
  if explanation.peak:
    return f"evidence for {explanation.target}"
  return f"no evidence for {explanation.target}"


def _on_resampled(explanation: Explanation, extent: Box) -> Explanation:
  """The same cells on the output of a spatial transformer."""
  to_image = np.array([[extent[2], 0, 0], [0, extent[3], 0]])
  return dataclasses.replace(explanation, to_image=to_image, view=extent)


def _frame_view(axes: Axes, explanation: Explanation, whole: Box) -> None:
  """Outlines the network's input in the image, unless it is the whole image, and labels it."""
  if explanation.theta is not None:
    _outline(axes, explanation.outline)
    _title(axes, "image and sampled region")
  elif np.abs(np.array(explanation.view) - whole).max() > 0.5:
    _outline(axes, _corners(explanation.view))
    _title(axes, "image and network's input")
  else:
    _title(axes, "image")


def _surroundings(explanation: Explanation, whole: Box) -> Box:
  """The region of the box and the warm cells, with a margin; the whole image for a face without a
  box. So distant warm cells are in the picture.
  """
  if explanation.face.box is None:
    return whole
  rows, columns = np.nonzero(explanation.cells > _REST * (explanation.peak or np.inf))
  x1, y1, x2, y2 = explanation.face.box
  if len(rows):
    count = np.array(explanation.cells.shape[::-1])
    ends = np.array([[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]]) / count
    (left, top), (right, bottom) = ends @ explanation.to_image[:, :2].T + explanation.to_image[:, 2]
    x1, y1, x2, y2 = min(x1, left), min(y1, top), max(x2, right), max(y2, bottom)
  room = 0.25 * max(x2 - x1, y2 - y1)
  corner = float(max(0.0, x1 - room)), float(max(0.0, y1 - room))
  return *corner, float(min(whole[2], x2 + room)), float(min(whole[3], y2 + room))


def _extent(image: UInt8[np.ndarray, "h w 3"]) -> Box:
  return 0.0, 0.0, float(image.shape[1]), float(image.shape[0])


def _cut(image: UInt8[np.ndarray, "h w 3"], region: Box) -> UInt8[np.ndarray, "_ _ 3"]:
  """A part of the image, its longer side `_PIXELS` long."""
  x1, y1, x2, y2 = region
  scale = _PIXELS / max(x2 - x1, y2 - y1)
  size = (max(round((x2 - x1) * scale), 1), max(round((y2 - y1) * scale), 1))
  resized = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC, box=region)
  return np.asarray(resized)


def _heated(
  image: UInt8[np.ndarray, "h w 3"], explanation: Explanation, region: Box
) -> UInt8[np.ndarray, "_ _ 3"]:
  """A part of the image in grey under the heat colours; unchanged where the network saw nothing."""
  picture = _cut(image, region)
  heat, seen = explanation.heat(region, *picture.shape[:2])
  grey = picture.astype(np.float64) @ np.array([0.299, 0.587, 0.114])  # Rec. 601 luma
  colours = 255 * _COLOURS(heat)[..., :3]
  mixed = (1 - _OPACITY) * grey[..., None] + _OPACITY * colours
  return np.where(seen[..., None], np.rint(mixed).astype(np.uint8), picture)


def _show(axes: Axes, picture: UInt8[np.ndarray, "h w 3"], region: Box) -> None:
  x1, y1, x2, y2 = region
  axes.imshow(picture, extent=(x1, x2, y2, y1), interpolation="nearest")


def _corners(box: Box) -> Float[np.ndarray, "4 2"]:
  x1, y1, x2, y2 = box
  return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float64)


def _outline(axes: Axes, corners: Float[np.ndarray, "4 2"]) -> None:
  """A closed line on a dark one; parts outside the image are shown as well."""
  x, y = np.concatenate([corners, corners[:1]]).T
  axes.plot(x, y, color="black", linewidth=2.5)
  axes.plot(x, y, color=_LINE, linewidth=1.2)


def _add_scale(figure: Figure, panels: Sequence[Axes]) -> None:
  bar = figure.colorbar(
    ScalarMappable(cmap=_COLOURS),
    ax=panels,
    location="bottom",
    aspect=50,
    shrink=0.5,
    pad=0.02,
    panchor=(0.5, 1.0),  # panels of different shapes have their titles in one line
  )
  bar.set_label("fraction of the largest contribution", fontsize=7)
  bar.ax.tick_params(labelsize=7)

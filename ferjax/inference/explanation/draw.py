"""Draws explanations: the evidence for a class, overlaid on the original image.

Uses Matplotlib's objects on an Agg canvas instead of `pyplot`, so no display is needed.
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

_COLOURS = matplotlib.colormaps["inferno"]  # dark to bright, also when printed in grey
_LINE = "#56B4E9"  # Okabe and Ito's sky blue, which the colour map lacks
_OPACITY = 0.5
_PIXELS = 480  # of the longer side of a panel
_DPI = 150
_MIN_PANEL = (2.4, 1.1)  # inches; a narrower panel cannot fit its title
_COLUMNS = 4
_WARM = 0.25  # fraction of the peak; a face's panel shows the cells above it


def draw_explanations(
  image: UInt8[np.ndarray, "h w 3"],
  explanations: Sequence[Explanation],
  letters: Lettering | None = None,
) -> UInt8[np.ndarray, "_ _ 3"]:
  """A sheet of panels: the image (RGB) and its explanations.

  For a face without a box, the image and the heat map are side by side, followed by the output of
  the spatial transformer and its heat map, if there is one. Each face with a box has a panel of its
  surroundings.

  `letters` is for the class names; None chooses among the installed fonts.
  """
  if letters is None:
    letters = lettering(tuple(explanations[0].face.scores) if explanations else ())
  explanations = [_with_display_names(explanation, letters) for explanation in explanations]
  if explanations and explanations[0].face.box is None:
    figure = _face_sheet(image, explanations[0])
  else:
    figure = _photograph_sheet(image, explanations)
  apply_lettering(figure, letters)
  canvas = FigureCanvasAgg(figure)
  canvas.draw()
  return np.array(canvas.buffer_rgba())[..., :3]


def _with_display_names(explanation: Explanation, letters: Lettering) -> Explanation:
  """Replaces class names by their displayed form."""
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
  figure.suptitle(_caption(explanation), fontsize=11, parse_math=False)
  _show(panels[0], _crop(image, whole), whole)
  _frame_view(panels[0], explanation, whole)
  _show(panels[1], _overlay(image, explanation, whole), whole)
  _title(panels[1], _evidence(explanation))
  # The outline may extend beyond the image; use one scale for both panels.
  panels[1].set(xlim=panels[0].get_xlim(), ylim=panels[0].get_ylim())
  if resampled is not None:
    # This panel also shows heat where the transformer sampled outside the image.
    side = _extent(resampled)
    heated = _overlay(resampled, _on_resampled(explanation, side), side)
    _show(panels[2], resampled, side)
    _title(panels[2], "output of the spatial transformer")
    _show(panels[3], heated, side)
    _title(panels[3], f"{_evidence(explanation)}, on this output")
  _add_scale(figure, panels)
  return figure


def _photograph_sheet(
  image: UInt8[np.ndarray, "h w 3"], explanations: Sequence[Explanation]
) -> Figure:
  whole = _extent(image)
  figure, panels = _panels(1 + len(explanations), whole)
  _show(panels[0], _crop(image, whole), whole)
  _title(panels[0], "image" if explanations else "no face found")
  for i, (panel, explanation) in enumerate(zip(panels[1:], explanations, strict=True)):
    region = _surroundings(explanation, whole)
    _show(panel, _overlay(image, explanation, region), region)
    box = explanation.face.box
    if box is not None:
      for axes in (panels[0], panel):
        _outline(axes, _corners(box))
      # Boxes may overlap, so their numbers are drawn side by side.
      place = (box[0] + i % 6 / 6 * (box[2] - box[0]), box[1])
      panels[0].annotate(str(i + 1), place, fontsize=7, bbox=_TAG)
    text = f"{i + 1}: {_caption(explanation)}"
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
  shape = [max(side * longest, low) for side, low in zip((width, height), _MIN_PANEL, strict=True)]
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


def _caption(explanation: Explanation) -> str:
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
  """The same cells, placed on the output of a spatial transformer."""
  to_image = np.array([[extent[2], 0, 0], [0, extent[3], 0]])
  return dataclasses.replace(explanation, to_image=to_image, view=extent)


def _frame_view(axes: Axes, explanation: Explanation, whole: Box) -> None:
  """Titles the panel, and outlines the network's input unless it is the whole image."""
  if explanation.theta is not None:
    _outline(axes, explanation.outline)
    _title(axes, "image and sampled region")
  elif np.abs(np.array(explanation.view) - whole).max() > 0.5:
    _outline(axes, _corners(explanation.view))
    _title(axes, "image and network's input")
  else:
    _title(axes, "image")


def _surroundings(explanation: Explanation, whole: Box) -> Box:
  """The region of the box and all warm cells, with a margin.

  For a face without a box, the whole image.
  """
  if explanation.face.box is None:
    return whole
  rows, columns = np.nonzero(explanation.cells > _WARM * (explanation.peak or np.inf))
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


def _crop(image: UInt8[np.ndarray, "h w 3"], region: Box) -> UInt8[np.ndarray, "_ _ 3"]:
  """A region of the image, resized to `_PIXELS` on its longer side."""
  x1, y1, x2, y2 = region
  scale = _PIXELS / max(x2 - x1, y2 - y1)
  size = (max(round((x2 - x1) * scale), 1), max(round((y2 - y1) * scale), 1))
  resized = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC, box=region)
  return np.asarray(resized)


def _overlay(
  image: UInt8[np.ndarray, "h w 3"], explanation: Explanation, region: Box
) -> UInt8[np.ndarray, "_ _ 3"]:
  """A region in grey under the heat colours; unchanged outside the network's input."""
  pixels = _crop(image, region)
  heat, seen = explanation.heat(region, *pixels.shape[:2])
  grey = pixels.astype(np.float64) @ np.array([0.299, 0.587, 0.114])  # Rec. 601 luma
  colours = 255 * _COLOURS(heat)[..., :3]
  mixed = (1 - _OPACITY) * grey[..., None] + _OPACITY * colours
  return np.where(seen[..., None], np.rint(mixed).astype(np.uint8), pixels)


def _show(axes: Axes, image: UInt8[np.ndarray, "h w 3"], region: Box) -> None:
  x1, y1, x2, y2 = region
  axes.imshow(image, extent=(x1, x2, y2, y1), interpolation="nearest")


def _corners(box: Box) -> Float[np.ndarray, "4 2"]:
  x1, y1, x2, y2 = box
  return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float64)


def _outline(axes: Axes, corners: Float[np.ndarray, "4 2"]) -> None:
  """A closed line on a darker one, drawn outside the image too."""
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
    panchor=(0.5, 1.0),  # aligns the titles of panels of different shapes
  )
  bar.set_label("fraction of the largest contribution", fontsize=7)
  bar.ax.tick_params(labelsize=7)

"""A picture for each person: the scores of the expressions over time."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
import pyarrow.parquet
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ferjax.fonts import lettering_with_warning
from ferjax.inference.draw import class_colours
from ferjax.tasks.plots import save_figure
from ferjax.video.persons import Person
from ferjax.video.tables import RAW, SMOOTHED

TIMELINES = "timelines"
_BINS = 600  # about as many as the picture has columns for
_WIDTH, _HEIGHT = 10, 3.6  # inches


def write_timelines(
  table: pathlib.Path, persons: Sequence[Person], class_names: Sequence[str], folder: pathlib.Path
) -> list[str]:
  """Writes `track-<number>.png` for each person, and removes those of an earlier run.

  Args:
    table: the Parquet file of `FaceTable`, read in groups of rows.
    persons: to be shown.
    class_names: in the order of the scores.
    folder: of the pictures; is created.

  Returns:
    The names of the files.
  """
  folder.mkdir(exist_ok=True)
  for old in folder.glob("track-*.png"):
    old.unlink()
  if not persons:
    return []
  edges = time_bins(min(p.first for p in persons), max(p.last for p in persons))
  means = _binned(table, [person.track for person in persons], class_names, edges)
  names = []
  for person, scores in zip(persons, means, strict=True):
    names.append(f"track-{person.track}.png")
    _plot(person, edges, scores, class_names, folder / names[-1])
  return names


def time_bins(first: float, last: float) -> Float[np.ndarray, "n"]:
  """The edges of equal bins from the first time to the last, which is inside the last bin."""
  return np.linspace(first, np.nextafter(max(last, first + 1e-3), np.inf), _BINS + 1)


def _binned(
  table: pathlib.Path, tracks: Sequence[int], class_names: Sequence[str], edges: np.ndarray
) -> Float[np.ndarray, "t 2 n k"]:
  """The mean raw and smoothed scores of each track in each bin; NaN where it is not seen."""
  total = np.zeros((len(tracks), 2, len(edges) - 1, len(class_names)))
  count = np.zeros((len(tracks), len(edges) - 1))
  columns = [[kind + name for name in class_names] for kind in (RAW, SMOOTHED)]
  with pyarrow.parquet.ParquetFile(os.fspath(table)) as file:
    for group in file.iter_batches(columns=["time", "track", *columns[0], *columns[1]]):
      number, time = group["track"].to_numpy(), group["time"].to_numpy()
      scores = np.stack([[group[name].to_numpy() for name in kind] for kind in columns])
      bins = np.clip(np.searchsorted(edges, time, side="right") - 1, 0, len(edges) - 2)
      for row, track in enumerate(tracks):
        mine = number == track
        np.add.at(count[row], bins[mine], 1)
        for kind in range(2):
          np.add.at(total[row, kind], bins[mine], scores[kind][:, mine].T)
  with np.errstate(invalid="ignore"):
    return total / count[:, None, :, None]


def _plot(
  person: Person,
  edges: np.ndarray,
  scores: Float[np.ndarray, "2 n k"],
  class_names: Sequence[str],
  path: pathlib.Path,
) -> None:
  letters = lettering_with_warning(class_names)
  colours = [np.array(colour) / 255 for colour in class_colours(class_names)]
  figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
  grid = figure.add_gridspec(2, 2, width_ratios=(1, 9), height_ratios=(8, 1))
  portrait, upper = figure.add_subplot(grid[:, 0]), figure.add_subplot(grid[0, 1])
  lower = figure.add_subplot(grid[1, 1], sharex=upper)
  portrait.axis("off")
  if person.portrait is not None:
    portrait.imshow(person.portrait)
  portrait.set_title(f"person {person.track}", fontsize=10)
  seen, breaks = _seen(scores)
  _plot_lines(upper, edges, scores, colours, [letters.names[name] for name in class_names])
  strip = np.ones((1, len(edges) - 1, 3))
  for start, end in zip(seen, [*seen[1:], seen[-1] + 1], strict=True):
    last = start + 1 if end in seen[breaks] else end
    strip[0, start:last] = colours[scores[1, start].argmax()]
  lower.imshow(strip, aspect="auto", extent=(edges[0], edges[-1], 0, 1), interpolation="nearest")
  lower.set(yticks=[], xlabel="seconds", xlim=(edges[0], edges[-1]))
  upper.tick_params(labelbottom=False)
  save_figure(figure, path, letters)


def _seen(scores: Float[np.ndarray, "2 n k"]) -> tuple[np.ndarray, np.ndarray]:
  """The bins with a face, and the positions among them that follow a gap.

  Frames that are further apart than the bins leave empty ones between them, which are no gaps.
  """
  seen = np.flatnonzero(~np.isnan(scores[1, :, 0]))
  steps = np.diff(seen)
  return seen, np.flatnonzero(steps > 4 * (np.median(steps) if len(steps) else 1)) + 1


def _plot_lines(
  axes: Axes,
  edges: np.ndarray,
  scores: np.ndarray,
  colours: Sequence[np.ndarray],
  names: Sequence[str],
) -> None:
  """Smoothed scores as lines, with those of the frames as pale dots; gaps stay open."""
  middle = (edges[1:] + edges[:-1]) / 2
  seen, breaks = _seen(scores)
  for index, (colour, name) in enumerate(zip(colours, names, strict=True)):
    times = np.insert(middle[seen], breaks, np.nan)
    smooth = np.insert(scores[1, seen, index], breaks, np.nan)
    dots = {"linestyle": "none", "marker": ".", "markersize": 3, "alpha": 0.4}
    axes.plot(middle[seen], scores[0, seen, index], color=tuple(colour), **dots)
    alone = len(seen) == 1
    axes.plot(times, smooth, color=tuple(colour), label=name, marker="o" if alone else None)
  axes.set(ylim=(0, 1.02), ylabel="score")
  axes.grid(alpha=0.3)
  axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False)

"""Output of metrics: metrics.jsonl, TensorBoard and the terminal."""

import json
import os
import pathlib
import sys
import time
from collections.abc import Mapping

from tensorboardX import SummaryWriter
from tqdm import tqdm

FILE = "metrics.jsonl"
_BOUNDS = ("_low", "_high")  # suffixes of the bounds of an interval


class MetricWriter:
  """Writes to `<workdir>/metrics.jsonl`, one object per line, and to `<workdir>/tensorboard`.

  A run that resumes at `step` first deletes the lines of later steps, so the file equals that of
  an uninterrupted run.
  """

  def __init__(self, workdir: pathlib.Path, *, step: int):
    self._path = workdir / FILE
    kept = [line for line in _lines(self._path) if json.loads(line)["step"] <= step]
    # Atomic: if the program is killed here, the old file must survive.
    partial = workdir / f".{FILE}.partial"
    partial.write_text("".join(line + "\n" for line in kept))
    os.replace(partial, self._path)
    folder, purge = str(workdir / "tensorboard"), step + 1 if step else None
    self._board = SummaryWriter(folder, purge_step=purge)

  def write(
    self, step: int, epoch: float, metrics: Mapping[str, float], *, selection: str = ""
  ) -> None:
    """Adds one line {"step": ..., "epoch": ..., **metrics}, and "selection" unless it is empty."""
    line = {"step": step, "epoch": round(epoch, 4), **metrics}
    if selection:
      line["selection"] = selection
      self._board.add_text("selection", selection, step)
    with self._path.open("a") as file:
      file.write(json.dumps(line) + "\n")
    for name, value in metrics.items():
      self._board.add_scalar(name, value, step)

  def close(self) -> None:
    self._board.close()


def _lines(path: pathlib.Path) -> list[str]:
  """The complete lines; the last one may be partial if the program was killed."""
  return path.read_text().split("\n")[:-1] if path.exists() else []


class Progress:
  """A progress bar with rate and remaining time on a terminal, plain lines elsewhere."""

  def __init__(self, total: int, *, done: int, unit: str, show: bool, keep: bool = True):
    self._interactive = sys.stderr.isatty()
    self._show = show
    self._total, self._first, self._done, self._unit = total, done, done, unit
    self._start = time.monotonic()
    self._bar = tqdm(
      total=total,
      initial=done,
      unit=unit,
      dynamic_ncols=True,
      leave=keep,
      disable=not (show and self._interactive),
    )

  def advance(self) -> None:
    self._done += 1
    self._bar.update()

  def note(self, text: str) -> None:
    """Shows the latest metrics next to the bar, or in a line with the remaining time."""
    if self._interactive:
      self._bar.set_postfix_str(text, refresh=False)
      return
    pace = (time.monotonic() - self._start) / max(self._done - self._first, 1)
    left = tqdm.format_interval(pace * (self._total - self._done))
    self.line(f"{self._done}/{self._total} {self._unit}s, {left} left: {text}")

  def line(self, text: str) -> None:
    """Prints a permanent line."""
    if self._show:
      tqdm.write(text, file=sys.stderr)

  def close(self) -> None:
    self._bar.close()


def format_table(metrics: Mapping[str, float], *, selection: str = "") -> str:
  """Name, value and interval of the headline metrics, then a row for each class.

  A note on the selection of the checkpoint, if any, comes first.

  The metrics of a class are named `<name>/<class>`; `<name>_low` and `<name>_high` are the
  interval of `<name>`. Rows of classes have no intervals.
  """
  headline = [name for name in metrics if is_headline(name)]
  width = max(map(len, headline), default=0)
  lines = [f"  {selection}"] if selection else []
  for name in headline:
    line = f"  {name:<{width}}  {_shown(name, metrics[name]):>10}"
    if f"{name}_low" in metrics:
      line += f"  {metrics[f'{name}_low']:.4f}..{metrics[f'{name}_high']:.4f}"
    lines.append(line)
  return "\n".join([*lines, *_class_rows(metrics)])


def is_headline(name: str) -> bool:
  """Whether a metric is neither of a class nor the bound of an interval."""
  return "/" not in name and not name.endswith(_BOUNDS)


def _class_rows(metrics: Mapping[str, float]) -> list[str]:
  rows: dict[str, dict[str, str]] = {}
  for name, value in metrics.items():
    column, of_class, class_name = name.partition("/")
    if of_class and is_headline(column):
      rows.setdefault(class_name, {})[column] = _shown(column, value)
  names = dict.fromkeys(column for row in rows.values() for column in row)
  columns = sorted(names, key=lambda column: column == "count")  # last
  width = max(map(len, rows), default=0)
  lines = [
    f"  {class_name:<{width}}" + "".join(f"  {row.get(column, '-'):>9}" for column in columns)
    for class_name, row in rows.items()
  ]
  title = f"  {'':<{width}}" + "".join(f"  {column:>9}" for column in columns)
  return [title, *lines] if rows else []


def _shown(name: str, value: float) -> str:
  is_count = name.startswith("num_") or name in ("count", "skipped_records")
  return f"{value:.0f}" if is_count else f"{value:.4f}"

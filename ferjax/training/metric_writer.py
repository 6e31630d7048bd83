"""Output of metrics: metrics.jsonl, TensorBoard, and tables."""

import contextlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from ferjax.output import atomic_writer
from ferjax.training.event_file import EventFile

FILE = "metrics.jsonl"
_BOUNDS = ("_low", "_high")  # suffixes of the bounds of an interval


class MetricWriter:
  """Writes to `<workdir>/metrics.jsonl`, one object per line, and to `<workdir>/tensorboard`.

  A run that resumes at `step` first deletes the lines of later steps, so the file equals that of
  an uninterrupted run. Without `evaluated`, it also deletes the evaluation of `step`, which it will
  repeat. `last_step` is the last step in the file before that; 0 if it was empty.

  All methods raise an OSError that names the file if it cannot be written.
  """

  def __init__(self, workdir: pathlib.Path, *, step: int, evaluated: bool = True):
    self._path = workdir / FILE
    lines = _lines(self._path)
    self.last_step: int = max((content["step"] for _, content in lines), default=0)
    with write_errors(self._path):
      # Atomic: if the program is killed here, the old file must survive.
      with atomic_writer(self._path) as file:
        file.writelines(f"{x}\n" for x, content in lines if _is_kept(content, step, evaluated))
      self._board = EventFile(workdir / "tensorboard", first_step=step + 1 if step else 0)

  def write(
    self, step: int, epoch: float, metrics: Mapping[str, float], *, selection: str = ""
  ) -> None:
    """Adds one line {"step": ..., "epoch": ..., **metrics}, and "selection" unless it is empty."""
    texts = {"selection": selection} if selection else {}
    line = {"step": step, "epoch": round(epoch, 4), **metrics, **texts}
    with write_errors(self._path):
      with self._path.open("a") as file:
        file.write(json.dumps(line) + "\n")
      self._board.write(step, metrics, texts)

  def close(self) -> None:
    with write_errors(self._path):
      self._board.close()


@contextlib.contextmanager
def write_errors(path: pathlib.Path) -> Iterator[None]:
  """Raises an OSError of the block as one that names the file and says what to do."""
  try:
    yield
  except OSError as error:
    raise OSError(
      f"{path} and the files next to it cannot be written ({error.strerror}). Check the free space "
      "and the permissions there, and run again: training resumes from the last complete checkpoint"
    ) from error


def _is_kept(line: Mapping[str, Any], step: int, evaluated: bool) -> bool:
  if line["step"] == step and not evaluated:
    return not any(name.startswith("eval/") for name in line)
  return line["step"] <= step


def _lines(path: pathlib.Path) -> list[tuple[str, dict[str, Any]]]:
  """The complete lines and their content; the last one may be partial if the program was killed."""
  lines = path.read_text().split("\n")[:-1] if path.exists() else []
  parsed = []
  for number, line in enumerate(lines, 1):
    try:
      content = json.loads(line)
      parsed.append((line, {"step": int(content["step"]), **content}))
    except (ValueError, TypeError, KeyError) as error:
      raise ValueError(
        f"{path}:{number} is damaged: {line[:40]!r}; delete this line and those after it, or move "
        "the file to another folder"
      ) from error
  return parsed


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

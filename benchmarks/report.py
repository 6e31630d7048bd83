"""Results of a benchmark in sections: rows on disk as soon as they are known, tables from them."""

import json
import pathlib
import time
from collections.abc import Callable, Iterable
from typing import Any

ROWS = "rows.jsonl"
# Errors of one measurement, after which the next one can still run: compilers and devices raise
# the first (jax.errors.JaxRuntimeError and torch's errors are subclasses), libraries the others.
ERRORS = (
  RuntimeError, ValueError, TypeError, NotImplementedError, AttributeError, OSError, ImportError,
  MemoryError,
)  # fmt: skip


class Section:
  """One section, which appends its rows to a file, until its time is over."""

  def __init__(self, name: str, folder: pathlib.Path, seconds: float, *, tiny: bool):
    self.name, self.tiny, self._file = name, tiny, folder / ROWS
    self._end = time.monotonic() + seconds

  def seconds_left(self) -> float:
    return self._end - time.monotonic()

  def add(self, **row: Any) -> None:
    """Writes a row: column -> value."""
    with self._file.open("a") as file:
      file.write(json.dumps({"section": self.name, **row}) + "\n")
    print(self.name, row, flush=True)

  def note(self, text: str) -> None:
    """Writes a sentence, which is shown below the table."""
    self.add(note=text)

  def attempt(self, label: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> bool:
    """Adds the row that `measure` returns, or its error; returns whether it succeeded."""
    try:
      result = measure()
    except ERRORS as error:
      self.add(**label, error=short(error))
      return False
    self.add(**label, **result)
    return True


def short(error: BaseException, length: int = 200) -> str:
  """Type and message on one line."""
  text = " ".join(f"{type(error).__name__}: {error}".split())
  return text if len(text) <= length else text[: length - 1] + "…"


def read(folder: pathlib.Path) -> list[dict[str, Any]]:
  """All rows so far; an incomplete last line, of a process that was killed, is dropped."""
  path = folder / ROWS
  lines = path.read_text().splitlines(keepends=True) if path.exists() else []
  return [json.loads(line) for line in lines if line.endswith("\n")]


def tables(rows: Iterable[dict[str, Any]], titles: dict[str, str]) -> str:
  """One Markdown table per section in the order of `titles`, and its notes."""
  parts = []
  rows = list(rows)
  for name, title in titles.items():
    own = [
      {k: v for k, v in row.items() if k != "section"} for row in rows if row["section"] == name
    ]
    notes = [f"- {row['note']}" for row in own if "note" in row]
    body = markdown([row for row in own if "note" not in row]) if own else "not run"
    parts += [f"## {title}", *filter(None, [body, "\n".join(notes)])]
  return "\n\n".join(parts) + "\n"


def markdown(rows: list[dict[str, Any]]) -> str:
  """A table; columns in the order in which they occur first, numbers with three digits."""
  columns = list(dict.fromkeys(name for row in rows for name in row))
  if not columns:
    return ""
  lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
  lines += ["| " + " | ".join(cell(row.get(name, "")) for name in columns) + " |" for row in rows]
  return "\n".join(lines)


def cell(value: Any) -> str:
  """A number with three significant digits, or without decimals; other values as text."""
  if isinstance(value, float):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
  return str(value).replace("|", "/").replace("\n", " ")

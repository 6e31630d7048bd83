"""The metrics of a run over its steps, from metrics.jsonl."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

METRICS = "metrics.jsonl"


@dataclasses.dataclass(frozen=True)
class History:
  """The lines of metrics.jsonl: `step`, `epoch` and metrics named `train/...` or `eval/...`."""

  lines: Sequence[Mapping[str, Any]]

  def series(self, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps at which a metric was logged, and its values."""
    rows = [(line["step"], line[name]) for line in self.lines if name in line]
    steps, values = zip(*rows, strict=True) if rows else ((), ())
    return np.array(steps, float), np.array(values, float)

  def names(self) -> set[str]:
    """Of all metrics."""
    return {name for line in self.lines for name in line if "/" in name}


def read_history(workdir: str | os.PathLike) -> History:
  """Reads the file of a run, which may be running: an incomplete last line is left out.

  Without a file, the history is empty. ValueError for a damaged line; it names the file.
  """
  path = pathlib.Path(workdir) / METRICS
  lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
  parsed = []
  for number, line in enumerate(lines, 1):
    try:
      content = json.loads(line)
      parsed.append({**content, "step": int(content["step"])})
    except (ValueError, TypeError, KeyError) as error:
      raise ValueError(f"{path}:{number} is damaged: {line[:40]!r}; delete this line") from error
  return History(parsed)

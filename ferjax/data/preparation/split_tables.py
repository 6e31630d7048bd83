"""The labels and attributes of a split as tables next to its shards, read without opening these."""

import io
import json
from collections.abc import Sequence

import numpy as np
from etils import epath

from ferjax.data.datasets.entries import Entry
from ferjax.data.prepared import attributes_file, labels_file


def write_labels(folder: epath.Path, split: str, entries: Sequence[Entry], classes: int) -> None:
  """Writes the class distributions of faces."""
  file = io.BytesIO()
  np.save(file, np.stack([entry.distribution(classes) for entry in entries]))
  (folder / labels_file(split)).write_bytes(file.getvalue())


def write_attributes(folder: epath.Path, split: str, entries: Sequence[Entry]) -> None:
  """Writes the attributes, if the set has any."""
  columns = [name for name, _ in entries[0].attributes]
  values = [dict(entry.attributes) for entry in entries] if columns else []
  if columns:
    table = {name: [x[name] for x in values] for name in columns}
    (folder / attributes_file(split)).write_text(json.dumps(table))

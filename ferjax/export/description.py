"""The description inside every exported file: JSON, the same fields in each format."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NotRequired

from ferjax._version import __version__
from ferjax.output import one_line
from ferjax.trained import (
  NetworkMeta,
  TrainedNetwork,
  check_network_meta,
  network_meta,
  version_error,
)

FORMAT = 1
KEY = "ferjax"  # under which files with named metadata have the description


class ExportDescription(NetworkMeta):
  """What a program needs to use an exported file, besides its inputs and outputs.

  `format` is the version of this description, and `kind` the format of the file. `inputs` and
  `outputs` have a text for people on each. `settings` are those of prediction: the ones of the
  program, and `crop_margin`, if the weights have it. `parameters` is whether they are "inside" the
  program or its "arguments". `raw` is whether the outputs are those of the network.
  `step`, `epoch` and `selection` are of the run; `data` and `licence` of the weights.
  `quantization`, of a smaller file, has its kind and how its answers differ from those in float32.
  `sha256` is of an ONNX file in which this field has 64 zeros; archives have their own checksums.
  """

  format: int
  kind: str
  name: str
  raw: bool
  parameters: str
  inputs: dict[str, str]
  outputs: dict[str, str]
  settings: dict[str, Any]
  data: str
  licence: str
  selection: str
  step: int
  epoch: float
  versions: dict[str, str]
  quantization: NotRequired[dict[str, Any]]
  sha256: NotRequired[str]


def describe(opened: TrainedNetwork, kind: str, **fields: Any) -> ExportDescription:
  """The description of a network, without what only the format knows.

  Args:
    opened: the network.
    kind: the format of the file.
    fields: others, such as `settings`, `raw`, `inputs` and `outputs`.
  """
  meta = opened.meta
  description: dict[str, Any] = {
    **network_meta(meta),
    "format": FORMAT,
    "kind": kind,
    # Of a checkpoint, WORKDIR/checkpoints/STEP: the folders above mean nothing elsewhere.
    "name": pathlib.PurePath(*pathlib.PurePath(opened.name).parts[-3:]).as_posix(),
    "raw": False,
    "parameters": "inside",
    "inputs": {},
    "outputs": {},
    "settings": dict(opened.settings),
    "data": meta.get("data", ""),
    "licence": meta.get("licence", ""),
    "selection": meta["selection"],
    "step": meta["step"],
    "epoch": meta["epoch"],
    "versions": {"ferjax": __version__},
  }
  # As after reading: lists instead of tuples.
  return json.loads(json.dumps(description | fields, allow_nan=False))


def read_description(text: str | bytes | None, name: str) -> ExportDescription:
  """Reads the JSON of a description.

  Args:
    text: of the description; None if the file has none.
    name: of the file, for messages.

  Raises:
    ValueError: there is none, it is damaged, or a newer version wrote it.
  """
  if text is None:
    raise ValueError(
      f"{name} has no description of ferjax; expected a file of `ferjax export`. A checkpoint or a "
      "weights file is given with --checkpoint"
    )
  try:
    description = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise damaged(name, f"its description is not JSON ({error})") from error
  if not isinstance(description, Mapping) or not isinstance(description.get("format"), int):
    raise damaged(name, "its description has no format")
  if description["format"] > FORMAT:
    problem = (
      f"its format is {description['format']}, and this version reads formats up to {FORMAT}"
    )
    raise version_error(description, name, problem, "exported file")
  missing = ExportDescription.__required_keys__ - description.keys()
  if missing:
    raise damaged(name, f"its description lacks {', '.join(sorted(missing))}")
  description = check_network_meta(description, f"the exported file {name}")
  if not isinstance(description["raw"], bool):
    raise damaged(name, f"its raw is {description['raw']!r}; expected true or false")
  return description  # pyright: ignore[reportReturnType]


def damaged(name: str, problem: str) -> ValueError:
  """The error for a file that cannot be read."""
  return ValueError(one_line(f"the exported file {name} is damaged: {problem}. Export it again"))

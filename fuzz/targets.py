"""The targets by name, and their corpus."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

from fuzz import annotations, checkpoints, images, networks

CORPUS = pathlib.Path(__file__).parent / "corpus"
MEMORY = 2**28  # bytes that an input may need
PROGRAM_MEMORY = 2**34  # MLIR reserves what a changed count in a program says


class Target(NamedTuple):
  """A function of bytes that fails if something is wrong.

  `is_json` if these are JSON text; `memory` is what an input may need, bytes.
  """

  run: Callable[[bytes], None]
  is_json: bool = False
  memory: int = MEMORY


TARGETS = {
  "image": Target(images.decode_image),
  "annotations": Target(annotations.read_annotations),
  "config": Target(networks.config, True),
  "checkpoint_description": Target(networks.checkpoint_description, True),
  "checkpoint_files": Target(checkpoints.checkpoint_files),
  "weights_file": Target(networks.weights_file),
  "weights_description": Target(networks.weights_description, True),
  "state_dict": Target(networks.state_dict),
  "stablehlo": Target(networks.stablehlo),
  "stablehlo_description": Target(networks.stablehlo_description, True),
  "stablehlo_program": Target(networks.stablehlo_program, memory=PROGRAM_MEMORY),
  "onnx_file": Target(networks.onnx_file),
}


def corpus(name: str) -> list[pathlib.Path]:
  """The files of a target."""
  return sorted((CORPUS / name).iterdir())


def write_corpus() -> None:
  """Writes the right inputs; inputs that failed once are added by hand."""
  seeds = {
    "image": images.seeds(),
    "annotations": annotations.seeds(),
  }
  for name, data in (networks.seeds() | checkpoints.seeds()).items():
    seeds.setdefault(name.partition("-")[0], {})[name] = data
  for target, files in seeds.items():
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
      (folder / name).write_bytes(data)


if __name__ == "__main__":
  write_corpus()

"""Opens trained networks: known weights, weights files and checkpoints."""

import os
import pathlib
import warnings
from typing import Any

from ferjax.trained import TrainedNetwork
from ferjax.weights.file import read_weights
from ferjax.weights.known import known_weights, read_known

# A step of a checkpoint, "best", "latest" or None, as in `ferjax.checkpoint.Step`. That package is
# imported only to open a checkpoint, because orbax takes a second to import.
Step = int | str | None


def open_weights(
  source: str | os.PathLike | TrainedNetwork, *, step: Step = None
) -> TrainedNetwork:
  """Opens a trained network.

  Args:
    source: the name of known weights, a weights file, or a checkpoint as for
      `ferjax.checkpoint.open_checkpoint`. A string that is a known name is never a path; "./NAME"
      is the file or folder of the same name. An open network is returned as it is.
    step: of a checkpoint: "best", "latest" or a number; None is the best, or the latest if none was
      evaluated. Must be None for known weights and weights files.

  Raises:
    FileNotFoundError: neither a known name, nor a file or a folder; the message lists the known
      names. Or a checkpoint does not exist.
    ValueError: a damaged weights file, or one of another kind; a step where there is only one; or
      another version wrote the weights, and this one cannot read them.
  """
  if isinstance(source, TrainedNetwork):
    return _only_step(source, step)
  if isinstance(source, str) and source in known_weights():
    if os.path.exists(source):
      warnings.warn(
        f"{source!r} are known weights, and also exists here; using the known weights. "
        f"{os.path.join(os.curdir, source)!r} is the one that exists here",
        stacklevel=2,
      )
    return _only_step(read_known(source), step)
  if "://" in os.fspath(source):
    return _open_checkpoint(source, step)
  path = pathlib.Path(source).expanduser()
  if path.is_file():
    _refuse_other_kinds(path)
    return _only_step(read_weights(path, str(path)), step)
  if not path.exists():
    names = ", ".join(known_weights()) or "none"
    raise FileNotFoundError(
      f"{os.fspath(source)!r} is not the name of known weights ({names}), and there is no such "
      f"folder: {path.absolute()}; expected a name, a weights file, a workdir or a checkpoint"
    )
  return _open_checkpoint(path, step)


def load_variables(
  source: str | os.PathLike | TrainedNetwork, *, step: Step = None
) -> dict[str, Any]:
  """Variables for `model.apply`, as float32 arrays on the default device.

  Arguments and errors are those of `open_weights`.
  """
  return open_weights(source, step=step).variables()


# Files that come with trained networks, but need another way in.
_PROGRAMS = (".stablehlo", ".onnx")
_STATE_DICTS = (".pth", ".pt", ".tar", ".npz")


def _refuse_other_kinds(path: pathlib.Path) -> None:
  """Raises a ValueError for a file that has no variables of ferjax, by its suffix."""
  if path.suffix in _PROGRAMS:
    raise ValueError(
      f"{path} is an exported program, not weights; run it with `ferjax predict --exported {path}` "
      "or ferjax.export.load_exported"
    )
  if path.suffix in _STATE_DICTS:
    raise ValueError(
      f"{path} has the names of another program, and is no weights file of ferjax; make a "
      f"checkpoint of it with `ferjax weights import MODEL {path} --out DIR`"
    )


def _open_checkpoint(path: Any, step: Any) -> TrainedNetwork:
  from ferjax.checkpoint import open_checkpoint

  return open_checkpoint(path, step=step)


def _only_step(network: TrainedNetwork, step: Step) -> TrainedNetwork:
  if step is not None:
    raise ValueError(f"{network.name} has the weights of one step; remove step {step!r}")
  return network

"""Reading a checkpoint: one step of a run, its description and its variables."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from etils import epath

from ferjax.checkpoint.meta import Meta, read_meta
from ferjax.trained import TrainedNetwork

FOLDER = "checkpoints"

Step = int | Literal["best", "latest"] | None


class CheckpointRemovedError(FileNotFoundError):
  """A checkpoint was removed while it was being read."""

  def __init__(self, folder: epath.Path):
    super().__init__(
      f"the checkpoint {folder} was removed while it was being read; a running training keeps "
      "only its newest checkpoints and the best. Open the workdir again"
    )


@dataclasses.dataclass(frozen=True)
class Checkpoint(TrainedNetwork):
  """The checkpoint of exactly one step.

  Attributes:
    folder: of the step.
    meta: its description.
  """

  folder: epath.Path
  meta: Meta

  @property
  def name(self) -> str:
    """The folder."""
    return str(self.folder)

  @property
  def settings(self) -> Mapping[str, Any]:
    """Settings of prediction that replace its defaults, in an imported network."""
    return self.meta.get("settings", {})

  def variables(self) -> dict[str, Any]:
    """Reads the variables for `model.apply`, as arrays on the default device.

    They may have been saved from any number of devices.

    Raises:
      CheckpointRemovedError: the checkpoint no longer exists.
      DamagedCheckpointError: a file cannot be read.
    """
    item = self.folder / "variables"
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    try:
      if problem := problem_of_arrays(item):
        raise DamagedCheckpointError(
          f"the checkpoint {self.folder} is damaged: {problem}. Restore it, or choose another step"
        )
      like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), saved_tree(item)
      )
      return restore_tree(item, like)
    except (OSError, ValueError) as error:
      if item.is_dir():
        raise
      raise CheckpointRemovedError(self.folder) from error

  def training_state(self) -> dict[str, Any]:
    """Reads the item `train`, as NumPy arrays in dicts and lists."""
    return read_arrays(self.folder / "train")


class DamagedCheckpointError(ValueError):
  """A file of a checkpoint cannot be read."""


def open_checkpoint(path: str | os.PathLike | Checkpoint, *, step: Step = None) -> Checkpoint:
  """Opens the checkpoint of one step; its description and variables belong to that step.

  Args:
    path: a workdir, its `checkpoints` folder, or the folder of one step. An open
      checkpoint is returned as it is.
    step: "best", "latest" or a number; None is the best, or the latest if none was evaluated.
      Must be None for an open checkpoint or the folder of one step.

  Raises:
    FileNotFoundError: no such folder, no checkpoint in it, or no such step.
    ValueError: a step is given with a single checkpoint, or the checkpoint was written by a version
      of ferjax that this one cannot read; the message names both versions.
  """
  if isinstance(path, Checkpoint):
    _check_no_step(path.folder, step)
    return path
  try:
    return _open(_find(path, step))
  except CheckpointRemovedError:
    # A running training has just replaced the best or the latest checkpoint.
    return _open(_find(path, step))


def load_variables(path: str | os.PathLike, *, step: Step = None) -> dict[str, Any]:
  """Variables for `model.apply` from a checkpoint, as arrays on the default device.

  They may have been saved from any number of devices. Arguments and errors are those of
  `open_checkpoint`.
  """
  return open_checkpoint(path, step=step).variables()


def load_meta(path: str | os.PathLike, *, step: Step = None) -> Meta:
  """The description of a checkpoint; arguments and errors are those of `open_checkpoint`."""
  return open_checkpoint(path, step=step).meta


def _open(folder: epath.Path) -> Checkpoint:
  try:
    saved = read_json(folder / "meta" / "metadata")
  except FileNotFoundError as error:
    raise CheckpointRemovedError(folder) from error
  return Checkpoint(folder, read_meta(saved, str(folder)))


def steps_of(workdir: str | os.PathLike) -> list[int]:
  """The steps of the complete checkpoints of a workdir, in order."""
  root = epath.Path(workdir).expanduser().absolute() / FOLDER
  return sorted(ocp.utils.checkpoint_steps(root)) if root.is_dir() else []


def _find(path: str | os.PathLike, step: Step) -> epath.Path:
  """The folder of one step; arguments and errors as `open_checkpoint`."""
  path = epath.Path(path).expanduser().absolute()
  if not path.exists():
    raise FileNotFoundError(f"no such folder: {path}; expected a workdir or a checkpoint")
  if (path / "variables").is_dir():
    _check_no_step(path, step)
    return path
  root = path / FOLDER if (path / FOLDER).is_dir() else path
  steps = sorted(ocp.utils.checkpoint_steps(root)) if root.is_dir() else []
  if not steps:
    raise FileNotFoundError(
      f"no checkpoint in {path}; expected a workdir with {FOLDER}/<step>, that {FOLDER} folder, "
      "or the folder of one step"
    )
  return root / str(_choose(root, steps, step))


def _check_no_step(folder: epath.Path, step: Step) -> None:
  if step is not None:
    raise ValueError(f"{folder} is the checkpoint of one step; remove step {step!r}")


def _choose(root: epath.Path, steps: list[int], step: Step) -> int:
  if step == "latest":
    return steps[-1]
  if step in (None, "best"):
    scores = {s: score for s in steps if (score := read_score(root / str(s))) is not None}
    if scores:
      # The latest of equal scores, like the policy that keeps checkpoints.
      return max(scores, key=lambda s: (scores[s], s))
    if step is None:
      return steps[-1]
    raise FileNotFoundError(f"no checkpoint in {root} was evaluated; steps: {steps}")
  if step not in steps:
    raise FileNotFoundError(f"no checkpoint of step {step!r} in {root}; steps: {steps}")
  return step


def read_score(folder: epath.Path) -> float | None:
  """The score of a checkpoint; None if it was not evaluated, or has just been removed.

  Raises:
    DamagedCheckpointError: the file of the score has none.
  """
  file = folder / "metrics" / "metrics"
  try:
    metrics = read_json(file)
  except FileNotFoundError:
    return None
  if not isinstance(score := metrics.get("score"), int | float):
    raise DamagedCheckpointError(
      f"{file} is damaged: its score is {score!r}. Restore it, or delete the checkpoint {folder}"
    )
  return finite_score(metrics)


def is_evaluated(folder: epath.Path) -> bool:
  """Whether the description of a checkpoint has metrics; False if it has just been removed."""
  try:
    return bool(read_json(folder / "meta" / "metadata").get("metrics"))
  except FileNotFoundError:
    return False


def finite_score(metrics: Mapping[str, float]) -> float:
  return metrics["score"] if math.isfinite(metrics["score"]) else -math.inf


def read_json(file: epath.Path) -> dict[str, Any]:
  """An object of JSON in the folder of a checkpoint; a DamagedCheckpointError names a bad file."""
  try:
    content = json.loads(file.read_text())
    if not isinstance(content, dict):
      raise ValueError(f"expected an object, found {type(content).__name__}")
  except ValueError as error:  # of bytes that are not UTF-8, too
    raise DamagedCheckpointError(
      f"{file} is damaged: {error}. Restore it, or delete the checkpoint {file.parent.parent}"
    ) from error
  return content


def problem_of_arrays(item: epath.Path) -> str:
  """Why an item cannot be read, in one line; "" if it can be.

  All arrays are read, one after the other, to need little memory: with tensorstore, because orbax,
  after an error, leaves reads behind that fail in other threads.
  """
  try:
    _read_all(item)
  except KeyError as error:
    return f"its description lacks {error}"
  except (OSError, ValueError, TypeError, AttributeError) as error:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
  return ""


def _read_all(item: epath.Path) -> None:
  for name in ("_METADATA", "_sharding"):
    if (item / name).exists():
      read_json(item / name)
  # A remote folder is a URL; as one, a local path would have to be quoted.
  is_url = "://" in str(item)
  base = f"{item}/" if is_url else {"driver": "file", "path": f"{item}/"}
  kvstore = {"driver": "ocdbt", "base": base}
  store: Any = ts.KvStore.open(kvstore).result()
  suffix = b"/.zarray"
  names = [key.removesuffix(suffix) for key in store.list().result() if key.endswith(suffix)]
  arrays = len(jax.tree.leaves(saved_tree(item)))
  if len(names) != arrays:
    raise FileNotFoundError(f"{item} has {len(names)} of {arrays} arrays")
  for name in names:
    place = {**kvstore, "path": f"{name.decode()}/"}
    ts.open({"driver": "zarr", "kvstore": place}).result().read().result()


def saved_tree(item: epath.Path) -> Any:
  return ocp.PyTreeCheckpointHandler().metadata(item).tree


def read_arrays(item: epath.Path) -> Any:
  """The arrays of an item as NumPy arrays: no device needs memory for them."""
  like = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), saved_tree(item))
  return restore_tree(item, like)


def restore_tree(item: epath.Path, like: Any) -> Any:
  return ocp.StandardCheckpointHandler().restore(item, args=ocp.args.StandardRestore(like))

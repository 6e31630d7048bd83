"""Writing checkpoints in training, and resuming from one."""

import contextlib
import glob
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from ferjax.checkpoint.damage import set_damaged_aside
from ferjax.checkpoint.meta import FORMAT
from ferjax.checkpoint.reading import (
  FOLDER,
  Checkpoint,
  finite_score,
  is_evaluated,
  open_checkpoint,
  read_score,
  restore_tree,
  saved_tree,
)

_PROBE = ".probe"
_DELETED = ".deleted"


class CheckpointWriteError(OSError):
  """A checkpoint could not be written, perhaps after `save` had returned."""


class Checkpoints:
  """The checkpoints of a run: the newest `keep`, and the best by `metric`.

  `save` returns when it has copied the values; threads write them. Every other method first waits
  until they are written, and raises a `CheckpointWriteError` if that failed. Until then, and
  after an interrupted save, there is only a temporary folder, which is never used as a checkpoint
  and which the next run removes. A checkpoint that is no longer kept is first renamed, so that a
  program that is killed while it deletes one leaves no half of it under its name.
  """

  def __init__(self, workdir: str | os.PathLike, *, keep: int, metric: str):
    """Opens the folder, creating it if missing.

    `metric` is "" if no step will be evaluated.

    Raises:
      ValueError: the path contains characters with which checkpoints cannot be written.
      DamagedCheckpointError: all checkpoints there are damaged.
    """
    self.folder = epath.Path(workdir).expanduser().absolute() / FOLDER
    self._metric = metric
    self._last_saved: int | None = None
    self._resources = contextlib.ExitStack()
    set_damaged_aside(self.folder)  # orbax opens no folder in which a score is damaged
    self._path = _pattern_free_path(self.folder, self._resources)
    policy = checkpoint_managers.AnyPreservationPolicy(
      [
        checkpoint_managers.LatestN(keep),
        checkpoint_managers.BestN(
          get_metric_fn=finite_score, n=1, keep_checkpoints_without_metrics=False
        ),
      ]
    )
    self._manager = ocp.CheckpointManager(
      self._path,
      options=ocp.CheckpointManagerOptions(
        best_fn=finite_score if metric else None,
        preservation_policy=policy,
        cleanup_tmp_directories=True,
        todelete_subdir=_DELETED,
      ),
    )
    self._empty_bin()

  @property
  def latest_step(self) -> int | None:
    self.wait()
    return self._manager.latest_step()

  @property
  def best_score(self) -> float:
    """The highest score of the kept checkpoints; -inf if none has a score.

    A checkpoint to which a killed program was adding its metrics has a score, but is not evaluated.
    """
    self.wait()
    folders = [self.folder / str(step) for step in self._manager.all_steps()]
    scores = [read_score(folder) for folder in folders if is_evaluated(folder)]
    return max((score for score in scores if score is not None), default=-math.inf)

  def open(self, step: int) -> Checkpoint:
    """Opens a step; see `open_checkpoint`."""
    self.wait()
    return open_checkpoint(self.folder, step=step)

  def check_readable(self) -> None:
    """Writes a small checkpoint, reads it back and removes it.

    Raises:
      OSError: the checkpoint cannot be read back, or its values differ.
    """
    written = {"numbers": np.arange(8.0)}
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
    self._remove_probe()  # left by a program that was killed here
    try:
      with ocp.CheckpointManager(self._path / _PROBE, options=options) as manager:
        manager.save(0, args=ocp.args.Composite(probe=ocp.args.StandardSave(written)))
      read = restore_tree(self.folder / _PROBE / "0" / "probe", written)
    except (OSError, ValueError) as error:
      reason = (str(error).splitlines() or [type(error).__name__])[0]
      raise OSError(
        f"checkpoints cannot be read back from {self.folder} ({reason}); check the free space and "
        "the permissions there, or choose another workdir"
      ) from error
    if not np.array_equal(read["numbers"], written["numbers"]):
      raise OSError(
        f"checkpoints read back from {self.folder} have other values; choose another workdir"
      )
    self._remove_probe()

  def _remove_probe(self) -> None:
    multihost_utils.sync_global_devices("probe")
    if jax.process_index() == 0:
      (self.folder / _PROBE).rmtree(missing_ok=True)
    multihost_utils.sync_global_devices("no probe")

  def save(
    self,
    step: int,
    *,
    variables: Mapping[str, Any],
    meta: Mapping[str, Any],
    train: Mapping[str, Any] | None = None,
    iterator: grain.DatasetIterator | None = None,
    metrics: Mapping[str, float] | None = None,
  ) -> None:
    """Starts to write the checkpoint of a step, after the previous one is written.

    The arrays may be donated to the next step: their values are copied first.

    Args:
      step: number of the step.
      variables: for `model.apply`.
      meta: the fields of `Meta`, except the format and the metrics.
      train: the state for resuming: a dict of trees of arrays. None for a network that was not
        trained here, which cannot be resumed.
      iterator: over the training data; None likewise.
      metrics: from evaluating this state; None if it was not evaluated.

    Raises:
      CheckpointWriteError: the previous checkpoint could not be written, or this one not begun.
    """
    self.wait()
    score = None if metrics is None else {"score": metrics[self._metric]}
    own_fields = {"format": FORMAT, "metric": self._metric, "metrics": dict(metrics or {})}
    items: dict[str, Any] = {
      "variables": ocp.args.StandardSave(variables),
      "meta": ocp.args.JsonSave({**meta, **own_fields}),
    }
    if train is not None:
      items["train"] = ocp.args.StandardSave(train)
    if iterator is not None:
      items["data"] = grain.checkpoint.CheckpointSave(iterator)
    self._last_saved = step
    with self._named_errors(OSError):
      self._manager.save(step, args=ocp.args.Composite(**items), metrics=score)

  def wait(self) -> None:
    """Waits until the last save is written.

    Raises:
      CheckpointWriteError: it could not be written.
    """
    with self._named_errors(OSError, ValueError, RuntimeError):
      self._manager.wait_until_finished()
      self._empty_bin()

  def _empty_bin(self) -> None:
    if jax.process_index() == 0:
      (self.folder / _DELETED).rmtree(missing_ok=True)

  @contextlib.contextmanager
  def _named_errors(self, *kinds: type[Exception]) -> Iterator[None]:
    try:
      yield
    except kinds as error:
      raise CheckpointWriteError(
        f"the checkpoint of step {self._last_saved} could not be written to {self.folder}: {error}."
        " Check the free space and the permissions there, and run again: training resumes from the "
        "last complete checkpoint"
      ) from error

  @contextlib.contextmanager
  def written(self) -> Iterator[None]:
    """A context that ends when the last save is written.

    An error of the writing is raised; if the context ends with another error, it is logged.
    """
    succeeded = False
    try:
      yield
      succeeded = True
    finally:
      try:
        self.wait()
      except CheckpointWriteError as error:
        if succeeded:
          raise
        logging.error("%s", error)

  def add_metrics(
    self, step: int, metrics: Mapping[str, float], *, evaluations_since_best: int
  ) -> None:
    """Adds the evaluation metrics to a checkpoint that was saved without them."""
    self.wait()
    folder = self.folder / str(step)
    if jax.process_index() == 0:
      meta = {
        **self.open(step).meta,
        "format": FORMAT,
        "metrics": dict(metrics),
        "evaluations_since_best": evaluations_since_best,
      }
      _write_json(folder / "metrics" / "metrics", {"score": metrics[self._metric]})
      _write_json(folder / "meta" / "metadata", meta)
    multihost_utils.sync_global_devices("metrics")
    self._manager.reload()

  def restore(
    self, step: int, like: Mapping[str, Any], iterator: grain.DatasetIterator | None = None
  ) -> dict[str, Any]:
    """Reads the item `train`, and moves a new iterator to the saved position.

    Args:
      step: number of the step.
      like: arrays, or shapes, with the shardings to restore to.
      iterator: None to ignore the saved position.

    Raises:
      ValueError: the saved parameters or shapes differ; the message names their paths.
    """
    self.wait()
    _check_tree(self.folder / str(step) / "train", like)
    items: dict[str, Any] = {"train": ocp.args.StandardRestore(like)}
    if iterator is not None:
      items["data"] = grain.checkpoint.CheckpointRestore(iterator)
    return self._manager.restore(step, args=ocp.args.Composite(**items))["train"]

  def close(self) -> None:
    """Waits until the last save is written, and closes the folder."""
    try:
      self.wait()
    finally:
      with self._resources, self._named_errors(OSError, ValueError, RuntimeError):
        self._manager.close()  # raises an error of the last save once more


def _pattern_free_path(folder: epath.Path, resources: contextlib.ExitStack) -> epath.Path:
  """A path of the folder without the characters of glob patterns.

  When orbax merges the files of the processes, it uses the whole path as a glob pattern: for
  `w [1]` it searches `w 1` and finds nothing. A symbolic link with a plain name avoids this; it is
  removed when `resources` is closed.
  """
  if not _is_pattern(folder):
    return folder
  if _is_pattern(tempfile.gettempdir()):
    raise _pattern_error(
      folder, f"the folder for temporary files, {tempfile.gettempdir()}, has one too"
    )
  links = resources.enter_context(tempfile.TemporaryDirectory(prefix="ferjax-"))
  link = pathlib.Path(links) / FOLDER
  try:
    folder.mkdir(parents=True, exist_ok=True)
    link.symlink_to(folder)
  except OSError as error:
    resources.close()
    raise _pattern_error(folder, f"a link to it cannot be created: {error}") from error
  return epath.Path(link)


def _is_pattern(path: str | os.PathLike) -> bool:
  return glob.escape(os.fspath(path)) != os.fspath(path)


def _pattern_error(folder: epath.Path, reason: str) -> ValueError:
  return ValueError(
    f"checkpoints cannot be written to {folder}: a path with one of the characters * ? [ is read "
    f"as a glob pattern, and {reason}. Choose a workdir without them"
  )


def _write_json(file: epath.Path, content: Mapping[str, Any]) -> None:
  """Writes a file atomically."""
  file.parent.mkdir(exist_ok=True)
  partial = file.parent / f".{file.name}.partial"
  partial.write_text(json.dumps(content))
  partial.replace(file)


def _check_tree(item: epath.Path, wanted: Any) -> None:
  saved, wanted = _shapes(saved_tree(item)), _shapes(wanted)
  problems = [f"missing {path}" for path in sorted(wanted.keys() - saved.keys())]
  problems += [f"unexpected {path}" for path in sorted(saved.keys() - wanted.keys())]
  problems += [
    f"{path} has shape {saved[path]}, not {wanted[path]}"
    for path in sorted(saved.keys() & wanted.keys())
    if saved[path] != wanted[path]
  ]
  if problems:
    listed = "\n  ".join(problems[:10] + (["..."] if len(problems) > 10 else []))
    raise ValueError(
      f"the checkpoint {item.parent} does not match this model ({len(problems)} differences):\n"
      f"  {listed}\nResume with the configuration that wrote it, or choose another workdir."
    )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
    for path, leaf in leaves
  }

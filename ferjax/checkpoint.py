"""Checkpoints: what training needs to go on, and what inference needs alone.

A workdir has `checkpoints/<step>/` with four items: `variables` (params and batch_stats to
predict with: the moving averages where they are kept), `train` (everything a step reads), `data`
(the iterator) and `meta` (JSON: model, class names, image size, normalisation, config). This is
the only module that knows orbax.
"""

import json
import math
import os
from collections.abc import Mapping
from typing import Any, Literal

import grain
import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from ferjax.training.state import TrainState

FOLDER = "checkpoints"

Step = int | Literal["best", "latest"] | None


class Checkpoints:
  """The checkpoints of one run: the newest `keep` of them, and the best by `metric`.

  Saving is done when `save` returns. An interrupted save leaves a temporary folder that is never
  taken for a checkpoint, and that the next run removes.
  """

  def __init__(self, workdir: str | os.PathLike, *, keep: int, metric: str):
    self.folder = epath.Path(workdir).expanduser().absolute() / FOLDER
    self._metric = metric
    policy = checkpoint_managers.AnyPreservationPolicy(
      [
        checkpoint_managers.LatestN(keep),
        checkpoint_managers.BestN(
          get_metric_fn=self._score, n=1, keep_checkpoints_without_metrics=False
        ),
      ]
    )
    self._manager = ocp.CheckpointManager(
      self.folder,
      options=ocp.CheckpointManagerOptions(
        best_fn=self._score,
        preservation_policy=policy,
        cleanup_tmp_directories=True,
        enable_async_checkpointing=False,
      ),
    )

  @property
  def latest_step(self) -> int | None:
    return self._manager.latest_step()

  @property
  def best_score(self) -> float:
    """The highest score among the checkpoints kept; -inf where none has one."""
    scores = [_score(self.folder / str(step)) for step in self._manager.all_steps()]
    return max((score for score in scores if score is not None), default=-math.inf)

  def save(
    self,
    state: TrainState,
    iterator: grain.DatasetIterator,
    meta: Mapping[str, Any],
    metrics: Mapping[str, float] | None,
  ) -> None:
    """Writes the checkpoint of `state.step`; `metrics` are those of evaluating this very state."""
    score = None if metrics is None else {"score": metrics[self._metric]}
    args = ocp.args.Composite(
      variables=ocp.args.StandardSave(state.inference_variables()),
      train=ocp.args.StandardSave(_as_dict(state)),
      data=grain.checkpoint.CheckpointSave(iterator),
      meta=ocp.args.JsonSave({**meta, "metric": self._metric, "metrics": dict(metrics or {})}),
    )
    self._manager.save(int(state.step), args=args, metrics=score)

  def add_figures(self, step: int, metrics: Mapping[str, float]) -> None:
    """Gives a checkpoint that was saved without metrics those of evaluating its state."""
    folder = self.folder / str(step)
    if jax.process_index() == 0:
      meta = {**load_meta(folder), "metrics": dict(metrics)}
      _write_json(folder / "metrics", "metrics", {"score": metrics[self._metric]})
      _write_json(folder / "meta", "metadata", meta)
    multihost_utils.sync_global_devices("figures")
    self._manager.reload()

  def restore(self, step: int, like: TrainState) -> TrainState:
    """The state saved at a step, on the shardings of `like` (shapes are enough).

    Raises:
      ValueError: what was saved has other parameters or shapes; the paths are named.
    """
    wanted = _as_dict(like)
    _check_tree(self.folder / str(step) / "train", wanted)
    restored = self._manager.restore(
      step, args=ocp.args.Composite(train=ocp.args.StandardRestore(wanted))
    )
    return TrainState(**restored["train"])

  def restore_iterator(self, step: int, iterator: grain.DatasetIterator) -> None:
    """Sets a freshly made iterator to where it was."""
    args = ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(iterator))
    self._manager.restore(step, args=args)

  def close(self) -> None:
    self._manager.close()

  @staticmethod
  def _score(metrics: Mapping[str, float]) -> float:
    return metrics["score"] if math.isfinite(metrics["score"]) else -math.inf


def load_variables(path: str | os.PathLike, *, step: Step = None) -> dict[str, Any]:
  """Variables for `model.apply` from a checkpoint, as ordinary arrays of the default device.

  It does not matter on how many devices they were saved.

  Args:
    path: a workdir, its `checkpoints` folder, or the folder of one step.
    step: "best", "latest" or a number; None is the best one, or the latest where none was
      evaluated. Not to be given with the folder of one step.

  Raises:
    FileNotFoundError: nothing there, no checkpoint in it, or not that step.
  """
  item = find_checkpoint(path, step=step) / "variables"
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), _saved_tree(item)
  )
  return ocp.StandardCheckpointHandler().restore(item, args=ocp.args.StandardRestore(like))


def load_meta(path: str | os.PathLike, *, step: Step = None) -> dict[str, Any]:
  """What a checkpoint says of itself; arguments and errors as `load_variables`.

  Keys: model (what `create_model` takes, but the number of classes), task, class_names,
  image_size (pixels), mean and std (of RGB in 0..1), step, epoch, metric and metrics (of the
  validation), config, versions.
  """
  return _read_json(find_checkpoint(path, step=step) / "meta", "metadata")


def check_task(meta: Mapping[str, Any], task: str) -> None:
  """Raises a ValueError if the model of a checkpoint, by its `meta`, is for another task."""
  if meta["task"] != task:
    raise ValueError(f"the checkpoint's model is for the task {meta['task']!r}; expected {task!r}")


def find_checkpoint(path: str | os.PathLike, *, step: Step = None) -> epath.Path:
  """The folder of one step; arguments and errors as `load_variables`."""
  path = epath.Path(path).expanduser().absolute()
  if not path.exists():
    raise FileNotFoundError(f"no such folder: {path}; expected a workdir or a checkpoint")
  if (path / "variables").is_dir():
    if step is not None:
      raise ValueError(f"{path} is the checkpoint of one step; step {step!r} cannot be chosen")
    return path
  root = path / FOLDER if (path / FOLDER).is_dir() else path
  steps = sorted(ocp.utils.checkpoint_steps(root)) if root.is_dir() else []
  if not steps:
    raise FileNotFoundError(
      f"no checkpoint in {path}; expected a workdir with {FOLDER}/<step>, that {FOLDER} folder, "
      "or the folder of one step"
    )
  return root / str(_choose(root, steps, step))


def _choose(root: epath.Path, steps: list[int], step: Step) -> int:
  if step == "latest":
    return steps[-1]
  if step in (None, "best"):
    scores = {s: score for s in steps if (score := _score(root / str(s))) is not None}
    if scores:
      # Of equals the latest, as the policy that decides which checkpoint is kept.
      return max(scores, key=lambda s: (scores[s], s))
    if step is None:
      return steps[-1]
    raise FileNotFoundError(f"no checkpoint in {root} was evaluated; steps: {steps}")
  if step not in steps:
    raise FileNotFoundError(f"no checkpoint of step {step!r} in {root}; steps: {steps}")
  return step


def _score(folder: epath.Path) -> float | None:
  if not (folder / "metrics").is_dir():
    return None
  return Checkpoints._score(_read_json(folder / "metrics", "metrics"))


def _read_json(folder: epath.Path, name: str) -> dict[str, Any]:
  return dict(ocp.JsonCheckpointHandler(filename=name).restore(folder))


def _write_json(folder: epath.Path, name: str, content: Mapping[str, Any]) -> None:
  """Writes what `_read_json` reads, whole or not at all."""
  folder.mkdir(exist_ok=True)
  partial = folder / f".{name}.partial"
  partial.write_text(json.dumps(content))
  partial.replace(folder / name)


def _saved_tree(folder: epath.Path) -> Any:
  return ocp.PyTreeCheckpointHandler().metadata(folder).tree


def _as_dict(state: TrainState) -> dict[str, Any]:
  return {field: getattr(state, field) for field in TrainState.__dataclass_fields__}


def _check_tree(folder: epath.Path, wanted: Any) -> None:
  saved, wanted = _shapes(_saved_tree(folder)), _shapes(wanted)
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
      f"the checkpoint {folder.parent} does not fit this model ({len(problems)} differences):\n"
      f"  {listed}\nContinue with the configuration that wrote it, or choose another workdir."
    )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
    for path, leaf in leaves
  }

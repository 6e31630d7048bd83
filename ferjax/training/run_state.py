"""The changing state of a run, which is saved and restored as a whole."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import grain
import jax
import numpy as np

from ferjax.checkpoint import Checkpoint, Checkpoints, Meta
from ferjax.training.state import TrainState
from ferjax.training.timer import Timer


@dataclasses.dataclass
class Position:
  """The progress of a run.

  Attributes:
    step: completed steps.
    epoch: completed epochs.
    data_start: number of the example that the iterator started from.
    evaluations_since_best: consecutive evaluations without a better score.
    skipped_records: bad records skipped in training.
    skipped_steps: steps skipped because their gradient was not finite.
    best_score: the best of all evaluations; -inf before the first.
    metrics: of the last evaluation; empty before the first.
    epoch_end_done: whether the evaluation and the save due after this step are done.
  """

  step: int = 0
  epoch: float = 0.0
  data_start: int = 0
  evaluations_since_best: int = 0
  skipped_records: int = 0
  skipped_steps: int = 0
  best_score: float = -math.inf
  metrics: dict[str, float] = dataclasses.field(default_factory=dict)
  epoch_end_done: bool = True

  @classmethod
  def from_meta(cls, meta: Meta, best_score: float) -> "Position":
    """The position that a checkpoint's `meta` describes."""
    return cls(
      step=meta["step"],
      epoch=meta["epoch"],
      data_start=meta["data_start"],
      evaluations_since_best=meta["evaluations_since_best"],
      skipped_records=meta["skipped_records"],
      skipped_steps=meta["skipped_steps"],
      best_score=best_score,
      metrics=meta["metrics"],
      # A checkpoint without metrics is from an interruption: an evaluation may be due.
      epoch_end_done=bool(meta["metrics"]),
    )

  def as_meta(self) -> dict[str, int | float]:
    """The fields of a checkpoint's `meta` that `from_meta` reads, except the metrics."""
    return {
      "step": self.step,
      "epoch": self.epoch,
      "data_start": self.data_start,
      "evaluations_since_best": self.evaluations_since_best,
      "skipped_records": self.skipped_records,
      "skipped_steps": self.skipped_steps,
    }

  def advance(self, epoch: float, skipped_records: int) -> None:
    """Records a completed step."""
    self.step += 1
    self.epoch = epoch
    self.skipped_records += skipped_records
    self.epoch_end_done = False

  def note_evaluation(self, metrics: dict[str, float], score: float) -> None:
    """Records an evaluation and its score."""
    self.evaluations_since_best = 0 if score > self.best_score else self.evaluations_since_best + 1
    self.best_score = max(self.best_score, score)
    self.metrics = metrics


@dataclasses.dataclass
class RunState:
  """A run after a number of steps.

  Attributes:
    train: the training state.
    iterator: over the remaining batches.
    timer: of the steps.
    position: the progress of the run.
  """

  train: TrainState
  iterator: grain.DatasetIterator
  timer: Timer
  position: Position

  @classmethod
  def restore(
    cls,
    checkpoints: Checkpoints,
    checkpoint: Checkpoint,
    position: Position,
    like: TrainState,
    iterator: grain.DatasetIterator,
    *,
    restore_iterator: bool,
    skip_nonfinite: int = 0,
  ) -> "RunState":
    """Restores what `save` wrote.

    Args:
      checkpoints: of the run.
      checkpoint: one of them.
      position: of that checkpoint.
      like: shapes of the state, with their shardings.
      iterator: a new one, with the start of the saved one.
      restore_iterator: whether to move it to the saved position.
      skip_nonfinite: see `ferjax.config.TrainConfig`.

    Raises:
      ValueError: the saved parameters or shapes differ; the message names their paths.
    """
    train = checkpoints.restore(
      checkpoint.step, like.as_dict(), iterator if restore_iterator else None
    )
    timer = Timer(checkpoint.meta["training_seconds"])
    # At most the limit, which may have been lowered: above it, no step would change anything.
    skipped = np.int32(min(position.skipped_steps, skip_nonfinite))
    skipped = jax.device_put(skipped, like.skipped.sharding)
    return cls(TrainState(**train, skipped=skipped), iterator, timer, position)

  def save(
    self,
    checkpoints: Checkpoints,
    description: Mapping[str, Any],
    metrics: Mapping[str, float] | None,
  ) -> None:
    """Writes a checkpoint.

    Args:
      checkpoints: of the run.
      description: of the run, see `ferjax.training.resume.describe`.
      metrics: from evaluating this state; None if it was not evaluated.
    """
    checkpoints.save(
      self.position.step,
      variables=self.train.inference_variables(),
      train=self.train.as_dict(),
      iterator=self.iterator,
      meta={
        **description,
        **self.position.as_meta(),
        "training_seconds": self.timer.seconds,
      },
      metrics=metrics,
    )

"""What changes while a run goes on, in one bundle that a checkpoint keeps whole."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import grain

from ferjax.checkpoint import Checkpoint, Checkpoints, Meta
from ferjax.training.state import TrainState
from ferjax.training.timer import Timer


@dataclasses.dataclass
class Position:
  """How far a run is.

  Attributes:
    step: steps done.
    epoch: epochs done.
    data_start: number of the first example that the iterator has made.
    evaluations_since_best: evaluations that were no better than one before them, in a row.
    skipped_records: bad records met while training.
    best_score: the best of all evaluations; -inf before the first.
    metrics: of the last evaluation; none before the first.
    settled: whether what is due after this step, evaluating and saving, was done before.
  """

  step: int = 0
  epoch: float = 0.0
  data_start: int = 0
  evaluations_since_best: int = 0
  skipped_records: int = 0
  best_score: float = -math.inf
  metrics: dict[str, float] = dataclasses.field(default_factory=dict)
  settled: bool = True

  @classmethod
  def of_checkpoint(cls, meta: Meta, best_score: float) -> "Position":
    """That of a run whose last checkpoint says so."""
    return cls(
      step=meta["step"],
      epoch=meta["epoch"],
      data_start=meta["data_start"],
      evaluations_since_best=meta["evaluations_since_best"],
      skipped_records=meta["skipped_records"],
      best_score=best_score,
      metrics=meta["metrics"],
      # Without metrics it was saved on an interruption, and its evaluation may be due.
      settled=bool(meta["metrics"]),
    )

  def as_meta(self) -> dict[str, int | float]:
    """The fields of a checkpoint's `meta` that `of_checkpoint` reads, but the metrics."""
    return {
      "step": self.step,
      "epoch": self.epoch,
      "data_start": self.data_start,
      "evaluations_since_best": self.evaluations_since_best,
      "skipped_records": self.skipped_records,
    }

  def advance(self, epoch: float, skipped_records: int) -> None:
    """Takes note of a step."""
    self.step += 1
    self.epoch = epoch
    self.skipped_records += skipped_records
    self.settled = False

  def note_evaluation(self, metrics: dict[str, float], score: float) -> None:
    """Takes note of an evaluation and of its score."""
    self.evaluations_since_best = 0 if score > self.best_score else self.evaluations_since_best + 1
    self.best_score = max(self.best_score, score)
    self.metrics = metrics


@dataclasses.dataclass
class RunState:
  """A run after a number of steps.

  Attributes:
    train: what a step reads and writes.
    iterator: of the batches to come.
    timer: of the steps.
    position: how far the run is.
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
    move_iterator: bool,
  ) -> "RunState":
    """What `save` has saved.

    Args:
      checkpoints: of the run.
      checkpoint: one of them.
      position: that of the checkpoint.
      like: shapes of the state, with their shardings.
      iterator: a fresh one; it is made again from where the checkpoint's was made.
      move_iterator: whether it is then moved to where the checkpoint's was.

    Raises:
      ValueError: what was saved has other parameters or shapes; the paths are named.
    """
    train = checkpoints.restore(
      checkpoint.step, like.as_dict(), iterator if move_iterator else None
    )
    timer = Timer(checkpoint.meta["training_seconds"])
    return cls(TrainState(**train), iterator, timer, position)

  def save(
    self,
    checkpoints: Checkpoints,
    description: Mapping[str, Any],
    metrics: Mapping[str, float] | None,
  ) -> None:
    """Writes a checkpoint.

    Args:
      checkpoints: where to.
      description: of the run, see `ferjax.training.resume.describe`.
      metrics: of evaluating this very state; None if it was not.
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

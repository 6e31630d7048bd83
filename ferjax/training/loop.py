"""Training from a config to a folder of checkpoints and metrics."""

import datetime
import os
import pathlib
from collections.abc import Callable

import flax.linen as nn
import jax
import optax

from ferjax.checkpoint import Checkpoint, Checkpoints
from ferjax.config import Config
from ferjax.data.pipeline import close
from ferjax.data.sources import Source
from ferjax.models.remat import rematerialises
from ferjax.tasks.base import Task
from ferjax.training.config_checks import from_dict
from ferjax.training.evaluation import evaluate, log_bad_records
from ferjax.training.incident_log import IncidentLog
from ferjax.training.incidents import run_key
from ferjax.training.inputs import TrainingData, preprocess_of
from ferjax.training.interruption import Interruption, catch_interruption
from ferjax.training.metric_writer import format_table
from ferjax.training.optimizers import Schedule, decay_rules, make_optimizer, make_schedule
from ferjax.training.phases import Phase, make_phases, phase_of
from ferjax.training.resume import abstract_state, check_same_run, describe, initial_state
from ferjax.training.run_log import (
  RunLog,
  log_skipped,
  print_once,
  warnings_about_parts,
)
from ferjax.training.run_state import Position, RunState
from ferjax.training.sharding import check_batch_size, gathered, make_mesh, replicated
from ferjax.training.state import TrainState
from ferjax.training.step import TrainStep, make_eval_step, make_train_step
from ferjax.training.step_log import NonFiniteError
from ferjax.training.summary import summarise
from ferjax.training.timer import Timer
from ferjax.training.watched import Watched


class Interrupted(RuntimeError):
  """Training was interrupted and stopped after saving."""


class Trainer:
  """One run. Every step is a function of the config and the step number.

  All changing state is in a `RunState`; the attributes are constant.
  """

  def __init__(
    self,
    config: Config,
    workdir: str | os.PathLike,
    model: nn.Module,
    task: Task,
    train_source: Source,
    val_source: Source,
    *,
    mesh: jax.sharding.Mesh | None = None,
  ):
    self.config, self.model, self.task = config, model, task
    self.train_source, self.val_source = train_source, val_source
    self.mesh = make_mesh() if mesh is None else mesh
    self.phases = make_phases(config.train, len(train_source))
    for batch_size in (*(phase.batch_size for phase in self.phases), config.eval.batch_size):
      check_batch_size(batch_size, self.mesh)
    self.workdir = pathlib.Path(workdir).expanduser().absolute()
    self.total_steps = self.phases[-1].end_step
    self.metric = config.train.select_by or task.primary_metric
    self.held_out = "test" if config.train.select_on == "test" else "validation"
    self.description = describe(config, num_examples=len(train_source))
    self.checkpoints = Checkpoints(
      self.workdir, keep=config.train.keep_checkpoints, metric=self.metric
    )
    self.key = jax.jit(lambda: run_key(config.train.seed), out_shardings=replicated(self.mesh))()
    self.preprocess = preprocess_of(config.data)
    self.data = TrainingData(train_source, config, self.mesh)
    self.incidents = IncidentLog(
      self.workdir, config, model, task, train_source, self.data, self.phases, self.mesh
    )
    self.watched = Watched(
      self.workdir,
      val_source,
      metric=self.metric,
      split=config.train.select_on,
      selection=self.description["selection"],
      curves=config.train.curves,
    )
    self.eval_step = make_eval_step(
      model, task, config.eval, config.data.image_size, self.mesh, preprocess=self.preprocess
    )

  def run(self) -> dict[str, float]:
    """Trains to the end or to an interruption; the same call then resumes.

    A run that has reached or passed the configured end is left unchanged.

    Returns:
      The metrics of the last evaluation.

    Raises:
      ValueError: the workdir contains a different run; the message lists the differences.
      NonFiniteError: training diverged.
      Interrupted: stopped by a signal, after saving.
    """
    latest, position = self._last_checkpoint()
    if self._is_over(position):
      limit = "patience" if self._patience_exhausted(position) else "epochs"
      print_once(
        f"{self.workdir} is already at step {position.step} of {self.total_steps}; nothing was "
        f"done. Raise train.{limit} to continue"
      )
      self._report_end(position, print_once)
      return position.metrics
    self.checkpoints.check_readable()
    run = self._begin(position) if latest is None else self._restore(latest, position)
    log = RunLog(
      self.workdir,
      self.config,
      position=position,
      phases=self.phases,
      selection=self.description["selection"],
      shown_metrics=(self.metric, *self.task.shown_metrics, "loss"),
    )
    try:
      self._log_start(run, log)
      with catch_interruption() as interruption, self.checkpoints.written():
        interrupted = self._train(run, interruption, log)
      if interrupted:
        raise Interrupted(
          f"interrupted after step {position.step} of {self.total_steps}; the same command resumes "
          "the run"
        )
      seconds = datetime.timedelta(seconds=round(run.timer.seconds))
      log.line(f"training took {seconds}, excluding compilation, evaluation and saving")
      self._report_end(position, log.line)
    finally:
      close(run.iterator, self.config.data)
      log.close()
    return position.metrics

  def close(self) -> None:
    """Closes the checkpoints; a new trainer can continue the run."""
    self.checkpoints.close()

  def _train(self, run: RunState, interruption: Interruption, log: RunLog) -> bool:
    """Evaluate, save, next batch, step, log: the iterator advances only after the save.

    Steps, copies to the devices and the writing of checkpoints overlap: this only waits for a
    batch that is not ready, for the values that it logs, and for the previous checkpoint.
    Returns whether it was interrupted. An interruption only saves; an evaluation that is due is
    left to the resumed run.
    """
    position = run.position
    phase = self._phase_at(position.step)
    shardings = jax.tree.map(lambda x: x.sharding, run.train)
    train_step = self._compile(phase, shardings)
    while True:
      stopping = interruption.should_stop(sync_hosts=self._is_logged(phase, position.step))
      due = not stopping and not position.epoch_end_done and self._ends_epoch(phase, position.step)
      metrics = None
      if due and self._is_evaluated(position):
        metrics = self._evaluate(run, log)
      if stopping or (due and self._is_saved(position, metrics)):
        self._save(run, metrics, log)
      if stopping or position.step == self.total_steps or self._patience_exhausted(position):
        return stopping
      if position.step == phase.end_step:
        phase = self._phase_at(position.step)
        train_step = self._compile(phase, shardings)
        self._replace_data(run, phase)

      batch = next(run.iterator)
      skipped = log_bad_records(self.train_source, batch.host)
      with jax.transfer_guard("disallow"):
        run.train, step_metrics = train_step(run.train, batch.arrays, self.key)
      position.advance(phase.epoch(position.step + 1), skipped)

      run.timer.add_step(phase.batch_size)
      log.add_step(position.step, step_metrics, batch.host["index"])
      if self._is_logged(phase, position.step):
        self._write_steps(run, log)

  def _write_steps(self, run: RunState, log: RunLog) -> None:
    """Logs the steps since the last log, and what went wrong in them."""
    try:
      spikes = log.write_steps(run.position, run.timer)
    except NonFiniteError as error:
      raise self.incidents.nonfinite(error, run.train) from None
    for line in self.incidents.spikes(spikes):
      log.line(line)

  def _phase_at(self, step: int) -> Phase:
    return phase_of(self.phases, step)

  def _is_logged(self, phase: Phase, step: int) -> bool:
    return step % self.config.train.log_every == 0 or self._ends_epoch(phase, step)

  def _ends_epoch(self, phase: Phase, step: int) -> bool:
    return (step - phase.first_step) % phase.steps_per_epoch == 0

  def _is_evaluated(self, position: Position) -> bool:
    """Whether the model is evaluated at the end of this epoch."""
    is_last = position.step == self.total_steps
    return is_last or position.epoch % self.config.train.eval_every == 0

  def _is_saved(self, position: Position, metrics: dict[str, float] | None) -> bool:
    """Whether to save a checkpoint at the end of this epoch; the best so far is always saved."""
    is_best = metrics is not None and position.evaluations_since_best == 0
    is_last = position.step == self.total_steps or self._patience_exhausted(position)
    return is_best or is_last or position.epoch % self.config.train.checkpoint_every == 0

  def _patience_exhausted(self, position: Position) -> bool:
    """Whether `train.patience` evaluations passed without a better score."""
    return 0 < self.config.train.patience <= position.evaluations_since_best

  def _is_over(self, position: Position) -> bool:
    """Whether neither steps nor the final evaluation are left to do."""
    at_end = position.step == self.total_steps and position.epoch_end_done
    return at_end or position.step > self.total_steps or self._patience_exhausted(position)

  def _evaluate(self, run: RunState, log: RunLog) -> dict[str, float]:
    metrics, accumulator = evaluate(
      self.eval_step,
      gathered(run.train.inference_variables(), self.mesh),
      self.val_source,
      self.config,
      self.task,
      self.mesh,
    )
    run.position.note_evaluation(metrics, metrics[self.metric])
    log.write_evaluation(run.position)
    # Of equal scores, the last checkpoint is the best.
    is_best = metrics[self.metric] == run.position.best_score
    is_best = is_best and self._is_saved(run.position, metrics)
    self.watched.note(run.position, accumulator, is_best=is_best)
    run.timer.pause()
    return metrics

  def _save(self, run: RunState, metrics: dict[str, float] | None, log: RunLog) -> None:
    """Saves the run, or adds the metrics to the checkpoint of an interruption."""
    position = run.position
    self._write_steps(run, log)  # raises before a non-finite state is saved
    if position.step == self.checkpoints.latest_step:
      if metrics is not None:
        self.checkpoints.add_metrics(
          position.step, metrics, evaluations_since_best=position.evaluations_since_best
        )
    elif position.step > 0:
      run.save(self.checkpoints, self.description, metrics)
    run.timer.pause()

  def _compile(self, phase: Phase, shardings: TrainState) -> TrainStep:
    train_step = make_train_step(
      self.model.clone(frozen=phase.frozen),
      self.task,
      *self._optimizer(phase),
      self.config.train,
      sam_rho=self.config.optimizer.sam_rho,
      preprocess=self.preprocess,
    )
    return self.data.compile(train_step, shardings, remat=rematerialises(self.model))

  def _optimizer(self, phase: Phase) -> tuple[optax.GradientTransformation, Schedule]:
    schedule = make_schedule(
      self.config.optimizer,
      batch_size=phase.batch_size,
      epochs=self.config.train.epochs,
      steps_per_epoch=phase.steps_per_epoch,
      first_step=phase.first_step,
      first_epoch=phase.first_epoch,
    )
    rules = decay_rules(self.config.model.name)
    optimizer = make_optimizer(self.config.optimizer, schedule, frozen=phase.frozen, rules=rules)
    return optimizer, schedule

  def _replace_data(self, run: RunState, phase: Phase) -> None:
    """Switches to the batches of a new phase."""
    close(run.iterator, self.config.data)
    run.position.data_start = phase.example(run.position.step)
    run.iterator = self.data.batches(phase.batch_size, run.position.data_start)

  def _last_checkpoint(self) -> tuple[Checkpoint | None, Position]:
    """The latest checkpoint and its position; a ValueError if it is from another run."""
    step = self.checkpoints.latest_step
    if step is None:
      return None, Position()
    latest = self.checkpoints.open(step)
    check_same_run(latest, self.config, len(self.train_source))
    return latest, Position.from_meta(latest.meta, self.checkpoints.best_score)

  def _begin(self, position: Position) -> RunState:
    optimizer, _ = self._optimizer(self.phases[0])
    train = initial_state(self.config, self.model, optimizer, self.mesh)
    iterator = self.data.batches(self.phases[0].batch_size, position.data_start)
    return RunState(train, iterator, Timer(), position)

  def _restore(self, latest: Checkpoint, position: Position) -> RunState:
    phase, before = self._phase_at(position.step), from_dict(latest.meta["config"])
    # A saved iterator is valid only for the same numbers of hosts and workers. Otherwise the start
    # is computed; the examples are the same.
    iterator_fits = (
      position.step > phase.first_step
      and latest.meta["num_hosts"] == self.description["num_hosts"]
      and before.data.num_workers == self.config.data.num_workers
    )
    if not iterator_fits:
      position.data_start = phase.example(position.step)
    return RunState.restore(
      self.checkpoints,
      latest,
      position,
      abstract_state(self.config, self.model, self._optimizer(self.phases[0])[0], self.mesh),
      self.data.batches(phase.batch_size, position.data_start),
      restore_iterator=iterator_fits,
      skip_nonfinite=self.config.train.skip_nonfinite,
    )

  def _log_start(self, run: RunState, log: RunLog) -> None:
    sources = {"training": self.train_source, self.held_out: self.val_source}
    for split, source in sources.items():
      for line in log_skipped(source, split):
        log.line(line)
    summary = summarise(self.config, self.phases, run.train.params, sources, self.mesh)
    log.write_summary(summary, first_step=run.position.step)
    for warning in warnings_about_parts(self.config, self.phases):
      log.line(warning)

  def _report_end(self, position: Position, show: Callable[[str], None]) -> None:
    if self._patience_exhausted(position):
      show(
        f"no better {self.metric} in {position.evaluations_since_best} evaluations "
        f"(train.patience); ended after step {position.step} of {self.total_steps}"
      )
    if position.metrics:
      table = format_table(position.metrics, selection=self.description["selection"])
      show(f"{self.held_out.capitalize()} metrics:\n{table}")

"""Training from a config to a folder of checkpoints and figures."""

import json
import os
import pathlib
import threading

import flax.linen as nn
import grain
import jax
import numpy as np
from absl import logging

from ferjax.checkpoint import Checkpoints, load_meta
from ferjax.config import Config
from ferjax.data.datasets.records import Source
from ferjax.data.pipeline import train_dataset
from ferjax.tasks.base import Task
from ferjax.training.config_checks import to_dict
from ferjax.training.evaluation import evaluate, name_skipped
from ferjax.training.interruption import catch_interruption, on_any_host
from ferjax.training.metric_writer import MetricWriter, Progress, format_table
from ferjax.training.optimizers import (
  decay_rules,
  make_optimizer,
  make_schedule,
  parse_group_rates,
)
from ferjax.training.phases import Phase, make_phases
from ferjax.training.resume import describe, initial_state, versions
from ferjax.training.sharding import check_batch_size, make_mesh, replicated, to_global
from ferjax.training.state import TrainState
from ferjax.training.step import compile_step, make_eval_step, make_train_step
from ferjax.training.step_log import StepLog


class Interrupted(RuntimeError):
  """Training was asked to stop before its end, and did after saving."""


class Trainer:
  """One run. Everything it does is a function of the config and the number of the step."""

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
    self.checkpoints = Checkpoints(
      self.workdir, keep=config.train.keep_checkpoints, metric=self.metric
    )
    self.first_step = self.checkpoints.latest_step or 0
    self.done_step: int | None = self.first_step  # evaluated and saved, or not to be
    self.stopped = False  # by a signal
    self.evaluations_since_best = 0  # evaluations since the best one
    self.is_main = jax.process_index() == 0
    self.writer: MetricWriter | None = None
    self.log = StepLog()
    self.skipped = 0
    self.figures: dict[str, float] = {}
    self.key = jax.jit(
      lambda: jax.random.fold_in(jax.random.key(config.train.seed), 1),
      out_shardings=replicated(self.mesh),
    )()
    self.eval_step = make_eval_step(model, task, config.eval, config.data.image_size, self.mesh)

  def run(self) -> dict[str, float]:
    """Trains to the end, or to an interruption, after which the same call goes on."""
    num_examples = len(self.train_source)
    self.meta = describe(self.config, num_examples=num_examples)
    state = initial_state(
      self.config,
      self.model,
      self._optimizer(self.phases[0])[0],
      self.checkpoints,
      self.mesh,
      num_examples=num_examples,
    )
    self.best = self.checkpoints.best_score
    if self.first_step:
      meta = load_meta(self.checkpoints.folder, step="latest")
      self.figures, self.evaluations_since_best = meta["metrics"], meta["worse"]
      if not self.figures:
        self.done_step = None  # saved on an interruption: its evaluation may be due
    self._open_files()
    self.progress = Progress(self.total_steps, done=self.first_step, unit="step", show=self.is_main)
    self._introduce()
    try:
      with catch_interruption() as interrupted:
        for phase in self.phases:
          if self._has_work(phase, int(state.step)):
            state = self._run_phase(phase, state, interrupted)
    finally:
      self.progress.close()
    if self.stopped:
      raise Interrupted(
        f"interrupted after step {int(state.step)} of {self.total_steps}; the same command goes "
        "on from there"
      )
    if self._patience_exhausted():
      self.progress.line(
        f"no better {self.metric} in {self.evaluations_since_best} evaluations (train.patience); "
        f"ended after step {int(state.step)} of {self.total_steps}"
      )
    if self.figures:
      table = format_table(self.figures, selection=self.meta["selection"])
      self.progress.line(f"{self._held_out.capitalize()} figures:\n{table}")
    return self.figures

  def close(self) -> None:
    """Closes what was opened; training can go on by a new trainer."""
    if self.writer is not None:
      self.writer.close()
    self.checkpoints.close()

  def _optimizer(self, phase: Phase):
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

  def _has_work(self, phase: Phase, step: int) -> bool:
    """Whether there are steps to do, or the evaluation after the last of all."""
    unevaluated = step == self.total_steps == phase.end_step and step != self.done_step
    going_on = not self.stopped and not self._patience_exhausted()
    return going_on and (phase.first_step <= step < phase.end_step or unevaluated)

  def _patience_exhausted(self) -> bool:
    """Whether the last evaluations were no better than one before them."""
    return 0 < self.config.train.patience <= self.evaluations_since_best

  def _run_phase(self, phase: Phase, state: TrainState, interrupted: threading.Event) -> TrainState:
    """Evaluate, save, next batch, step, log: the iterator moves on only after a save.

    An interruption is answered by a save alone; what was due is evaluated on continuing.
    """
    model = self.model.clone(frozen=phase.frozen)
    train_step = compile_step(
      make_train_step(
        model,
        self.task,
        *self._optimizer(phase),
        self.config.train,
        sam_rho=self.config.optimizer.sam_rho,
      ),
      self.mesh,
    )
    step = max(phase.first_step, self.first_step)
    iterator = self._iterator(phase, step)
    try:
      while not self._stops(phase, step, interrupted) and step < phase.end_step:
        self._evaluate_and_save(phase, step, state, iterator)
        if self._patience_exhausted():
          break
        batch = next(iterator)
        self._note_skipped(batch)
        arrays = to_global(batch, self.mesh)
        with jax.transfer_guard("disallow"):
          state, metrics = train_step(state, arrays, self.key)
        step += 1
        self.log.add(step, metrics, phase.batch_size)
        self.progress.advance()
        if self._logs(phase, step):
          self._write_log(phase, step)
      if not self.stopped and step == self.total_steps:
        self._evaluate_and_save(phase, step, state, iterator)
      if self.stopped:
        self._write_log(phase, step)
        if step not in (0, self.checkpoints.latest_step):
          self._save(phase.epoch(step), step, state, iterator, None)
    finally:
      iterator.close()
    return state

  def _stops(self, phase: Phase, step: int, interrupted: threading.Event) -> bool:
    """Whether to stop after `step`; several hosts agree on it where they log."""
    if not self.stopped and (jax.process_count() == 1 or self._logs(phase, step)):
      self.stopped = on_any_host(interrupted.is_set())
    return self.stopped

  def _iterator(self, phase: Phase, step: int) -> grain.DatasetIterator:
    """The batches from `step` on."""
    position_saved, self.data_start = False, phase.example(step)
    if step == self.first_step > phase.first_step:
      # A saved position is that of one host among as many, with as many workers. For others the
      # start is computed: it gives the same examples.
      meta = load_meta(self.checkpoints.folder, step=step)
      position_saved = (
        meta["num_hosts"] == self.meta["num_hosts"]
        and meta["config"]["data"]["num_workers"] == self.config.data.num_workers
      )
      if position_saved:
        self.data_start = meta["data_start"]
    iterator = iter(
      train_dataset(
        self.train_source,
        self.config.data,
        batch_size=phase.batch_size,
        seed=self.config.train.seed,
        epochs=self.config.train.epochs,
        start=self.data_start,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
      )
    )
    if position_saved:
      self.checkpoints.restore_iterator(step, iterator)
    return iterator

  def _logs(self, phase: Phase, step: int) -> bool:
    return step % self.config.train.log_every == 0 or self._ends_epoch(phase, step)

  def _ends_epoch(self, phase: Phase, step: int) -> bool:
    return (step - phase.first_step) % phase.steps_per_epoch == 0

  def _evaluate_and_save(self, phase: Phase, step: int, state: TrainState, iterator) -> None:
    """What is due at the end of an epoch; the best model so far is always saved."""
    if step == self.done_step or not self._ends_epoch(phase, step):
      return
    self.done_step = step
    config = self.config.train
    epoch, last = phase.epoch(step), step == self.total_steps
    figures = None
    if last or epoch % config.eval_every == 0:
      figures = self._evaluate(epoch, step, state)
    score = -np.inf if figures is None else figures[self.metric]
    if figures is not None:
      self.evaluations_since_best = 0 if score > self.best else self.evaluations_since_best + 1
    last = last or self._patience_exhausted()
    if step == self.checkpoints.latest_step:
      if figures is not None:
        self.checkpoints.add_figures(step, figures)
    elif last or epoch % config.checkpoint_every == 0 or score > self.best:
      self._save(epoch, step, state, iterator, figures)
    self.best = max(self.best, score)
    self.log.pause()

  def _evaluate(self, epoch: float, step: int, state: TrainState) -> dict[str, float]:
    figures, _ = evaluate(
      self.eval_step,
      state.inference_variables(),
      self.val_source,
      self.config,
      self.task,
      self.mesh,
    )
    self.figures = figures
    if self.writer is not None:
      named = {f"eval/{name}": value for name, value in figures.items()}
      self.writer.write(step, epoch, named, selection=self.meta["selection"])
    shown = dict.fromkeys((self.metric, *self.task.shown_metrics, "loss"))
    text = ", ".join(f"{name} {figures[name]:.4f}" for name in shown if name in figures)
    self.progress.line(f"epoch {epoch:.0f}, step {step}: {text}")
    return figures

  def _save(self, epoch: float, step: int, state: TrainState, iterator, figures) -> None:
    position = {
      "step": step,
      "epoch": epoch,
      "data_start": self.data_start,
      "worse": self.evaluations_since_best,
    }
    meta = {**self.meta, **position}
    self.checkpoints.save(state, iterator, meta, figures)

  def _write_log(self, phase: Phase, step: int) -> None:
    means = self.log.drain()
    if not means:
      return
    means["skipped_records"] = float(self.skipped)
    if self.writer is not None:
      named = {f"train/{name}": x for name, x in means.items()}
      self.writer.write(step, phase.epoch(step), named)
    rate = means.get("images_per_second")
    self.progress.note(
      f"epoch {phase.epoch(step):.2f}, loss {means['loss']:.4f}"
      + (f", {rate:.1f} images/s" if rate is not None else "")
    )

  def _note_skipped(self, batch: dict[str, np.ndarray]) -> None:
    self.skipped += name_skipped(self.train_source, batch)

  def _open_files(self) -> None:
    if not self.is_main:
      return
    self.workdir.mkdir(parents=True, exist_ok=True)
    for name, content in (
      ("config.json", to_dict(self.config)),
      ("environment.json", versions()),
    ):
      (self.workdir / name).write_text(json.dumps(content, indent=2) + "\n")
    self.writer = MetricWriter(self.workdir, step=self.first_step)

  @property
  def _held_out(self) -> str:
    """What the split is called that checkpoints are selected on."""
    return "test" if self.config.train.select_on == "test" else "validation"

  def _introduce(self) -> None:
    for source, split in ((self.train_source, "training"), (self.val_source, self._held_out)):
      if source.skipped:
        self.progress.line(f"{len(source.skipped)} records left out of the {split} split:")
        for reason in source.skipped:
          logging.warning("left out: %s", reason)
    phases = "; ".join(
      f"epochs {p.first_epoch}..{p.end_epoch} in batches of {p.batch_size}, frozen: {p.frozen}"
      for p in self.phases
    )
    self.progress.line(
      f"{len(self.train_source)} examples for training, {len(self.val_source)} for "
      f"{self._held_out}; {phases}; {self.total_steps} steps on {self.mesh.size} "
      f"{jax.devices()[0].device_kind} device(s); from step {self.first_step}"
    )
    self._warn_of_parts()

  def _warn_of_parts(self) -> None:
    still = [x for x, f in parse_group_rates(self.config.optimizer.group_rates).items() if f == 0]
    if still:
      self.progress.line(
        f"warning: optimizer.group_rates is 0 for {', '.join(still)}: BatchNorm's statistics there "
        "move all the same; train.freeze holds them too, for the parts that it knows"
      )
    first = self.phases[0]
    if first.frozen != "none" and not self.config.train.pretrained:
      self.progress.line(
        f"warning: the frozen parts ({first.frozen}) are random; pass "
        "--config.train.pretrained=FILE or --config.train.freeze=none"
      )

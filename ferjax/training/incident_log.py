"""Writes what went wrong in the steps of a run; see `ferjax.training.incidents`."""

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import multihost_utils

from ferjax.config import Config
from ferjax.data.sources import Source
from ferjax.tasks.base import Task
from ferjax.training.config_checks import to_dict
from ferjax.training.incidents import Kind, diagnose, records_of, write_incident
from ferjax.training.inputs import TrainingData
from ferjax.training.phases import Phase, phase_of
from ferjax.training.resume import versions
from ferjax.training.state import TrainState
from ferjax.training.step_log import NonFiniteError, Spike

_MOST_SPIKES = 20  # files that a process writes: a run that diverges slowly has a spike every step


class IncidentLog:
  """The incidents of a run. All hosts call the methods together; the first one writes.

  Args:
    workdir: of the run.
    config: of the run.
    model: of the run.
    task: of the run.
    source: the training records.
    data: their batches.
    phases: of the run.
    mesh: the devices.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    config: Config,
    model: nn.Module,
    task: Task,
    source: Source,
    data: TrainingData,
    phases: Sequence[Phase],
    mesh: jax.sharding.Mesh,
  ):
    self._workdir, self._config, self._model, self._task = workdir, config, model, task
    self._source, self._data, self._phases, self._mesh = source, data, phases, mesh
    self._spikes = 0

  def nonfinite(self, error: NonFiniteError, state: TrainState) -> NonFiniteError:
    """Computes the step that stopped the run again, and writes it with its parameters.

    Returns:
      The error with the largest gradients, the records, and the command that repeats the step.
    """
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    diagnosis = diagnose(
      self._config,
      self._model,
      self._task,
      self._source,
      self._data,
      phase_of(self._phases, error.step - 1),
      error.step,
      variables,
      self._mesh,
    )
    found = dataclasses.asdict(diagnosis) | {"loss": error.loss, "grad_norm": error.grad_norm}
    try:
      file = self._write("nonfinite", error.step, found, variables)
      hint = f"repeat the step with: python train.py --replay {file}"
    except OSError as problem:
      hint = f"the step could not be written: {problem}"
    message = f"{error}; {diagnosis.summary()}; {hint}"
    return NonFiniteError(message, step=error.step, loss=error.loss, grad_norm=error.grad_norm)

  def spikes(self, spikes: Iterable[Spike]) -> list[str]:
    """Writes the records of each spike; returns a line about each."""
    lines = []
    for spike in spikes:
      indices = np.ravel(multihost_utils.process_allgather(np.asarray(spike.records)))
      self._spikes += 1
      if self._spikes > _MOST_SPIKES:
        continue
      found = dataclasses.asdict(spike) | {"records": records_of(self._source, indices)}
      file = self._write("spike", spike.step, found)
      last = "; later ones are not reported" if self._spikes == _MOST_SPIKES else ""
      lines.append(
        f"warning: loss spike at step {spike.step}: {spike.loss:.4g}, above {spike.bound:.4g}; "
        f"{file} lists the records of the batch{last}"
      )
    return lines

  def _write(self, kind: Kind, step: int, found: dict[str, Any], variables=None) -> pathlib.Path:
    if jax.process_index() > 0:
      return pathlib.Path()
    content = {**found, "versions": versions()}
    return write_incident(self._workdir, kind, step, to_dict(self._config), content, variables)

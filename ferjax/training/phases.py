"""The one or two phases of a run: their steps, epochs and examples."""

import dataclasses
from collections.abc import Sequence

from ferjax.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Phase:
  """A phase of training with one batch size and one set of frozen parts.

  Epochs, steps and examples are counted over the whole run. The steps of an epoch are the
  full batches of the training split.
  """

  frozen: str  # "none", or parts of the network joined by "+"
  batch_size: int
  first_epoch: int
  end_epoch: int
  first_step: int
  steps_per_epoch: int
  first_example: int

  @property
  def end_step(self) -> int:
    return self.first_step + (self.end_epoch - self.first_epoch) * self.steps_per_epoch

  def epoch(self, step: int) -> float:
    """Completed epochs after `step` steps."""
    return self.first_epoch + (step - self.first_step) / self.steps_per_epoch

  def example(self, step: int) -> int:
    """Number of the first example of the step that follows `step` steps."""
    return self.first_example + (step - self.first_step) * self.batch_size


def make_phases(config: TrainConfig, num_examples: int) -> tuple[Phase, ...]:
  """The frozen phase, if any, and the phase that trains all parts.

  Raises:
    ValueError: the training split is smaller than one batch.
  """
  freeze_epochs = min(config.freeze_epochs, config.epochs) if config.freeze != "none" else 0
  ranges = (
    (config.freeze, config.freeze_batch_size, 0, freeze_epochs),
    ("none", config.batch_size, freeze_epochs, config.epochs),
  )
  phases: list[Phase] = []
  for frozen, batch_size, first_epoch, end_epoch in ranges:
    if first_epoch == end_epoch:
      continue
    if num_examples < batch_size:
      raise ValueError(
        f"the training split has {num_examples} examples, fewer than one batch of {batch_size}; "
        "lower config.train.batch_size (or freeze_batch_size), or add data"
      )
    phases.append(
      Phase(
        frozen=frozen,
        batch_size=batch_size,
        first_epoch=first_epoch,
        end_epoch=end_epoch,
        first_step=phases[-1].end_step if phases else 0,
        steps_per_epoch=num_examples // batch_size,
        first_example=first_epoch * num_examples,
      )
    )
  return tuple(phases)


def phase_of(phases: Sequence[Phase], step: int) -> Phase:
  """The phase of the next step after `step` steps; at the end, the last phase."""
  return next((phase for phase in phases if step < phase.end_step), phases[-1])

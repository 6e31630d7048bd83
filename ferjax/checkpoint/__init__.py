"""Checkpoints: the state for resuming training, and the variables for inference.

A workdir has `checkpoints/<step>/` with four items: `variables` (params and batch_stats for
inference: the moving averages if there are any), `train` (the training state), `data` (the
iterator) and `meta` (JSON, see `ferjax.checkpoint.meta`); an imported network has `variables` and
`meta` only. Only this package uses orbax.
"""

from ferjax.checkpoint.meta import Meta
from ferjax.checkpoint.reading import (
  FOLDER,
  Checkpoint,
  CheckpointRemovedError,
  DamagedCheckpointError,
  Step,
  load_meta,
  load_variables,
  open_checkpoint,
  steps_of,
)
from ferjax.checkpoint.writing import Checkpoints

__all__ = [
  "FOLDER",
  "Checkpoint",
  "CheckpointRemovedError",
  "Checkpoints",
  "DamagedCheckpointError",
  "Meta",
  "Step",
  "load_meta",
  "load_variables",
  "open_checkpoint",
  "steps_of",
]

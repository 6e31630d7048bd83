"""The program of `train.py` and `ferjax train`: its flags, and what it does."""

from absl import flags
from ml_collections import config_flags

from ferjax.allocator import keep_freed_memory
from ferjax.compilation_cache import enable_compilation_cache
from ferjax.training import command_line
from ferjax.training.replay import replay
from ferjax.training.run import train

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Config file, such as configs/fer_yolo_mamba.py:demo."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints and metrics.")
_REPLAY = flags.DEFINE_string(
  "replay", None, "Computes a step again that went wrong in a run: a file of WORKDIR/incidents."
)


@flags.multi_flags_validator(
  ["config", "workdir", "replay"],
  message="--config and --workdir are required, or --replay without them",
)
def _is_complete(values: dict[str, object]) -> bool:
  train_values = (values["config"], values["workdir"])
  if values["replay"] is not None:
    return train_values == (None, None)
  return None not in train_values


def main() -> None:
  """Trains, resumes or replays, as the flags say."""
  keep_freed_memory()
  command_line.join_hosts()
  enable_compilation_cache()
  if _REPLAY.value is not None:
    replay(_REPLAY.value)
  else:
    train(_CONFIG.value, _WORKDIR.value or "")

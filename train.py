"""Trains a model, or resumes the run in the workdir.

  python train.py --config configs/fer_yolo_mamba.py:demo --workdir runs/demo
  python train.py --config configs/fer_yolo_mamba.py --workdir runs/raf_db \\
      --config.data.dir=/data/raf_db --config.train.batch_size=32
"""

from absl import flags
from ml_collections import config_flags

from ferjax.allocator import keep_freed_memory
from ferjax.compilation_cache import enable_compilation_cache
from ferjax.training import command_line
from ferjax.training.run import train

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Config file, such as configs/fer_yolo_mamba.py:demo."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints and metrics.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> None:
  keep_freed_memory()
  command_line.join_hosts()
  enable_compilation_cache()
  train(_CONFIG.value, _WORKDIR.value)


if __name__ == "__main__":
  command_line.run(main)

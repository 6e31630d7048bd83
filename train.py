"""Trains a model, or resumes the run in the workdir.

  python train.py --config configs/fer_yolo_mamba.py:demo --workdir runs/demo
  python train.py --config configs/fer_yolo_mamba.py --workdir runs/raf_db \\
      --config.data.dir=/data/raf_db --config.train.batch_size=32
  python train.py --replay runs/demo/incidents/nonfinite_120.json
"""

from absl import flags

from ferjax.commands import train_program
from ferjax.training import command_line

flags.adopt_module_key_flags(train_program)

if __name__ == "__main__":
  command_line.run(train_program.main)

"""Evaluates a checkpoint of any network: prints a table, writes eval.json and plots.

  python eval.py --workdir runs/demo
  python eval.py --checkpoint runs/raf_db --step latest --output results \\
      --config configs/fer_yolo_mamba.py:voc --config.data.dir=/data/faces
  python eval.py --checkpoint NAME --output results \\
      --config configs/emonext.py:folder --config.data.dir=/data/faces
"""

from absl import flags

from ferjax.commands import eval_program
from ferjax.training import command_line

flags.adopt_module_key_flags(eval_program)

if __name__ == "__main__":
  command_line.run(eval_program.main)

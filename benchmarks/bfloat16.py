"""Trains the three `:demo` configs in bfloat16, and reports whether everything stays finite.

  python benchmarks/bfloat16.py [--examples 400] [--networks fer_yolo_mamba,emonext,fermam]

Each demo runs with its own recipe and number of epochs, on `--examples` examples (0: all of
the demo's). No step may be skipped: a single loss, gradient or value of the state that is not
finite stops the run. Prints Markdown for `benchmarks/results/`.
"""

import argparse
import json
import pathlib
import runpy
import statistics
import sys
import tempfile

from ferjax.compilation_cache import enable_compilation_cache
from ferjax.training.run import train

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--examples", type=int, default=0, help="training examples; 0: the demo's")
  parser.add_argument("--networks", default="emonext,fermam,fer_yolo_mamba")
  arguments = parser.parse_args()
  enable_compilation_cache()
  print(
    "| demo | steps | loss of the first and last tenth | largest gradient norm | skipped steps |"
  )
  print("| --- | --- | --- | --- | --- |")
  for name in arguments.networks.split(","):
    config = runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"]("demo")
    config.model.dtype = "bfloat16"
    config.train.log_every = 1
    config.train.skip_nonfinite = 0
    config.data.test_examples = 0
    if arguments.examples:
      config.data.train_examples = arguments.examples
      config.data.val_examples = min(config.data.val_examples, arguments.examples)
      config.train.eval_every = config.train.checkpoint_every = config.train.epochs
    with tempfile.TemporaryDirectory() as workdir:
      train(config, workdir)  # raises an error at the first value that is not finite
      text = (pathlib.Path(workdir) / "metrics.jsonl").read_text()
    steps = [line for line in map(json.loads, text.splitlines()) if "train/loss" in line]
    losses = [line["train/loss"] for line in steps]
    tenth = max(1, len(losses) // 10)
    first, last = statistics.fmean(losses[:tenth]), statistics.fmean(losses[-tenth:])
    largest = max(line["train/grad_norm"] for line in steps)
    skipped = steps[-1]["train/skipped_steps"]
    print(
      f"| {name} | {len(steps)} | {first:.4g}, {last:.4g} | {largest:.4g} | {skipped:.0f} |",
      flush=True,
    )


if __name__ == "__main__":
  sys.exit(main())

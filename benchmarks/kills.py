"""Kills a run with SIGKILL at random moments, repeats its command, and compares the results.

  python benchmarks/kills.py [--seed 0] [--kills 20] [--folder DIR]

The run is `benchmarks/small_run.py`, on the CPU. A quarter of the kills hit the start of the
program, half the training, and a quarter the writing of a checkpoint. The clock of each process is
shifted by up to ten years. Then everything is compared bit for bit with a run that was not
disturbed. Prints Markdown for `benchmarks/results/`; the exit code is 1 if anything differs.

Moments are random in the time that the process has used the processor, so that the load of the
machine does not matter.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

from ferjax.checkpoint import open_checkpoint, steps_of
from ferjax.training.metric_writer import FILE

ROOT = pathlib.Path(__file__).parents[1]
CLOCK = "FERJAX_BENCHMARK_CLOCK"  # seconds by which the clock of a program is shifted
TICKS = os.sysconf("SC_CLK_TCK")
POLL = 0.005  # seconds
# Values that depend on the speed of the machine.
TIMED = ("train/images_per_second",)
OF_THE_PROCESS = ("training_seconds", "versions")
_SHIFTED_CLOCK = f'''
import os, time
shift = float(os.environ["{CLOCK}"])
now, now_ns = time.time, time.time_ns
time.time = lambda: now() + shift
time.time_ns = lambda: now_ns() + int(shift * 1e9)
'''


@dataclasses.dataclass(frozen=True)
class Life:
  """One process: where and when it was killed, and what it left; `moment` is None if it ended."""

  aim: str
  moment: float | None
  checkpoint: int
  step: int
  partial: bool


def main() -> None:
  arguments = _arguments()
  rng = random.Random(arguments.seed)
  print(f"Seed {arguments.seed}, {arguments.kills} kills\n")
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(arguments.folder or temporary)
    whole, killed = folder / "whole", folder / "killed"
    (folder / "clock").mkdir(parents=True)
    (folder / "clock" / "sitecustomize.py").write_text(_SHIFTED_CLOCK)
    start, total = _undisturbed(whole)
    lives: list[Life] = []
    print("| | aim | clock (days) | killed after (CPU s) | checkpoint | step | partial save |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    while len(lives) < arguments.kills:
      aim = rng.choice(["start", "training", "training", "saving"])
      shift = rng.uniform(-3650, 3650)
      life, start = _life(killed, aim, shift, start, total, rng)
      lives.append(life)
      moment = "it had ended" if life.moment is None else f"{life.moment:.2f}"
      print(
        f"| {len(lives)} | {aim} | {shift:.0f} | {moment} | {life.checkpoint} | {life.step} | "
        f"{'yes' if life.partial else ''} |",
        flush=True,
      )
      if life.moment is None:
        sys.exit("the run ended before the last kill; increase its epochs")
    code = _start(killed, 0.0, folder / "last.log").wait()
    print(f"\nThe last process ended with code {code}.\n")
    differences = compare(whole, killed)
    print("\n".join(differences) or _summary(whole))
    sys.exit(1 if differences or code else 0)


def _arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--kills", type=int, default=20)
  parser.add_argument("--folder", default="", help="for the runs; empty, or to be created")
  return parser.parse_args()


def _start(workdir: pathlib.Path, shift: float, log: pathlib.Path) -> subprocess.Popen:
  """Starts the command; it is the same each time."""
  environment = os.environ | {
    "JAX_PLATFORMS": "cpu",
    "FERJAX_COMPILATION_CACHE": str(workdir.parent / "cache"),
    "PYTHONPATH": os.pathsep.join([str(workdir.parent / "clock"), str(ROOT)]),
    CLOCK: str(shift),
  }
  with log.open("a") as output:
    return subprocess.Popen(
      [sys.executable, "train.py", "--config", "benchmarks/small_run.py", f"--workdir={workdir}"],
      cwd=ROOT,
      env=environment,
      stdout=output,
      stderr=output,
    )


def _undisturbed(workdir: pathlib.Path) -> tuple[float, float]:
  """Runs to the end; returns the CPU seconds until the first step was logged, and in all."""
  process = _start(workdir, 0.0, workdir.with_suffix(".log"))
  logged = _Logged(workdir)
  start = total = 0.0
  while process.poll() is None:
    total = max(total, _cpu_seconds(process.pid))
    if not start and logged.has_grown():
      start = total
    time.sleep(POLL)
  if process.returncode:
    sys.exit(f"the undisturbed run failed; see {workdir.with_suffix('.log')}")
  return start, total


def _life(
  workdir: pathlib.Path, aim: str, shift: float, start: float, total: float, rng: random.Random
) -> tuple[Life, float]:
  """Starts the command and kills it; returns what happened, and the CPU seconds of its start."""
  logged = _Logged(workdir)
  process = _start(workdir, shift, workdir.with_suffix(".log"))
  in_start = rng.uniform(0, start)
  in_training = rng.uniform(0, 0.06 * (total - start))
  delay = rng.uniform(0, 0.05)
  moment, begun = None, None
  while process.poll() is None:
    used = _cpu_seconds(process.pid)
    if begun is None and logged.has_grown():
      begun = used
    if aim == "start":
      due = used >= in_start
    elif aim == "training":
      due = begun is not None and used >= begun + in_training
    else:
      due = begun is not None and used >= begun + in_training and _saves(workdir)
      time.sleep(delay if due else 0)
    if due:
      process.send_signal(signal.SIGKILL)
      moment = used
      break
    time.sleep(POLL)
  if process.wait() != -signal.SIGKILL:
    moment = None
  steps = steps_of(workdir)
  lines = _lines(workdir)
  life = Life(
    aim, moment, steps[-1] if steps else 0, lines[-1]["step"] if lines else 0, _saves(workdir)
  )
  return life, start if begun is None else begun


class _Logged:
  """Whether a new process has logged a step: it replaces the file, and then appends to it."""

  def __init__(self, workdir: pathlib.Path):
    self._file = workdir / FILE
    self._before = self._status()
    self._first: tuple[int, int] | None = None

  def has_grown(self) -> bool:
    now = self._status()
    if now is None or (self._before is not None and now[0] == self._before[0]):
      return False
    self._first = self._first or now
    return now[1] > self._first[1]

  def _status(self) -> tuple[int, int] | None:
    try:
      status = self._file.stat()
    except FileNotFoundError:
      return None
    return status.st_ino, status.st_size


def _saves(workdir: pathlib.Path) -> bool:
  """Whether there is the folder of a checkpoint that is not complete."""
  return any((workdir / "checkpoints").glob("[0-9]*orbax-checkpoint-tmp*"))


def _cpu_seconds(pid: int) -> float:
  try:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
  except (FileNotFoundError, ProcessLookupError):
    return 0.0
  return (int(fields[11]) + int(fields[12])) / TICKS


def _lines(workdir: pathlib.Path) -> list[dict]:
  """The complete lines of the metrics, without what depends on the speed."""
  file = workdir / FILE
  lines = file.read_text().split("\n")[:-1] if file.exists() else []
  return [{k: v for k, v in json.loads(line).items() if k not in TIMED} for line in lines]


def compare(whole: pathlib.Path, killed: pathlib.Path) -> list[str]:
  """The differences between two runs, each in a line; empty if they are equal bit for bit."""
  differences = []
  a, b = _lines(whole), _lines(killed)
  if a != b:
    first = next((i for i, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1]), None)
    differences.append(f"{FILE}: {len(a)} and {len(b)} lines; the first different one is {first}")
  steps = [line["step"] for line in b if "train/loss" in line]
  if steps != list(range(1, len(steps) + 1)):
    differences.append(f"{FILE} does not have each step once")
  if steps_of(whole) != steps_of(killed):
    differences.append(f"checkpoints {steps_of(whole)} and {steps_of(killed)}")
    return differences
  for step in steps_of(whole):
    one, other = (open_checkpoint(workdir, step=step) for workdir in (whole, killed))
    metas = [{k: v for k, v in x.meta.items() if k not in OF_THE_PROCESS} for x in (one, other)]
    if metas[0] != metas[1]:
      differences.append(f"the descriptions of step {step} differ")
    positions = [(x.folder / "data/process_0-of-1.json").read_text() for x in (one, other)]
    if positions[0] != positions[1]:
      differences.append(f"the positions of the data at step {step} differ")
    trees = [{**x.training_state(), "variables": x.variables()} for x in (one, other)]
    flat = [jax.tree_util.tree_leaves_with_path(tree) for tree in trees]
    for (path, x), (_, y) in zip(*flat, strict=True):
      if np.asarray(x).tobytes() != np.asarray(y).tobytes():
        differences.append(f"{jax.tree_util.keystr(path)} of step {step} differs")
  return differences


def _summary(workdir: pathlib.Path) -> str:
  lines = _lines(workdir)
  state = open_checkpoint(workdir, step="latest").training_state()
  counts = {name: len(jax.tree.leaves(tree)) for name, tree in state.items()}
  return (
    f"Equal bit for bit: the arrays of the checkpoints of steps {steps_of(workdir)} ({counts}, and "
    f"the variables for inference), their descriptions and positions in the data, and the "
    f"{len(lines)} lines of {FILE} (without {', '.join(TIMED)}). Each of the "
    f"{sum('train/loss' in line for line in lines)} steps is there once; the loss of each step "
    "depends on its batch, so the order of the data is the same."
  )


if __name__ == "__main__":
  main()

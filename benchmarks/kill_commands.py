"""Kills `ferjax data prepare` and `ferjax predict`, and fills the disk of a training run.

  python benchmarks/kill_commands.py [--seed 0] [--only prepare,predict,disk] [--small-disk DIR]

- prepare: killed while it writes shards, and twice while it writes the report. The set and its
  report must equal those of an undisturbed command: the records of shards, the bytes of others.
- predict: killed five times. The results must equal those of an undisturbed command, byte for byte.
- disk: a run in a small file system (such as a tmpfs of 3 MB, mounted at --small-disk), which is
  filled after its first checkpoint. It must stop with a message, and after space is freed equal an
  undisturbed run.

Prints Markdown for `benchmarks/results/`; the exit code is 1 if anything differs.
"""

import argparse
import csv
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np
from kills import ROOT, compare
from PIL import Image

from ferjax.checkpoint import steps_of
from ferjax.data.prepared import open_prepared

IMAGES = 400
CLASSES = ("neutral", "happiness", "surprise")
POLL = 0.001  # seconds
FERJAX = (sys.executable, "-c", "import sys, ferjax.commands.main as m; sys.exit(m.main())")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--only", default="prepare,predict,disk")
  parser.add_argument("--small-disk", default="", help="a folder on a small file system")
  arguments = parser.parse_args()
  print(f"Seed {arguments.seed}\n")
  rng = random.Random(arguments.seed)
  failed = False
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    make_set(folder / "set")
    for name in arguments.only.split(","):
      print(f"## {name}\n", flush=True)
      if name == "disk":
        problems = full_disk(folder, pathlib.Path(arguments.small_disk))
      else:
        problems = {"prepare": prepare, "predict": predict}[name](folder, rng)
      print("\n".join(problems) or "Equal.", end="\n\n", flush=True)
      failed = failed or bool(problems)
  sys.exit(int(failed))


def make_set(folder: pathlib.Path) -> None:
  """A table of small images."""
  (folder / "images").mkdir(parents=True)
  with (folder / "labels.csv").open("w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["image", "label", "split"])
    for number in range(IMAGES):
      coarse = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
      image = Image.fromarray(coarse).resize((160, 160), Image.Resampling.BICUBIC)
      image.save(folder / "images" / f"{number}.png")
      split = "test" if number % 5 == 0 else "train"
      table.writerow([f"images/{number}.png", CLASSES[number % 3], split])


def prepare(folder: pathlib.Path, rng: random.Random) -> list[str]:
  """Kills the command in each of its phases, then compares its files."""

  def command(out: str) -> list[str]:
    names = ("--class-names", ",".join(CLASSES))
    source = ("--source", str(folder / "set"), "--out", str(folder / out))
    return [*FERJAX, "data", "prepare", "csv", *source, *names]

  def exists(pattern: str) -> Callable[[], bool]:
    return lambda: any((folder / "killed").glob(pattern))

  finish(command("whole"))
  aims = [
    ("shards", exists("*/*/*.unfinished/*.writing"), 0.5),
    ("shards", exists("*/*/*.unfinished/*.writing"), 0.5),
    ("folder of the set", exists("*/*/incomplete.*/*"), 0.1),
    ("report", exists("*/*/1.0.0/report"), 0.0),
    ("report", exists("*/*/1.0.0/report/report.json"), 0.5),
  ]
  for place, due, longest in aims:
    report_kill(command("killed"), place, due, rng.uniform(0, longest))
  finish(command("killed"))
  whole, killed = folder / "whole", folder / "killed"
  return differences(whole, killed) or different_records(whole, killed)


def predict(folder: pathlib.Path, rng: random.Random) -> list[str]:
  """Kills the command five times, then compares its files."""

  def command(out: str) -> list[str]:
    images = str(folder / "set" / "images")
    options = ("--checkpoint", "fermam-nano-ferplus", "--output", str(folder / out))
    return [*FERJAX, "predict", images, *options, "--no-annotated"]

  finish(command("results"))
  journal = folder / "killed_results" / "predictions.jsonl"
  for count in range(5):
    least = IMAGES * count // 6

    def due(least: int = least) -> bool:
      return journal.exists() and journal.read_bytes().count(b"\n") > least

    report_kill(command("killed_results"), f"after {least} images", due, rng.uniform(0, 0.2))
  finish(command("killed_results"))
  return differences(folder / "results", folder / "killed_results")


def full_disk(folder: pathlib.Path, disk: pathlib.Path) -> list[str]:
  """Fills the disk after the first checkpoint of a run; then frees it and repeats the command."""
  if not disk.is_dir() or shutil.disk_usage(disk).total > 64e6:
    return [f"--small-disk {disk} is not a folder on a file system of less than 64 MB"]

  def command(workdir: pathlib.Path) -> list[str]:
    config = ("--config", "benchmarks/small_run.py", "--config.train.epochs=8")
    return [sys.executable, "train.py", *config, "--workdir", str(workdir)]

  finish(command(folder / "run"))
  workdir, filler = disk / "run", disk / "filler"
  process = start(command(workdir))
  while process.poll() is None and not steps_of(workdir):
    time.sleep(POLL)
  with filler.open("wb", buffering=0) as file:
    try:
      while True:
        file.write(bytes(4096))
    except OSError as error:
      print(f"The disk was filled: {error.strerror}.")
  _, errors = process.communicate()
  message = next((line for line in errors.splitlines() if line.startswith("error:")), "none")
  print(f"The run ended with code {process.returncode}, and the message: {message}")
  again = start(command(workdir))
  _, errors = again.communicate()
  message = next((line for line in errors.splitlines() if line.startswith("error:")), "none")
  print(f"On the full disk, the same command ended with code {again.returncode}: {message}")
  filler.unlink()
  finish(command(workdir))
  problems = compare(folder / "run", workdir)
  return problems if process.returncode == 2 else [*problems, "the full disk was not noticed"]


def start(command: Sequence[str]) -> subprocess.Popen:
  environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
  return subprocess.Popen(
    command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )


def finish(command: Sequence[str]) -> None:
  """Runs a command to its end; exits if it fails."""
  process = start(command)
  output = process.communicate()
  if process.returncode:
    sys.exit(f"{' '.join(command)} failed with code {process.returncode}:\n" + "\n".join(output))


def report_kill(command: Sequence[str], place: str, due: Callable[[], bool], delay: float) -> None:
  """Starts a command, kills it `delay` seconds after it is `due`, and prints what happened."""
  process = start(command)
  while process.poll() is None and not due():
    time.sleep(POLL)
  time.sleep(delay)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  state = "killed" if process.returncode == -signal.SIGKILL else "it had ended"
  print(f"- {place}, {delay:.3f} s later: {state}", flush=True)


def differences(whole: pathlib.Path, killed: pathlib.Path) -> list[str]:
  """The files of two folders that are not equal."""
  names = [sorted(str(x.relative_to(f)) for x in f.rglob("*")) for f in (whole, killed)]
  if names[0] != names[1]:
    return [f"other files: {sorted(set(names[0]) ^ set(names[1]))}"]
  files = [name for name in names[0] if (whole / name).is_file()]
  return [
    f"{name} differs"
    for name in files
    # The order of the fields in a record is another one in each process.
    if ".array_record" not in name and (whole / name).read_bytes() != (killed / name).read_bytes()
  ]


def different_records(whole: pathlib.Path, killed: pathlib.Path) -> list[str]:
  """The records of two prepared sets that are not equal."""
  problems = []
  for split in ("train", "val", "test"):
    one, other = open_prepared(whole, split), open_prepared(killed, split)
    for index in range(max(len(one), len(other))):
      a, b = one[index], other[index]
      same = all(np.array_equal(a[name], b[name]) for name in ("image", "label"))
      if not same or one.origin(index) != other.origin(index):
        problems.append(f"record {index} of {split} differs")
  return problems


if __name__ == "__main__":
  main()

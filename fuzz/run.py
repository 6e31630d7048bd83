"""Runs targets on changed inputs, guided by coverage with atheris, or at random.

  pip install "ferjax[test]" atheris torch
  python -m fuzz.run --runs 100000                      every target, one after the other
  python -m fuzz.run --target image --runs 100000 --new /tmp/image
  python -m fuzz.run --target image --input FILE        one input again

An input that fails, takes more than 20 seconds or 2 GB, or crashes is written to --new as
crash-*, timeout-* or oom-* with atheris, and as failed-* or last without; the exit code is then
not 0. Without atheris, or with --random, changes are random, and a process that hangs is not
stopped. Inputs that reach new code are kept in --new; files that are worth keeping for good belong
into fuzz/corpus.
"""

import argparse
import importlib.util
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

_SECONDS = 20  # that an input may take
_MEGABYTES = 2048  # of the whole process
_LARGEST = 16384  # bytes of an input


def main() -> int:
  """Runs one target here, or each in a process of its own."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--target", help="its name (default: every target)")
  parser.add_argument("--runs", type=int, default=10_000, help="inputs of each target")
  parser.add_argument("--new", help="folder for new inputs (default: a temporary one)")
  parser.add_argument("--seed", type=int, default=1, help="of the random changes")
  parser.add_argument("--random", action="store_true", help="without atheris")
  parser.add_argument("--input", help="run only this file")
  arguments = parser.parse_args()
  os.environ["JAX_PLATFORMS"] = "cpu"
  new = pathlib.Path(arguments.new or tempfile.mkdtemp(prefix="ferjax-fuzz-"))
  if arguments.target is None:
    return _run_all(new)
  new.mkdir(parents=True, exist_ok=True)
  use_atheris = importlib.util.find_spec("atheris") is not None and not arguments.random
  if arguments.input is None and use_atheris:
    _run_atheris(arguments.target, arguments.runs, new, arguments.seed)
  return _run_random(arguments, new)


def _run_all(new: pathlib.Path) -> int:
  from fuzz.targets import TARGETS

  failed = []
  for name in TARGETS:
    options = ["--target", name, "--new", str(new / name)]
    if subprocess.run([sys.executable, "-m", "fuzz.run", *sys.argv[1:], *options]).returncode:
      failed.append(name)
  print(f"failed: {', '.join(failed) or 'none'}; new inputs in {new}")
  return 1 if failed else 0


def _run_atheris(name: str, runs: int, new: pathlib.Path, seed: int) -> None:
  """Ends the process."""
  import atheris

  with atheris.instrument_imports(include=["ferjax", "PIL"], enable_loader_override=False):
    from fuzz.targets import TARGETS, corpus

  from fuzz.checks import memory_below
  from fuzz.mutations import mutate_json

  target = TARGETS[name]

  def run(data: bytes) -> None:
    with memory_below(target.memory):
      target.run(data)

  def change(data: bytes, largest: int, number: int) -> bytes:
    rng = random.Random(number)
    changed = mutate_json(data, rng) if rng.random() < 0.8 else atheris.Mutate(data, largest)
    return changed[:largest]

  options = [
    f"-runs={runs}",
    f"-seed={seed}",
    f"-timeout={_SECONDS}",
    f"-rss_limit_mb={_MEGABYTES}",
    f"-max_len={_LARGEST}",
    f"-artifact_prefix={new}/",
    "-print_final_stats=1",
    "-verbosity=1",
  ]
  mutator = {"custom_mutator": change} if target.is_json else {}
  folder = str(corpus(name)[0].parent)
  atheris.Setup([sys.argv[0], *options, str(new), folder], run, **mutator)
  atheris.Fuzz()


def _run_random(arguments: argparse.Namespace, new: pathlib.Path) -> int:
  from fuzz.checks import memory_below
  from fuzz.mutations import mutate, mutate_json
  from fuzz.targets import TARGETS, corpus

  target = TARGETS[arguments.target]
  if arguments.input is not None:
    target.run(pathlib.Path(arguments.input).read_bytes())
    return 0
  rng = random.Random(arguments.seed)
  seeds = [file.read_bytes() for file in corpus(arguments.target)]
  slowest = failures = 0
  for number in range(arguments.runs):
    change = mutate_json if target.is_json and rng.random() < 0.8 else mutate
    data = change(rng.choice(seeds), rng)
    (new / "last").write_bytes(data)  # which a crash of the process leaves
    start = time.perf_counter()
    try:
      with memory_below(target.memory):
        target.run(data)
    except Exception as error:  # noqa: BLE001
      failures += 1
      (new / f"failed-{number}").write_bytes(data)
      print(f"{arguments.target} {number}: {error!r}")
    slowest = max(slowest, time.perf_counter() - start)
  print(f"{arguments.target}: {arguments.runs} runs, {failures} failures, slowest {slowest:.2f} s")
  return 1 if failures or slowest > _SECONDS else 0


if __name__ == "__main__":
  sys.exit(main())

"""All that is measured on an accelerator, in under 8 minutes on one GPU.

  python benchmarks/accelerator.py --out FOLDER [--minutes 8] [--sections scan,networks] [--tiny]
  JAX_PLATFORMS=cpu python benchmarks/accelerator.py --reference FILE.npz [--tiny]

Writes `rows.jsonl` (each result as soon as it is known), `accelerator.json` and `accelerator.md`
below FOLDER. Every section is a process of its own, which is ended when its time is over: a crash,
a lack of memory or a slow compilation ends one section, and the results so far are kept. `--tiny`
runs everything at toy sizes, on a CPU too; its figures mean nothing.

The second command computes the arrays for the section "parity" on another machine, for `--parity`;
without them, that section computes them on the same machine's CPU.
"""

import argparse
import importlib
import json
import os
import pathlib
import subprocess
import sys
import time

import report

# Section -> (title, share of the time). In order of importance.
SECTIONS = {
  "parity": ("Parity with the CPU: float32, highest precision", 0.17),
  "networks": ("Training", 0.34),
  "scan": ("Selective scan", 0.22),
  "torch_step": ("ConvNeXt-T in PyTorch", 0.11),
  "input_rate": ("Input pipeline", 0.09),
  "first_step": ("From the start of the program to the end of the first step", 0.07),
}
TITLES = {name: title for name, (title, _) in SECTIONS.items()}


def run_section(arguments: argparse.Namespace, name: str, seconds: float) -> None:
  """Runs a section in a process of its own, for at most `seconds`."""
  section = report.Section(name, arguments.out, seconds, tiny=arguments.tiny)
  command = [sys.executable, __file__, "--out", str(arguments.out), "--serve", name]
  command += ["--seconds", str(seconds)]
  command += ["--tiny"] if arguments.tiny else []
  command += ["--parity", str(arguments.parity)] if arguments.parity else []
  log = arguments.out / f"{name}.log"
  start = time.monotonic()
  with log.open("w") as file:
    process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
      code = process.wait(timeout=seconds + 5)
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()
      section.note(f"ended after {seconds:.0f} s; what is missing was not reached")
      return
  if code:
    section.note(f"failed with exit status {code}; {log.name} has the error")
  elif name in SECTIONS:
    section.note(f"took {time.monotonic() - start:.0f} s")


def write(folder: pathlib.Path) -> None:
  """Writes the JSON file and the Markdown tables of all rows so far."""
  rows = report.read(folder)
  (folder / "accelerator.json").write_text(json.dumps(rows, indent=1) + "\n")
  head = next((row for row in rows if row["section"] == "machine"), {})
  text = ", ".join(f"{name} {value}" for name, value in head.items() if name != "section")
  (folder / "accelerator.md").write_text(f"{text}\n\n{report.tables(rows, TITLES)}")


def serve(arguments: argparse.Namespace) -> None:
  """Runs one section in this process."""
  module = importlib.import_module(f"sections.{arguments.serve}")
  section = report.Section(arguments.serve, arguments.out, arguments.seconds, tiny=arguments.tiny)
  options = {"stored": arguments.parity} if arguments.serve == "parity" else {}
  module.run(section, **options)


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", type=pathlib.Path, help="folder for the results")
  parser.add_argument("--minutes", type=float, default=7.5, help="for all sections together")
  parser.add_argument("--sections", default=",".join(SECTIONS), help="separated by commas")
  parser.add_argument("--tiny", action="store_true", help="toy sizes, to check this program")
  parser.add_argument("--parity", type=pathlib.Path, help="arrays of --reference")
  parser.add_argument("--reference", type=pathlib.Path, help="compute the arrays of parity, stop")
  parser.add_argument("--serve", choices=("machine", *SECTIONS), help=argparse.SUPPRESS)
  parser.add_argument("--seconds", type=float, default=60, help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  unknown = [name for name in arguments.sections.split(",") if name not in SECTIONS]
  if unknown:
    parser.error(f"unknown sections: {', '.join(unknown)}; known: {', '.join(SECTIONS)}")
  if not arguments.out and not arguments.reference:
    parser.error("pass --out FOLDER for the results, or --reference FILE")
  return arguments


def main() -> None:
  arguments = parse()
  if arguments.reference:
    from sections import parity

    return parity.store(arguments.reference, tiny=arguments.tiny)
  if arguments.serve:
    return serve(arguments)
  arguments.out.mkdir(parents=True, exist_ok=True)
  if (arguments.out / report.ROWS).exists():
    raise SystemExit(f"{arguments.out} has results; choose another folder for --out")
  end = time.monotonic() + 60 * arguments.minutes
  names = arguments.sections.split(",")
  chosen = [name for name in SECTIONS if name in names]
  run_section(arguments, "machine", 60)
  for i, name in enumerate(chosen):
    # A section that ends early leaves its time to those after it.
    share = SECTIONS[name][1] / sum(SECTIONS[x][1] for x in chosen[i:])
    run_section(arguments, name, share * max(end - time.monotonic(), 0))
    write(arguments.out)
  print((arguments.out / "accelerator.md").read_text())
  return None


if __name__ == "__main__":
  # PyTorch and JAX run in turn, so neither may keep memory that it does not use.
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  main()

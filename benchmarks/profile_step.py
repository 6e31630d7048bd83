"""Time per operation of a network's inference or training step, from XLA's own trace.

  python benchmarks/profile_step.py emonext --program step --batch 8 [--rows 30]

Prints a Markdown table for `benchmarks/results/`. Operations are grouped by kind (the HLO
operation, or the name of a fusion) and by the module and primitive they come from; the numbers in
names are left out, so the blocks of all stages count together unless `--by-stage` is given. The
time of an operation is from its start to its end; operations that run at the same time both count,
so the sum may exceed the time of the whole program.
"""

import argparse
import collections
import os
import pathlib
import re
import tempfile
import time
from collections.abc import Iterator

from networks import ALLOCATOR, machine

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%([\w.-]+) = .*? ([\w-]+)\(.*")
_SOURCE = re.compile(r'op_name="([^"]*)"')
REPEATS = 3


def sources(program: str) -> dict[str, tuple[str, str]]:
  """HLO instruction -> (its kind, where it comes from), from a compiled program's text."""
  result = {}
  for line in program.splitlines():
    if found := _INSTRUCTION.match(line):
      name, kind = found.groups()
      if kind in ("fusion", "call", "custom-call"):
        kind = re.sub(r"[.\d]+$", "", name)
      source = _SOURCE.search(line)
      result[name] = kind, source[1] if source else ""
  return result


def scope(source: str, by_stage: bool) -> str:
  """A short name of where an operation comes from: direction, modules, primitive."""
  direction = "gradient " if "transpose(" in source else ""
  source = re.sub(r"\w+\(([^()]*)\)", r"\1", re.sub(r"\w+\(([^()]*)\)", r"\1", source))
  names = [x for x in source.split("/") if x and x not in ("train_step", "jit", "closed_call")][1:]
  if not by_stage:
    names = [re.sub(r"\d+$", "", name) for name in names]
  return direction + "/".join(names[-4:])


def operations(trace: pathlib.Path) -> Iterator[tuple[str, float]]:
  """(instruction, milliseconds) of every operation that ran."""
  import jax

  data = jax.profiler.ProfileData.from_file(str(next(trace.rglob("*.xplane.pb"))))
  started: dict[tuple, tuple[str, float]] = {}
  ended: dict[tuple, float] = {}
  for plane in data.planes:
    for line in plane.lines:
      for event in line.events:
        stats = dict(event.stats)
        # An operation that continues on other threads has a second event with its identity.
        if "hlo_op" in stats:
          identity = (stats.get("_pt"), stats.get("_p"))
          started[identity] = stats["hlo_op"], event.start_ns
          ended[identity] = max(ended.get(identity, 0.0), event.end_ns)
        elif event.name.startswith("end: "):
          identity = (stats.get("_ct"), stats.get("_c"))
          ended[identity] = max(ended.get(identity, 0.0), event.end_ns)
  for identity, (name, start) in started.items():
    yield name, (ended[identity] - start) / 1e6


def profile(run) -> tuple[dict[str, list[float]], float]:
  """Instruction -> times in ms, over `REPEATS` runs, and the time of a run without the profiler."""
  import jax

  run()
  start = time.perf_counter()
  run()
  untraced = time.perf_counter() - start
  options = jax.profiler.ProfileOptions()
  options.python_tracer_level = 0
  times = collections.defaultdict(list)
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder, profiler_options=options):
      for _ in range(REPEATS):
        run()
    for name, milliseconds in operations(pathlib.Path(folder)):
      times[name].append(milliseconds)
  return times, 1e3 * untraced


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("network")
  parser.add_argument("--program", choices=("forward", "step"), default="step")
  parser.add_argument("--batch", type=int, default=8)
  parser.add_argument("--rows", type=int, default=25)
  parser.add_argument("--by-stage", action="store_true", help="keep the numbers of blocks")
  arguments = parser.parse_args()
  import programs

  from ferjax.compilation_cache import enable_compilation_cache

  enable_compilation_cache()
  program = getattr(programs, arguments.program)(arguments.network, arguments.batch)
  times, untraced = profile(program.run)
  known = sources(program.compiled.as_text())
  groups = collections.defaultdict(list)
  for name, milliseconds in times.items():
    kind, source = known.get(name, (re.sub(r"[.\d]+$", "", name), ""))
    groups[kind, scope(source, arguments.by_stage)] += milliseconds
  total = sum(map(sum, groups.values())) / REPEATS
  print(f"{machine()}; {' '.join(f'{k}={os.environ.get(k)}' for k in ALLOCATOR)}\n")
  print(
    f"{arguments.network}, {arguments.program}, batch {arguments.batch}: {untraced:.0f} ms, "
    f"operations {total:.0f} ms, temporary memory "
    f"{program.compiled.memory_analysis().temp_size_in_bytes / 1e6:.0f} MB\n"
  )
  print("| ms | % | number | kind | from |\n| ---: | ---: | ---: | --- | --- |")
  ordered = sorted(groups.items(), key=lambda item: -sum(item[1]))
  for (kind, source), spent in ordered[: arguments.rows]:
    ms = sum(spent) / REPEATS
    print(f"| {ms:.1f} | {100 * ms / total:.1f} | {len(spent) // REPEATS} | {kind} | {source} |")


if __name__ == "__main__":
  main()

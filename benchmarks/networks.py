"""Each network beside its counterpart in PyTorch: times, their ratio, and memory, in one run.

  python benchmarks/networks.py convnext [fermam ...] [--rows forward1,forward8,step8]
      [--rounds 5] [--json FILE]

Prints a Markdown table for `benchmarks/results/`. Each side of a row is a process of its own, with
its own memory; they run in turn, A B A B, and never at the same time. Times are medians over all
turns. Memory is the highest resident memory of the process during one more run, after the memory
that compilation freed is returned to the system (Linux only).

Both sides get `MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=68719476736`: without
this, the C library returns freed memory to the system at once, and both sides wait for page faults.
OpenMP keeps its defaults: a side's idle threads stop spinning after some milliseconds.

It needs the extra `torch`. Compiled programs are cached (`ferjax.compilation_cache`). With
`--compile`, this fills the cache and measures nothing.
"""

import argparse
import ctypes
import datetime
import importlib
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

from peers import PEERS

ALLOCATOR = {
  "MALLOC_ARENA_MAX": "1",
  "MALLOC_MMAP_MAX_": "0",
  "MALLOC_TRIM_THRESHOLD_": "68719476736",
}
# Row -> function of a peer and of `programs`, batch size, runs in each turn.
ROWS = {"forward1": ("forward", 1, 5), "forward8": ("forward", 8, 2), "step8": ("step", 8, 1)}
SIDES = ("ferjax", "torch")
PAUSE = 0.1  # seconds between turns


def build(side: str, peer_name: str, row: str):
  """The function that runs one side of a row, and the name of the chosen variant."""
  name, batch_size, _ = ROWS[row]
  if side == "ferjax":
    import programs

    from ferjax.compilation_cache import enable_compilation_cache

    enable_compilation_cache()
    return getattr(programs, name)(PEERS[peer_name], batch_size).run, ""
  peer = importlib.import_module(f"peers.{peer_name}")
  best, chosen = float("inf"), ""
  for variant in peer.VARIANTS if len(peer.VARIANTS) > 1 else ():
    run = getattr(peer, name)(variant, batch_size)
    seconds = min(timed(run, 4)[1:])
    if seconds < best:
      best, chosen = seconds, variant
    del run
  return getattr(peer, name)(chosen or peer.VARIANTS[0], batch_size), chosen


def timed(run, count: int) -> list[float]:
  seconds = []
  for _ in range(count):
    start = time.perf_counter()
    run()
    seconds.append(time.perf_counter() - start)
  return seconds


def peak_memory(run) -> float:
  """The highest resident memory of this process while it runs once, in MB."""
  ctypes.CDLL(None).malloc_trim(0)
  process = pathlib.Path("/proc/self")
  (process / "clear_refs").write_text("5")  # resets VmHWM
  run()
  lines = (process / "status").read_text().splitlines()
  return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6


def serve(side: str, peer_name: str, row: str) -> None:
  """Answers each line of the standard input with one of JSON: a number of runs, or "memory"."""
  run, variant = build(side, peer_name, row)
  timed(run, 2)
  print(json.dumps(variant), flush=True)
  for line in sys.stdin:
    answer = peak_memory(run) if line.strip() == "memory" else timed(run, int(line))
    print(json.dumps(answer), flush=True)


class Side:
  """One side of a row, in a process of its own."""

  def __init__(self, side: str, peer_name: str, row: str):
    command = [sys.executable, __file__, "--serve", side, peer_name, "--rows", row]
    self._process = subprocess.Popen(
      command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | ALLOCATOR
    )
    self.variant = self._answer()

  def ask(self, request: str):
    self._process.stdin.write(request + "\n")
    self._process.stdin.flush()
    return self._answer()

  def _answer(self):
    line = self._process.stdout.readline()
    if not line:
      raise SystemExit(f"a child process ended with {self._process.wait()}: see its error above")
    return json.loads(line)

  def close(self) -> None:
    self._process.stdin.close()
    self._process.wait()


def measure(peer_name: str, row: str, rounds: int) -> dict:
  """The figures of one row, as in the JSON file."""
  sides = {side: Side(side, peer_name, row) for side in SIDES}  # one after the other
  seconds = {side: [] for side in SIDES}
  for _ in range(rounds):
    for side, process in sides.items():
      time.sleep(PAUSE)
      seconds[side] += process.ask(str(ROWS[row][2]))
  result = {"peer": peer_name, "row": row, "variant": sides["torch"].variant, "seconds": seconds}
  for side, process in sides.items():
    result[f"{side}_median"] = statistics.median(seconds[side])
    result[f"{side}_memory_mb"] = process.ask("memory")
    process.close()
  result["ratio"] = result["ferjax_median"] / result["torch_median"]
  return result


def machine() -> str:
  """Date, versions and processor, for the head of a table."""
  version = importlib.metadata.version
  cpu = pathlib.Path("/proc/cpuinfo")
  names = [line for line in cpu.read_text().splitlines() if line.startswith("model name")]
  kind = names[0].split(": ")[1] if names else platform.processor()
  return (
    f"{datetime.date.today()}, jax {version('jax')}, flax {version('flax')}, torch "
    f"{version('torch')}; {len(os.sched_getaffinity(0))} cores of {kind} ({platform.machine()})"
  )


def table_row(result: dict) -> str:
  ferjax, torch = result["ferjax_median"], result["torch_median"]
  ours, theirs = result["ferjax_memory_mb"], result["torch_memory_mb"]
  variant = f" ({result['variant']})" if result["variant"] else ""
  return (
    f"| {result['peer']}{variant} | {result['row']} | {ferjax:.3f} | {torch:.3f} | "
    f"{result['ratio']:.2f} | {ours:.0f} | {theirs:.0f} | {ours / theirs:.2f} |"
  )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("peers", nargs="*", default=list(PEERS), help=f"of {', '.join(PEERS)}")
  parser.add_argument("--rows", default=",".join(ROWS), help="separated by commas")
  parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
  parser.add_argument("--json", type=pathlib.Path, help="also write all times to this file")
  parser.add_argument("--compile", action="store_true", help="fill the cache of programs and stop")
  parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  rows = arguments.rows.split(",")
  if unknown := [x for x in arguments.peers if x not in PEERS] + [x for x in rows if x not in ROWS]:
    parser.error(
      f"unknown: {', '.join(unknown)}; peers: {', '.join(PEERS)}; rows: {', '.join(ROWS)}"
    )
  if arguments.serve:
    return serve(arguments.serve, arguments.peers[0], rows[0])
  if arguments.compile:
    for peer in arguments.peers:
      for row in rows:
        Side("ferjax", peer, row).close()
    return None
  print(f"{machine()}; both sides with {' '.join(f'{k}={v}' for k, v in ALLOCATOR.items())}\n")
  print("| peer | row | ferjax, s | PyTorch, s | ratio | ferjax, MB | PyTorch, MB | ratio |")
  print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
  results = []
  for peer in arguments.peers:
    for row in rows:
      results.append(measure(peer, row, arguments.rounds))
      print(table_row(results[-1]), flush=True)
  if arguments.json:
    arguments.json.write_text(json.dumps({"machine": machine(), "rows": results}, indent=2) + "\n")
  return None


if __name__ == "__main__":
  main()

"""`ferjax predict` over many images: broken files, odd names, kills at random moments, memory.

  python benchmarks/predict_load.py [--images 10000] [--kills 5] [--seed 1] --output FOLDER

Writes `predict-load.md` and `predict-load.png` into FOLDER. One image in a hundred is broken. The
command runs twice over the same folder: once to the end, and once killed with SIGKILL at random
moments, each time followed by the same command. After each kill, the files of all images that have
a result are emptied: they would be broken images if they were read again. Both runs must have the
same results.
"""

import argparse
import contextlib
import csv
import dataclasses
import datetime
import io
import json
import os
import pathlib
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import jax
import matplotlib
import numpy as np
import psutil
from PIL import Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BROKEN_EVERY = 100
PICTURES = 64
SIDE = 96  # pixels
CHECKPOINT = "fermam-nano-ferplus"
SAMPLE_SECONDS = 0.5
TOLERANCE = 2e-6  # of scores, which are rounded to six decimals
FOLDERS = (
  "",
  "with space",
  'quote\'s "double"',
  "字/表情",
  "-dash",
  "looks like.jpg",
  "$(echo x) ; & | > *?[]",
  "deep/er/and/deep/er",
  "tab\tand\nline",
  os.fsdecode(b"caf\xe9"),
)
STEMS = ("image", " leading space", "#%20", "😀", "CON", "é" * 100, "a.b.c", "--help", "x\ny", "~")


@dataclasses.dataclass
class Run:
  """What was seen of one run: samples are (images done, resident bytes, process)."""

  samples: list[tuple[int, int, int]]
  kills: list[int]
  seconds: float


def pictures() -> list[bytes]:
  """JPEG files of smooth noise."""
  rng = np.random.default_rng(0)
  files = []
  for _ in range(PICTURES):
    noise = Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8))
    file = io.BytesIO()
    noise.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    files.append(file.getvalue())
  return files


def broken(jpeg: bytes) -> list[bytes]:
  """Files that are no images, of several kinds."""
  file = io.BytesIO()
  Image.new("RGB", (8, 8)).save(file, "PNG")
  png = file.getvalue()
  bomb = png[:16] + b"\0\1\0\0" * 2 + png[24:]  # claims 65536 x 65536 pixels
  return [jpeg[: len(jpeg) // 2], b"", b"text\n", bomb, b"%!PS-Adobe-3.0 EPSF-3.0\n", png[:40]]


def make_images(root: pathlib.Path, count: int) -> set[str]:
  """Writes the images; returns the paths of the broken ones."""
  good = pictures()
  bad, paths = broken(good[0]), set()
  for number in range(count):
    name = f"{STEMS[number % len(STEMS)]}-{number}.jpg"
    path = root / FOLDERS[number // 7 % len(FOLDERS)] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    is_bad = number % BROKEN_EVERY == BROKEN_EVERY // 2
    path.write_bytes(bad[number // BROKEN_EVERY % len(bad)] if is_bad else good[number % PICTURES])
    if is_bad:
      paths.add(str(path))
  return paths


def records(output: pathlib.Path) -> list[dict]:
  """The whole lines so far, as another program reads them while the command runs."""
  path = output / "predictions.jsonl"
  lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
  return [json.loads(line) for line in lines if line.endswith(b"\n")]


class Tail:
  """Counts the lines of a growing file, and checks that each is an object of JSON."""

  def __init__(self, output: pathlib.Path):
    self._path = output / "predictions.jsonl"
    self._position = self.lines = 0

  def read(self) -> int:
    if self._path.exists():
      with self._path.open("rb") as file:
        file.seek(self._position)
        for line in file:
          if not line.endswith(b"\n"):
            break
          assert "image" in json.loads(line)
          self._position += len(line)
          self.lines += 1
    return self.lines


def predict(images: pathlib.Path, output: pathlib.Path, kills: int, seed: int, total: int) -> Run:
  """Runs the command until it is complete, killed `kills` times at random numbers of images."""
  rng = random.Random(seed)
  moments = sorted(rng.sample(range(total), kills))
  command = [sys.executable, "-m", "ferjax.commands.main", "predict", str(images), "--recursive"]
  command += ["--on-bad-image", "skip", "--checkpoint", CHECKPOINT, "--output", str(output)]
  run, start, tail = Run([], [], 0.0), time.perf_counter(), Tail(output)
  while True:
    with tempfile.TemporaryFile("w+") as log:
      process = subprocess.Popen(command, stdout=log, stderr=subprocess.DEVNULL)
      _watch(process, run, tail, moments[0] if moments else None, rng)
      code = process.wait()
      log.seek(0)
      text = log.read()
    if run.kills and (text or code == 0):  # a kill may come before the first line
      assert f"Going on after {run.kills[-1]:,} of {total:,} images" in text, text
    if code == 0:
      break
    assert code == -signal.SIGKILL, (code, text)
    moments.pop(0)
    emptied = run.kills[-1] if run.kills else 0
    run.kills.append(tail.read())
    for record in records(output)[emptied : run.kills[-1]]:
      pathlib.Path(record["image"]).write_bytes(b"")
  run.seconds = time.perf_counter() - start
  return run


def _watch(
  process: subprocess.Popen, run: Run, tail: Tail, kill_after: int | None, rng: random.Random
) -> None:
  """Samples the memory of a process until it ends; kills it after so many results."""
  watched, before = psutil.Process(process.pid), tail.lines
  while process.poll() is None:
    if (done := tail.read()) > before:
      with contextlib.suppress(psutil.NoSuchProcess):
        if resident := watched.memory_info().rss:  # 0 when it has just ended
          run.samples.append((done, resident, len(run.kills)))
    if kill_after is not None and done >= kill_after:
      time.sleep(rng.random() * SAMPLE_SECONDS)
      process.send_signal(signal.SIGKILL)
      return
    time.sleep(SAMPLE_SECONDS if kill_after is None else SAMPLE_SECONDS / 10)


def check(images: pathlib.Path, output: pathlib.Path, bad: set[str], total: int) -> dict:
  """Checks the files of a complete run against each other and the images; returns the document."""
  document = json.loads((output / "predictions.json").read_text())
  lines = records(output)
  assert document["complete"] is True
  assert not (output / "predictions.unfinished.json").exists()
  assert len(lines) == total
  assert len({line["image"] for line in lines}) == total
  assert {line["image"] for line in lines if "reason" in line} == bad
  assert [line for line in lines if "faces" in line] == document["images"]
  assert [line for line in lines if "reason" in line] == document["skipped"]
  with (output / "predictions.csv").open(newline="") as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == total - len(bad)
  for image in document["images"]:
    assert (output / image["annotated"]).is_file()
  return document


def same(a: dict, b: dict) -> bool:
  """Whether two documents have the same images with the same faces."""
  if [x["image"] for x in a["images"]] != [x["image"] for x in b["images"]]:
    return False
  for x, y in zip(a["images"], b["images"], strict=True):
    for face, other in zip(x["faces"], y["faces"], strict=True):
      if face["expression"] != other["expression"]:
        return False
      if any(abs(face["scores"][k] - other["scores"][k]) > TOLERANCE for k in face["scores"]):
        return False
  return a["skipped"] == b["skipped"]


def plot(runs: dict[str, Run], path: pathlib.Path) -> None:
  figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
  for label, run in runs.items():
    for number in range(len(run.kills) + 1):
      part = [(done, rss / 1e6) for done, rss, process in run.samples if process == number]
      axes.plot(*zip(*part, strict=True), label=f"{label}, process {number + 1}", linewidth=1)
  axes.set(xlabel="images with a result", ylabel="resident memory, MB", ylim=(0, None))
  axes.legend(fontsize=7, ncols=2)
  figure.savefig(path, dpi=110)


def table(run: Run, total: int) -> str:
  """Memory of the first process of a run at tenths of the images."""
  first = [(done, rss) for done, rss, process in run.samples if process == 0]
  lines = ["| images done | resident, MB |", "| --- | --- |"]
  for tenth in range(1, 11):
    done, rss = next((x for x in first if x[0] >= tenth * total / 10), first[-1])
    lines.append(f"| {done:,} | {rss / 1e6:.1f} |")
  return "\n".join(lines)


def report(arguments, runs: dict[str, Run], bad: int) -> str:
  whole, killed = runs["not interrupted"], runs["killed"]
  total = arguments.images
  kills = ", ".join(f"{x:,}" for x in killed.kills)
  return f"""# `ferjax predict` over {total:,} images

`python benchmarks/predict_load.py --images {total} --kills {arguments.kills} --seed \
{arguments.seed}`: {datetime.date.today()}, Python {platform.python_version()}, jax \
{jax.__version__}, {os.cpu_count()} cores of {platform.machine()}, load average \
{os.getloadavg()[2]:.1f} over the last 15 minutes.

{total:,} JPEG files of {SIDE} x {SIDE} pixels in {len(FOLDERS)} nested folders, with spaces, \
quotes, line breaks, wildcards, other scripts, bytes that are not UTF-8 and 200 bytes in their \
names; {bad} of them broken: truncated, empty, text, a bomb of 65536 x 65536 pixels, EPS. The \
classifier is {CHECKPOINT}, in batches of 8, with annotated copies.

| | not interrupted | killed |
| --- | --- | --- |
| seconds | {whole.seconds:.0f} | {killed.seconds:.0f} |
| processes | 1 | {len(killed.kills) + 1} |
| images with a result at each kill | | {kills} |
| images answered | {total - bad:,} | {total - bad:,} |
| broken images listed | {bad} | {bad} |
| lines of `predictions.jsonl`, all different | {total:,} | {total:,} |

The results of both runs are the same. After each kill, the files of all images with a result were \
emptied; none of them was read again. All lines could be read as JSON while the command ran.

## Memory

{table(whole, total)}

![resident memory](predict-load.png)
"""


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--images", type=int, default=10_000)
  parser.add_argument("--kills", type=int, default=5)
  parser.add_argument("--seed", type=int, default=1)
  parser.add_argument("--output", required=True)
  arguments = parser.parse_args()
  output = pathlib.Path(arguments.output)
  output.mkdir(parents=True, exist_ok=True)
  work = pathlib.Path(tempfile.mkdtemp(prefix="ferjax-load-"))
  try:
    bad = make_images(work / "images", arguments.images)
    runs, documents = {}, []
    for label, kills in (("not interrupted", 0), ("killed", arguments.kills)):
      results = work / label
      runs[label] = predict(work / "images", results, kills, arguments.seed, arguments.images)
      documents.append(check(work / "images", results, bad, arguments.images))
      print(label, runs[label].kills, f"{runs[label].seconds:.0f} s", flush=True)
    assert same(*documents)
    plot(runs, output / "predict-load.png")
    (output / "predict-load.md").write_text(report(arguments, runs, len(bad)))
  finally:
    shutil.rmtree(work)


if __name__ == "__main__":
  main()

"""Speed and memory of `ferjax predict` on a film that is made of stills.

  python benchmarks/video.py FACES [--minutes 10] [--frame-stride 1] [--out results.md]

FACES is a folder of portraits that may be used, such as the Face Research Lab London Set (CC BY
4.0). The film has 640x360 pixels, 25 frames per second and a tone; in each shot of ten seconds, two
portraits move in front of a plain wall. Prints a Markdown table: frames per second, and the peak of
the memory of the process, for the film and for its first tenth, which shows whether memory grows.
Programs are compiled in a run before the measured ones.
"""

import argparse
import itertools
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from PIL import Image

RATE, WIDTH, HEIGHT = 25, 640, 360
SHOT, SIDE = 10, 260  # seconds, pixels
_SAMPLES = 1024


def shots(faces: list[pathlib.Path], frames: int) -> Iterator[np.ndarray]:
  """Yields the frames of the film."""
  pairs = itertools.cycle(itertools.pairwise(faces))
  portraits: list[Image.Image] = []
  for index in range(frames):
    step = index % (SHOT * RATE)
    if step == 0:
      portraits = [Image.open(path).convert("RGB").resize((SIDE, SIDE)) for path in next(pairs)]
    frame = Image.new("RGB", (WIDTH, HEIGHT), (90, 110, 100))
    shift = round(40 * np.sin(step / 30))
    frame.paste(portraits[0], (45 + shift, 50))
    frame.paste(portraits[1], (340, 50 + shift))
    yield np.array(frame)


def write_film(path: pathlib.Path, faces: list[pathlib.Path], seconds: float) -> None:
  """Writes the film, with a tone."""
  with av.open(str(path), "w") as container:
    pictures = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
    pictures.width, pictures.height, pictures.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    tone = container.add_stream("aac", rate=48000)
    blocks = 0
    for index, image in enumerate(shots(faces, round(seconds * RATE))):
      container.mux(pictures.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
      while blocks * _SAMPLES < (index + 1) * 48000 / RATE:
        wave = 0.1 * np.sin(np.arange(_SAMPLES) * 0.06).astype(np.float32)
        block = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
        block.sample_rate, block.pts = 48000, blocks * _SAMPLES
        block.time_base = Fraction(1, 48000)
        container.mux(tone.encode(block))
        blocks += 1
    container.mux(pictures.encode(None))
    container.mux(tone.encode(None))


def measure(film: pathlib.Path, output: pathlib.Path, options: list[str]) -> tuple[float, float]:
  """Seconds and peak memory in GB of a run in a process of its own."""
  command = [sys.executable, "-m", "ferjax.commands.main", "predict", str(film)]
  program = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=2); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
  )
  start = time.perf_counter()
  done = subprocess.run(
    [sys.executable, "-c", program, *command, "--output", str(output), *options],
    check=True,
    stdout=subprocess.PIPE,
    text=True,
  )
  unit = 1 if sys.platform == "darwin" else 1024
  return time.perf_counter() - start, int(done.stdout) * unit / 1e9


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("faces", type=pathlib.Path, help="folder of portraits")
  parser.add_argument("--minutes", type=float, default=10.0, help="length of the film")
  parser.add_argument("--frame-stride", type=int, default=1)
  parser.add_argument("--out", type=pathlib.Path, help="file for the table")
  arguments = parser.parse_args()
  faces = sorted(p for p in arguments.faces.iterdir() if p.suffix in (".jpg", ".jpeg", ".png"))
  if len(faces) < 2:
    parser.error(f"{arguments.faces} has {len(faces)} images; expected at least 2")
  lines = [
    "| film | frames analysed | frames/s | CPU s | peak memory, GB |",
    "| ---: | ---: | ---: | ---: | ---: |",
  ]
  options = ["--frame-stride", str(arguments.frame_stride)]
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    film, seconds = folder / "film.mp4", 60 * arguments.minutes
    write_film(film, faces, seconds)
    measure(film, folder / "first", [*options, "--seconds", "1"])
    for part in (seconds / 10, seconds):
      before = resource.getrusage(resource.RUSAGE_CHILDREN)
      took, memory = measure(film, folder / "out", [*options, "--seconds", str(part)])
      after = resource.getrusage(resource.RUSAGE_CHILDREN)
      cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
      frames = -(-round(part * RATE) // arguments.frame_stride)
      lines.append(
        f"| {part:.0f} s | {frames:,} | {frames / took:.1f} | {cpu:.0f} | {memory:.2f} |"
      )
      print(*lines, sep="\n", flush=True)
  print(f"{os.cpu_count()} CPU cores; load at the end {os.getloadavg()[0]:.1f}")
  if arguments.out is not None:
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
  main()

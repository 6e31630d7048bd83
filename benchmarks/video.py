"""Speed and memory of `ferjax predict` on a film that is made of stills.

  python benchmarks/video.py FACES [--minutes 10] [--frame-stride 1] [--fer PYTHON] [--out FILE]

FACES is a folder of portraits that may be used, such as the Face Research Lab London Set (CC BY
4.0). The film has 640x360 pixels, 25 frames per second and a tone; in each shot of ten seconds, two
portraits move in front of a plain wall. Prints a Markdown table: frames per second, and the peak of
the memory of the process, for the film and for its first tenth, which shows whether memory grows.
Programs are compiled in a run before the measured ones. `--fer` is the Python of an environment
with `pip install fer`: it analyses the same frames, with both of its detectors, and writes nothing.
"""

import argparse
import itertools
import os
import pathlib
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
FER = pathlib.Path(__file__).parent / "others" / "fer_film.py"


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


def predict(film: pathlib.Path, output: pathlib.Path, stride: int, seconds: float) -> list[str]:
  """The command that analyses the start of the film with ferjax."""
  command = [sys.executable, "-m", "ferjax.commands.main", "predict", str(film)]
  options = {"--output": output, "--frame-stride": stride, "--seconds": seconds}
  return command + [str(x) for pair in options.items() for x in pair]


def measure(command: list[str]) -> tuple[float, float, float]:
  """Seconds, CPU seconds and peak memory in GB of a command, in a process of its own."""
  program = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=2); "
    "u = resource.getrusage(resource.RUSAGE_CHILDREN); print(u.ru_utime + u.ru_stime, u.ru_maxrss)"
  )
  start = time.perf_counter()
  done = subprocess.run(
    [sys.executable, "-c", program, *command], check=True, stdout=subprocess.PIPE, text=True
  )
  took, (cpu, memory) = time.perf_counter() - start, map(float, done.stdout.split())
  return took, cpu, memory * (1 if sys.platform == "darwin" else 1024) / 1e9


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("faces", type=pathlib.Path, help="folder of portraits")
  parser.add_argument("--minutes", type=float, default=10.0, help="length of the film")
  parser.add_argument("--frame-stride", type=int, default=1)
  parser.add_argument("--fer", metavar="PYTHON", help="measure the package fer, too")
  parser.add_argument("--out", type=pathlib.Path, help="file for the table")
  arguments = parser.parse_args()
  faces = sorted(p for p in arguments.faces.iterdir() if p.suffix in (".jpg", ".jpeg", ".png"))
  if len(faces) < 2:
    parser.error(f"{arguments.faces} has {len(faces)} images; expected at least 2")
  lines = [
    "| film | package | frames analysed | frames/s, with the start | CPU s | peak memory, GB |",
    "| ---: | --- | ---: | ---: | ---: | ---: |",
  ]
  stride = arguments.frame_stride
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    film, seconds = folder / "film.mp4", 60 * arguments.minutes
    write_film(film, faces, seconds)
    measure(predict(film, folder / "first", stride, 1))
    for part in (seconds / 10, seconds):
      sides = {"ferjax": predict(film, folder / "out", stride, part)}
      if arguments.fer:
        script = [arguments.fer, str(FER), str(film), str(stride), str(part)]
        sides |= {"fer, Haar cascade": script, "fer, MTCNN": [*script, "mtcnn"]}
      for package, command in sides.items():
        took, cpu, memory = measure(command)
        frames = -(-round(part * RATE) // stride)
        lines.append(
          f"| {part:.0f} s | {package} | {frames:,} | {frames / took:.1f} | {cpu:.0f} | "
          f"{memory:.2f} |"
        )
        print(*lines, sep="\n", flush=True)
  print(f"{os.cpu_count()} CPU cores; load at the end {os.getloadavg()[0]:.1f}")
  if arguments.out is not None:
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
  main()
